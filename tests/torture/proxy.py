"""The wires between the processes: TCP proxies that can cut, delay and tear, and answer HTTP themselves."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

CHUNK_BYTES = 65_536
CONNECT_SECONDS = 2.0
MAX_TRICKLES = 40
"""Parts in which a piece arrives that trickles."""
TRICKLE_SECONDS = 0.01
ANSWERS = {401: b"Unauthorized", 502: b"Bad Gateway"}
PROXY_HEADER = "x-torture-proxy"
"""Marks what the proxy has answered itself: the API never got the request."""

Harm = Literal["cut", "tear", "delay", "stall", "trickle", "answer"]


@dataclass(eq=False)
class Mishap:
    """What befalls one connection: the next that carries something, or for ``answer`` the next that is made.

    ``tear`` ends it after some bytes of what it carries, ``stall`` keeps it silent for ``seconds`` and ends
    it then, ``delay`` holds one piece back, ``trickle`` lets it arrive in small parts.
    """

    harm: Harm
    bytes: int = 0
    seconds: float = 0.0
    status: int = 0
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Connection:
    """One connection through a wire, from who made it to who took it."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.flows = asyncio.Event()
        """Cleared while it is silent in both directions."""
        self.flows.set()

    def abort(self) -> None:
        """Ends it without a word."""
        self.near.transport.abort()
        self.far.transport.abort()


class Proxy:
    """One wire. Connections go to the first of ``upstream`` that takes them, as a load balancer's would."""

    def __init__(self, name: str, upstream: Callable[[], Sequence[int]]) -> None:
        self.name, self._upstream = name, upstream
        self.port = 0
        self.closed = False
        """Takes no connections."""
        self.delay_seconds = 0.0
        self.answer_status: int | None = None
        self.struck = 0
        """How often something befell a connection, or a piece of what one carried."""
        self._mishaps: deque[Mishap] = deque()
        self._answers: deque[Mishap] = deque()
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
            self.struck += 1
            writer.transport.abort()

    def heal(self) -> None:
        """Makes everything good that was done to the wire, or was to be."""
        self.closed, self.delay_seconds, self.answer_status = False, 0.0, None
        self._mishaps.clear()
        self._answers.clear()

    async def befall(self, mishap: Mishap, patience_seconds: float) -> bool:
        """Waits until it has struck a connection; returns whether one came that it could strike."""
        waiting = self._answers if mishap.harm == "answer" else self._mishaps
        waiting.append(mishap)
        try:
            async with asyncio.timeout(patience_seconds):
                await mishap.struck.wait()
        except TimeoutError:
            if mishap in waiting:
                waiting.remove(mishap)
        return mishap.struck.is_set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "connections are served in tasks"
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            if self.closed:
                self.struck += 1
            elif self.answer_status is not None:
                await self._answer(reader, writer, self.answer_status)
            elif self._answers:
                await self._answer_once(reader, writer, self._answers.popleft())
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
        self.struck += 1
        head = f"HTTP/1.1 {status} {ANSWERS[status].decode()}\r\n{PROXY_HEADER}: 1\r\nConnection: close\r\n"
        writer.write(head.encode() + b"Content-Length: 2\r\n\r\nno")
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _answer_once(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mishap: Mishap
    ) -> None:
        try:
            await self._answer(reader, writer, mishap.status)
            mishap.struck.set()
        finally:
            mishap.over.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in self._upstream():
            with contextlib.suppress(OSError, TimeoutError):
                there, back = await asyncio.wait_for(
                    asyncio.open_connection("127.0.0.1", port), CONNECT_SECONDS
                )
                break
        else:
            return
        self._open.add(back)
        connection = Connection(writer, back)
        ways = [
            asyncio.create_task(self._copy(connection, reader, back)),
            asyncio.create_task(self._copy(connection, there, writer)),
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

    async def _copy(
        self, connection: Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        while chunk := await source.read(CHUNK_BYTES):
            if self.delay_seconds:
                self.struck += 1
                await asyncio.sleep(self.delay_seconds)
            if self._mishaps:
                mishap = self._mishaps.popleft()
                mishap.struck.set()
                try:
                    chunk = await self._suffer(connection, mishap, chunk, sink)
                finally:
                    mishap.over.set()
                if not chunk:
                    return
            await connection.flows.wait()
            sink.write(chunk)
            await sink.drain()

    async def _suffer(
        self, connection: Connection, mishap: Mishap, chunk: bytes, sink: asyncio.StreamWriter
    ) -> bytes:
        """Does it to a connection; returns what is still to be passed on, which is nothing at its end."""
        match mishap.harm:
            case "delay":
                await asyncio.sleep(mishap.seconds)
                return chunk
            case "trickle":
                size = max(1, mishap.bytes % 64, len(chunk) // MAX_TRICKLES)
                for at in range(0, len(chunk) - size, size):
                    sink.write(chunk[at : at + size])
                    await sink.drain()
                    await asyncio.sleep(TRICKLE_SECONDS)
                return chunk[-(len(chunk) % size or size) :]
            case "stall":
                connection.flows.clear()
                await asyncio.sleep(mishap.seconds)
                connection.abort()
            case "tear":
                sink.write(chunk[: mishap.bytes % len(chunk)])
                with contextlib.suppress(OSError):
                    await sink.drain()
            case _:
                connection.abort()
        return b""
