"""Connections that a test answers by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Has every connection answered; one ends once it is."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._answering: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self, port: int) -> None:
        """Takes connections on this port; on one that is free if it is 0."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Takes no more connections; those that there are go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Ends every connection too, whatever its answer was still waiting for."""
        self.refuse()
        answering = tuple(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "connections are served in tasks"
        self._answering.add(task)
        try:
            # Whoever asked may leave at any moment.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            self._answering.discard(task)
            writer.close()


@asynccontextmanager
async def listening(answer: Answer, port: int = 0) -> AsyncIterator[Listener]:
    """Listens, and leaves no connection behind."""
    listener = Listener(answer)
    await listener.listen(port)
    try:
        yield listener
    finally:
        await listener.close()
