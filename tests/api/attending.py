"""A page that follows ``GET /attention``."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from tests.support import eventually

TOLD_WITHIN_SECONDS = 10.0
"""Less than the pause between two polls: it was told, and not found."""


class Attending:
    """What it has been sent."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.comments = 0

    @property
    def lines(self) -> list[str]:
        """What waits, as it was last told, the newest first."""
        return [item["line"] for item in self.said[-1]["items"]] if self.said else []

    def of(self, session_id: str) -> list[str]:
        """What of it waits in one session."""
        items = self.said[-1]["items"] if self.said else []
        return [item["kind"] for item in items if item["session_id"] == session_id]

    async def shows(self, session_id: str, *kinds: str, within: float = TOLD_WITHIN_SECONDS) -> None:
        await eventually(
            lambda: sorted(self.of(session_id)) == sorted(kinds),
            within=within,
            what=f"{kinds}: {self.said[-1:]}",
        )

    def take(self, block: str) -> None:
        for line in block.splitlines():
            name, _, value = line.partition(": ")
            if name == "id":
                self.ids.append(value)
            elif name == "data":
                self.said.append(json.loads(value))
            elif name == "":
                self.comments += 1


@asynccontextmanager
async def attending(url: str, token: str, seen: str | None = None) -> AsyncIterator[Attending]:
    """Opens the stream, and follows it while the block runs."""
    page, opened = Attending(), asyncio.Event()
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    if seen is not None:
        headers["Last-Event-ID"] = seen

    async def follow() -> None:
        async with (
            httpx.AsyncClient(base_url=url, timeout=60) as http,
            http.stream("GET", "/attention", headers=headers) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            block = ""
            async for line in answer.aiter_lines():
                block += f"{line}\n"
                if not line:
                    page.take(block)
                    block = ""
                    opened.set()

    following = asyncio.create_task(follow())
    try:
        waiting = asyncio.create_task(opened.wait())
        await asyncio.wait([following, waiting], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert opened.is_set(), following
        yield page
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
