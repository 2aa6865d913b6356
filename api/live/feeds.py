"""The feeds of this process: one for each session that somebody here follows or writes to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api import metrics
from api.gateways.sessions import Gateway
from api.live.bus import LiveBus
from api.live.feed import Feed
from api.live.presence import PRESENCE_INTERVAL_SECONDS
from waystation.settings import Settings

LINGER_SECONDS = 10.0
"""How long a feed stays after its last client, so that a reconnect finds it warm."""


class Feeds:
    """The feeds of this process: started at first use, kept a little beyond the last."""

    def __init__(self, gateway: Gateway, bus: LiveBus, settings: Settings) -> None:
        self._gateway, self._bus, self._settings = gateway, bus, settings
        self._feeds: dict[str, asyncio.Task[Feed]] = {}
        self._users: dict[str, int] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._heart = asyncio.create_task(self._tell_presence())

    async def stop(self) -> None:
        if self._heart:
            self._heart.cancel()
        for handle in self._lingering.values():
            handle.cancel()
        for task in list(self._feeds.values()):
            if task.done() and not task.cancelled() and task.exception() is None:
                await task.result().stop()
        self._feeds.clear()

    @asynccontextmanager
    async def use(self, session_id: str) -> AsyncIterator[Feed]:
        """Yields the session's feed while the block runs; raises a problem for an unknown session."""
        if linger := self._lingering.pop(session_id, None):
            linger.cancel()
        self._users[session_id] = self._users.get(session_id, 0) + 1
        try:
            yield await self._get(session_id)
        finally:
            self._users[session_id] -= 1
            if not self._users[session_id]:
                del self._users[session_id]
                loop = asyncio.get_running_loop()
                self._lingering[session_id] = loop.call_later(LINGER_SECONDS, self._drop, session_id)

    async def _get(self, session_id: str) -> Feed:
        task = self._feeds.get(session_id)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._feeds[session_id] = asyncio.create_task(self._start(session_id))
        return await asyncio.shield(task)

    async def _start(self, session_id: str) -> Feed:
        feed = Feed(session_id, self._gateway, self._bus, self._settings)
        await feed.start()
        metrics.FEEDS.inc()
        return feed

    def _drop(self, session_id: str) -> None:
        self._lingering.pop(session_id, None)
        task = self._feeds.pop(session_id, None)
        if task and not task.done():
            # Otherwise nobody would ever stop what it starts.
            task.cancel()
        elif task and not task.cancelled() and task.exception() is None:
            metrics.FEEDS.dec()
            stopping = asyncio.create_task(task.result().stop())
            self._tasks.add(stopping)
            stopping.add_done_callback(self._tasks.discard)

    async def _tell_presence(self) -> None:
        while True:
            await asyncio.sleep(PRESENCE_INTERVAL_SECONDS)
            for task in list(self._feeds.values()):
                if task.done() and not task.cancelled() and task.exception() is None:
                    presence = task.result().presence
                    if presence.anyone_here:
                        presence.tell()
