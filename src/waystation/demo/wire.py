"""A network between a client and the API that can be cut: a TCP proxy in this process."""

import asyncio
import contextlib

CHUNK_BYTES = 65_536


class Wire:
    """Forwards TCP connections to a port on this machine, until it is cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._port = 0
        self._links: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.WriteTransport] = set()
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
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Resets every connection, dropping data in transit, and accepts no new one."""
        if self._server:
            self._server.close()
            self._server = None
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def close(self) -> None:
        """Cuts it and waits until all its tasks have ended."""
        self.cut()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._transports |= {writer.transport, there_writer.transport}
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._links.add(task)
            task.add_done_callback(self._links.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK_BYTES):
                sink.write(data)
                await sink.drain()
        self._transports.discard(sink.transport)
        sink.close()
