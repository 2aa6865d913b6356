"""Plain server-sent events from memory: an upper limit for comparison, as nothing is stored."""

import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.peers.plain_sse_server import END
from benchmarks.readers import Readings, Subscription
from benchmarks.streaming import RATE_PER_SECOND, Load, subscribed
from tests.support import eventually, free_port
from tests.world.process import Process


class PlainSse:
    """A starlette server that writes tokens to all connected clients."""

    name = "plain SSE"

    def __init__(self, port: int, http: httpx.AsyncClient) -> None:
        self._port, self._http = port, http

    def skips(self, load: Load) -> str | None:
        """Returns ``None``: every load is measured."""
        return None

    async def stream(self, load: Load) -> Readings:
        """Streams the load once."""
        names = [uuid.uuid4().hex for _ in range(load.streams)]
        subscriptions = [
            Subscription(
                self._port, f"GET /streams/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n", END, ready="retry:"
            )
            for name in names
            for _ in range(load.subscribers)
        ]

        async def begin() -> None:
            asked = {"names": names, "tokens": load.tokens, "rate_per_second": RATE_PER_SECOND}
            (await self._http.post("/begin", json=asked)).raise_for_status()

        return await subscribed(subscriptions, load, begin)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[PlainSse]:
    """Starts the server."""
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.peers.plain_sse_server", str(port))
    with Process(*command, log=folder / "plain-sse.log"):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def answers() -> bool:
                try:
                    return (await http.get("/")).status_code == httpx.codes.NOT_FOUND
                except httpx.TransportError:
                    return False

            await eventually(answers, within=30)
            yield PlainSse(port, http)
