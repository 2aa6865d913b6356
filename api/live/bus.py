"""The fast, forgetful path between API processes: live deltas, hints of news, presence.

What is lost here costs a client some milliseconds and never a character: the durable log
holds everything, and feeds look there by themselves when they hear nothing.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from activities.announcements import CHANNEL_PREFIX
from waystation.models.live import ALL_SESSIONS, LiveMessage, Stirred, Tick, decode, encode

logger = logging.getLogger(__name__)

Listener = Callable[[LiveMessage], None]

MAX_OUTGOING_MESSAGES = 10_000
MAX_CANCELLATIONS = 10
CANCELLATION_SECONDS = 0.2
RECONNECT_PAUSE_SECONDS = 0.5
CLAIM_PREFIX = "waystation:claim:"


class LiveBus(Protocol):
    """What feeds and ingest need of a bus."""

    def publish(self, session_id: str, message: LiveMessage) -> None:
        """Sends to all listeners, in this process immediately. Never waits, never fails."""

    def subscribe(self, session_id: str, listener: Listener) -> None:
        """Calls ``listener`` with every message for the session from now on."""

    def unsubscribe(self, session_id: str, listener: Listener) -> None:
        """Stops calling ``listener``."""

    async def claim(self, key: str, lifetime_seconds: int) -> bool:
        """Returns True for the first to claim ``key``, over all processes."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def healthy(self) -> bool:
        """Whether other processes can be reached."""
        ...


def tell_news(bus: LiveBus, session_id: str, *, settles: bool = False) -> None:
    """Tells the session's feeds that it has news, and whoever watches over all sessions for people.

    With ``settles``, for the latter there may be less to do, and no more.
    """
    bus.publish(session_id, Tick())
    bus.publish(ALL_SESSIONS, Stirred(session_id, settles))


class MemoryBus:
    """For one API process."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._claims: dict[str, float] = {}

    def publish(self, session_id: str, message: LiveMessage) -> None:
        for listener in self._listeners.get(session_id, ()):
            listener(message)

    def subscribe(self, session_id: str, listener: Listener) -> None:
        self._listeners[session_id] = [*self._listeners[session_id], listener]

    def unsubscribe(self, session_id: str, listener: Listener) -> None:
        remaining = [known for known in self._listeners[session_id] if known != listener]
        if remaining:
            self._listeners[session_id] = remaining
        else:
            del self._listeners[session_id]

    async def claim(self, key: str, lifetime_seconds: int) -> bool:
        now = time.monotonic()
        self._claims = {known: until for known, until in self._claims.items() if until > now}
        if key in self._claims:
            return False
        self._claims[key] = now + lifetime_seconds
        return True

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    @property
    def healthy(self) -> bool:
        return True


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels tasks until they have ended: redis-py may swallow a cancellation that meets its own timeout."""
    pending = {task for task in tasks if not task.done()}
    for _ in range(MAX_CANCELLATIONS):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCELLATION_SECONDS)


class RedisBus(MemoryBus):
    """For several API processes: Redis publish/subscribe between them, memory within each."""

    def __init__(self, url: str) -> None:
        super().__init__()
        from redis.asyncio import Redis

        self._redis = Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5)
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        self._origin = uuid.uuid4().hex
        self._outgoing: asyncio.Queue[tuple[str, LiveMessage]] = asyncio.Queue(MAX_OUTGOING_MESSAGES)
        self._changed = asyncio.Event()
        self._listening = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._healthy = False
        self._said_lost = False

    @property
    def healthy(self) -> bool:
        return self._healthy

    def publish(self, session_id: str, message: LiveMessage) -> None:
        super().publish(session_id, message)
        # Full means that Redis is away or overwhelmed: what is dropped arrives durably.
        with contextlib.suppress(asyncio.QueueFull):
            self._outgoing.put_nowait((session_id, message))

    def subscribe(self, session_id: str, listener: Listener) -> None:
        super().subscribe(session_id, listener)
        self._changed.set()

    def unsubscribe(self, session_id: str, listener: Listener) -> None:
        super().unsubscribe(session_id, listener)
        self._changed.set()

    async def claim(self, key: str, lifetime_seconds: int) -> bool:
        from redis.exceptions import RedisError

        try:
            return bool(await self._redis.set(CLAIM_PREFIX + key, "1", nx=True, ex=lifetime_seconds))
        except (RedisError, OSError):
            return await super().claim(key, lifetime_seconds)

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_going(run)) for run in (self._send, self._follow, self._receive)
        ]

    async def stop(self) -> None:
        await _end(self._tasks)
        with contextlib.suppress(Exception):
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        with contextlib.suppress(Exception):
            await self._redis.aclose()

    async def _keep_going(self, run: Callable[[], Awaitable[None]]) -> None:
        from redis.exceptions import RedisError

        while True:
            try:
                await run()
            except (RedisError, OSError) as error:
                if not self._said_lost:
                    logger.warning(
                        "The live bus is lost (%s); clients go on at the durable pace. "
                        "If it doesn't come back, check WAYSTATION_REDIS_URL.",
                        type(error).__name__,
                    )
                self._healthy, self._said_lost = False, True
                await asyncio.sleep(RECONNECT_PAUSE_SECONDS)

    async def _send(self) -> None:
        while True:
            batch = [await self._outgoing.get()]
            while not self._outgoing.empty():
                batch.append(self._outgoing.get_nowait())
            async with self._redis.pipeline(transaction=False) as pipeline:
                for session_id, message in batch:
                    pipeline.publish(CHANNEL_PREFIX + session_id, encode(message, self._origin))
                await pipeline.execute()

    async def _follow(self) -> None:
        """Keeps the channels that Redis sends us in step with the sessions that have listeners."""
        while True:
            # Only one task may open the connection: two at once would each make their own, and
            # the one that is listened on might not be the one that is subscribed.
            await self._listening.wait()
            self._changed.clear()
            wanted = {CHANNEL_PREFIX + session_id for session_id in self._listeners} | {CHANNEL_PREFIX}
            have = {channel.decode() for channel in self._pubsub.channels}
            if wanted - have:
                await self._pubsub.subscribe(*(wanted - have))
            if have - wanted:
                await self._pubsub.unsubscribe(*(have - wanted))
            await self._changed.wait()

    async def _receive(self) -> None:
        self._listening.clear()
        # Listening needs one channel at least; the sessions' own are added as they come.
        await self._pubsub.subscribe(CHANNEL_PREFIX)
        self._listening.set()
        while True:
            raw = await self._pubsub.get_message(timeout=1.0)
            if not self._healthy:
                self._healthy, self._said_lost = True, False
                self._catch_up()
            if raw is None:
                continue
            frame = decode(raw["data"])
            if frame is not None and frame.origin != self._origin:
                super().publish(raw["channel"].decode()[len(CHANNEL_PREFIX) :], frame.message)

    def _catch_up(self) -> None:
        """Lets every feed look for what it missed during an outage."""
        for session_id in list(self._listeners):
            super().publish(session_id, Tick())
