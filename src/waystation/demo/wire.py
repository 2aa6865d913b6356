"""A network between a client and the API that can be cut: a TCP proxy in this process."""

import asyncio

CHUNK_BYTES = 65_536


class Wire:
    """Forwards TCP connections to a port on this machine, until it is cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._port = 0
        self._links: set[asyncio.Task[None]] = set()
        self.connections = 0
        """How many connections were ever made over it."""

    @property
    def url(self) -> str:
        """The API's address through this wire."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def whole(self) -> bool:
        """Whether connections can currently be made."""
        return self._server is not None

    async def mend(self) -> None:
        """Accepts connections (again), on the same port as before."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Resets every connection, dropping data in transit, and accepts no new one."""
        if self._server:
            self._server.close()
            self._server = None
        for link in self._links:
            link.cancel()

    async def close(self) -> None:
        """Cuts it and waits until every connection has ended."""
        self.cut()
        await asyncio.gather(*self._links)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection from its first moment on, so that no cut can come too early for it."""
        task = asyncio.current_task()
        assert task is not None, "asyncio serves connections in tasks"
        self._links.add(task)
        ends = [writer]
        try:
            if not self.whole:  # it was cut between the connection and this
                return
            self.connections += 1
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            ends.append(back)
            await asyncio.gather(_forward(reader, back), _forward(there, writer))
            for end in ends:
                end.close()
                await end.wait_closed()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            for end in ends:
                end.transport.abort()


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.close()
