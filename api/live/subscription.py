"""One client's place in a session: it catches up from a cursor, then follows live."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from api import metrics
from api.live.audience import Follower
from api.live.delivery import Frame
from api.live.presence import Presence
from waystation.models.sessions import ReplayPage

MAX_QUEUED_FRAMES_PER_CLIENT = 1_000
"""A client further behind than this is switched to replay instead of being buffered for."""


class Source(Protocol):
    """What one client needs of a feed."""

    tip: int
    closed: bool
    presence: Presence

    def recent(self, after: int) -> list[Frame] | None:
        """Returns what came after a cursor, if memory reaches back that far."""

    async def page(self, after: int) -> ReplayPage:
        """Returns one page of the log after a cursor."""
        ...

    async def reach(self, cursor: int) -> None:
        """Reads on up to a cursor that is ahead of it, within a bound."""
        ...

    def join(self, subscription: "Subscription") -> None:
        """Lets a client follow live."""

    def leave(self, subscription: "Subscription") -> None:
        """Lets a client no longer follow."""


class Subscription(Follower):
    """One client's place in a session."""

    def __init__(self, feed: Source, after: int, *, staff: bool) -> None:
        """``staff``: it is shown also what people aren't."""
        self._feed, self._staff = feed, staff
        self.cursor = after
        self._queue: list[Frame] = []
        self._ready: asyncio.Future[None] | None = None
        self._following = False
        self.joined_at = after
        self._ended = False

    # Called by the feed; never waits

    def push(self, frame: Frame) -> None:
        """Queues a frame; a client that is too slow leaves, and catches up from the log later."""
        if not self._following:
            return
        if len(self._queue) >= MAX_QUEUED_FRAMES_PER_CLIENT:
            metrics.CLIENTS_SWITCHED_TO_REPLAY.inc()
            self._following = False
            self._queue.clear()
            self._feed.leave(self)
        else:
            self._queue.append(self._seen(frame))
        if self._ready is not None:
            self.wake()

    def end(self) -> None:
        """Ends the stream; the client resumes from its cursor if it wants more."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        """Wakes the connection: something is ready, or the session has closed (the queue still goes out)."""
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            ready.set_result(None)

    @property
    def finished(self) -> bool:
        """Whether the session is closed and the client has got all of it."""
        return self._feed.closed and self.cursor >= self._feed.tip

    # Called by the client's connection

    async def frames(self) -> AsyncIterator[list[Frame]]:
        """Yields frames as they come, all that are ready together; ends when the session has."""
        try:
            while not self._ended:
                async for batch in self._catch_up():
                    yield batch
                if self.finished:
                    return
                async for batch in self._follow():
                    yield batch
        finally:
            self._feed.leave(self)

    def _seen(self, frame: Frame) -> Frame:
        return frame if self._staff else frame.for_people

    async def _catch_up(self) -> AsyncIterator[list[Frame]]:
        while not self._ended:
            if (recent := self._feed.recent(self.cursor)) is not None:
                # Nothing is awaited between here and joining, so nothing can fall in between.
                if recent:
                    self.cursor = recent[-1].seq or self.cursor
                self.joined_at = self.cursor
                self._following = True
                self._feed.join(self)
                if self._feed.presence.settled:
                    self.push(self._feed.presence.frame())
                if recent:
                    yield list(map(self._seen, recent))
                return
            page = await self._feed.page(self.cursor)
            if page.events:
                yield [self._seen(Frame.of(event)) for event in page.events]
            self.cursor = max(page.next_after, self.cursor)
            # A page may be ahead of the feed, which shows live text until it has read of a stop itself.
            await self._feed.reach(self.cursor)

    async def _follow(self) -> AsyncIterator[list[Frame]]:
        loop = asyncio.get_running_loop()
        while self._following and not self._ended:
            if not self._queue:
                if self.finished:
                    return
                self._ready = loop.create_future()
                await self._ready
                continue
            batch, self._queue = self._queue, []
            for frame in batch:
                if frame.seq:
                    self.cursor = frame.seq
            yield batch
