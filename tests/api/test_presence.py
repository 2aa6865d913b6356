"""Who is connected, when many come at once."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

from httpx_sse import EventSource

from api.feeds import PRESENCE_PAUSE_SECONDS
from waystation.client import Client

CLIENTS = 60


async def test_many_who_come_at_once_are_told_of_together(client: Client) -> None:
    session = await client.start("demo")
    url, headers = f"{client.url}/sessions/{session.id}/events", client.headers
    began, frames = time.monotonic(), 0
    async with AsyncExitStack() as resources:
        first = await resources.enter_async_context(client.http.stream("GET", url, headers=headers))
        others = [client.http.stream("GET", url, headers=headers) for _ in range(CLIENTS - 1)]
        await asyncio.gather(*(resources.enter_async_context(other) for other in others))
        async for block in EventSource(first).aiter_sse():
            if '"type": "presence"' not in block.data:
                continue
            frames += 1
            [person] = json.loads(block.data)["data"]["people"]
            if person["connections"] == CLIENTS:
                break
    # One for the own arrival, and then one in each pause at most.
    assert frames <= (time.monotonic() - began) / PRESENCE_PAUSE_SECONDS + 3
    await session.close()
