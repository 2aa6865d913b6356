"""The wires between the processes: TCP proxies that can cut, delay and tear, and answer HTTP themselves."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

CHUNK_BYTES = 65_536
CONNECT_SECONDS = 2.0
ANSWERS = {401: b"Unauthorized", 502: b"Bad Gateway"}
PROXY_HEADER = "x-torture-proxy"
"""Marks what the proxy has answered itself: the API never got the request."""


class Proxy:
    """One wire. Connections go to the first of ``upstream`` that takes them, as a load balancer's would."""

    def __init__(self, name: str, upstream: Callable[[], Sequence[int]]) -> None:
        self.name, self._upstream = name, upstream
        self.port = 0
        self.closed = False
        """Takes no connections."""
        self.delay_seconds = 0.0
        self.answer_status: int | None = None
        self.tear_after_bytes: int | None = None
        """The next bytes in either direction are cut here, wherever that is, and the connection with them."""
        self.torn = self.refused = self.answered = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "Proxy":
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends every connection without a word."""
        for writer in self._open:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "connections are served in tasks"
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            if self.closed:
                self.refused += 1
            elif self.answer_status is not None:
                await self._answer(reader, writer, self.answer_status)
            else:
                await self._pass_on(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the wire is taken down; the server would log it otherwise
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int) -> None:
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CONNECT_SECONDS)
        self.answered += 1
        head = f"HTTP/1.1 {status} {ANSWERS[status].decode()}\r\n{PROXY_HEADER}: 1\r\nConnection: close\r\n"
        writer.write(head.encode() + b"Content-Length: 2\r\n\r\nno")
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._upstream():
            with contextlib.suppress(OSError, TimeoutError):
                there, back = await asyncio.wait_for(
                    asyncio.open_connection("127.0.0.1", port), CONNECT_SECONDS
                )
                break
        else:
            self.refused += 1
            return
        self._open.add(back)
        ways = [
            asyncio.create_task(self._copy(reader, back)),
            asyncio.create_task(self._copy(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        finally:
            self._open.discard(back)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.drain(), CONNECT_SECONDS)
            writer.close()
            back.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), CONNECT_SECONDS)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if self.tear_after_bytes is not None:
                chunk, self.tear_after_bytes = chunk[: self.tear_after_bytes], None
                self.torn += 1
                sink.write(chunk)
                with contextlib.suppress(OSError):
                    await sink.drain()
                return
            sink.write(chunk)
            await sink.drain()
