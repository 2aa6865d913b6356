"""One reader of each session per API process, and everything its clients are served from it.

A feed hears of news on the live bus and reads it with the ``replay`` query; a slow poll makes
up for a bus that is lost. However many clients watch a session, the workflow sees one reader.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api import metrics
from api.errors import Invalid, Problem, TooMany
from api.gateways.sessions import Gateway
from api.live.audience import Audience, Delta, Follower
from api.live.bus import LiveBus, Message
from api.live.delivery import Frame, Gate
from waystation.models.events import TERMINAL_TURN_TYPES, Actor, Event, EventType
from waystation.models.sessions import MAX_REPLAY_EVENTS, ReplayPage
from waystation.settings import Settings

logger = logging.getLogger(__name__)

MAX_QUEUED_FRAMES_PER_CLIENT = 1_000
"""A client further behind than this is switched to replay instead of being buffered for."""
SHOW_PAUSE_SECONDS_PER_CLIENT = 40e-6
"""Twice what it takes to send to one client: live text leaves half of the process's time for the rest.
With 1,000 clients of a session, text that comes within 40 ms of the last goes out together."""
MAX_RING_EVENTS = 2_000
MAX_RING_BYTES = 2 * 1024 * 1024
MAX_CACHED_PAGES = 32
"""Pages of history kept for those who resume at the same cursor at once."""
MAX_HELD_LIVE_DELTAS = 256
"""Live deltas kept while the turn they belong to is not yet known here."""
QUIET_READ_PAUSE_SECONDS = 1.0
"""How long the reading of deltas that clients have seen live may wait for more of them: each reading is a
query. Where a client hasn't seen them it doesn't wait."""
MAX_STOPPING_SECONDS = 2.0
"""How long screens stand still for a stop of which nothing more is heard: its API process has died, say."""
READ_RETRY_SECONDS = 0.5
LINGER_SECONDS = 10.0
"""How long a feed stays after its last client, so that a reconnect finds it warm."""
PRESENCE_INTERVAL_SECONDS = 10.0
PRESENCE_EXPIRY_SECONDS = 25.0
PRESENCE_PAUSE_SECONDS = 0.1
"""Who is connected is told at most so often: everyone is told of everyone."""

_PROCESS = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
_FOLDED_TYPES = frozenset({EventType.MESSAGE_STARTED, EventType.MESSAGE_DELTA})


class Subscription(Follower):
    """One client's place in a session: catches up from a cursor, then follows live."""

    def __init__(self, feed: "Feed", after: int) -> None:
        self._feed = feed
        self.cursor = after
        self._queue: list[Frame] = []
        self._ready: asyncio.Future[None] | None = None
        self._following = False
        self.joined_at = after
        self._ended = False

    # Called by the feed, never waiting

    def push(self, frame: Frame) -> None:
        if not self._following:
            return
        if len(self._queue) >= MAX_QUEUED_FRAMES_PER_CLIENT:
            # Too slow to be buffered for: forget the queue, go on from the durable log later.
            metrics.CLIENTS_SWITCHED_TO_REPLAY.inc()
            self._following = False
            self._queue.clear()
            self._feed.leave(self)
        else:
            self._queue.append(frame)
        if self._ready is not None:
            self.wake()

    def end(self) -> None:
        """Ends the stream; the client resumes from its cursor if it wants more."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        """Something is ready, or the session has closed: what is queued is still delivered."""
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            ready.set_result(None)

    # Called by the client's connection

    async def frames(self) -> AsyncIterator[list[Frame]]:
        """Frames as they come, everything that is ready at once; ends when the session has."""
        try:
            while not self._ended:
                async for batch in self._catch_up():
                    yield batch
                if self._feed.closed and self.cursor >= self._feed.tip:
                    return
                async for batch in self._follow():
                    yield batch
        finally:
            self._feed.leave(self)

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
                    yield recent
                return
            page = await self._feed.page(self.cursor)
            if page.events:
                yield [Frame.of(event) for event in page.events]
            self.cursor = max(page.next_after, self.cursor)

    async def _follow(self) -> AsyncIterator[list[Frame]]:
        loop = asyncio.get_running_loop()
        while self._following and not self._ended:
            if not self._queue:
                if self._feed.closed and self.cursor >= self._feed.tip:
                    return
                self._ready = loop.create_future()
                await self._ready
                continue
            batch, self._queue = self._queue, []
            for frame in batch:
                if frame.seq:
                    self.cursor = frame.seq
            yield batch


class Feed:
    """One session as this process knows it."""

    def __init__(self, session_id: str, gateway: Gateway, bus: LiveBus, settings: Settings) -> None:
        self.session_id = session_id
        self.gate = Gate()
        self.tip = 0
        self.closed = False
        self.presence = Presence(self)
        self._gateway, self._bus, self._settings = gateway, bus, settings
        self.audience = Audience()
        self._live: list[Delta] = []
        self._showing: asyncio.TimerHandle | None = None
        self._shown_at = 0.0
        self._open: set[Subscription] = set()
        self._ring: deque[tuple[Frame, str | None]] = deque()
        self._ring_bytes = 0
        self._ring_start = 0
        self._pages: dict[int, asyncio.Task[ReplayPage]] = {}
        self._held: list[Message] = []
        self._stopping: dict[str, asyncio.TimerHandle] = {}
        self._holds = 0
        self._holds_read = 0
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._changed = asyncio.Event()
        self._watchers: list[Any] = []
        self._reader: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Learns where the session stands, then listens. Raises a problem if it can't."""
        self._bus.subscribe(self.session_id, self._on_message)
        try:
            snapshot = await self._gateway.snapshot(self.session_id)
        except BaseException:
            self._bus.unsubscribe(self.session_id, self._on_message)
            raise
        self.tip = self._ring_start = snapshot.tip
        self.closed = snapshot.status == "closed" and not snapshot.running
        self.gate.attempts = {
            turn.turn_id: turn.attempt for turn in snapshot.running if turn.status == "running"
        }
        self.gate.lengths = {message.message_id: message.characters for message in snapshot.open_messages}
        self.gate.owners = {message.message_id: message.turn_id for message in snapshot.open_messages}
        self._reader = asyncio.create_task(self._read_forever(), name=f"feed {self.session_id}")
        self.presence.ask()

    async def stop(self) -> None:
        self.presence.stop()
        for timer in (self._showing, *self._stopping.values()):
            if timer:
                timer.cancel()
        self._bus.unsubscribe(self.session_id, self._on_message)
        for subscription in self._open:
            subscription.end()
        if self._reader:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    # Clients

    async def reach(self, cursor: int) -> None:
        """Reads on up to a client's cursor, which may be ahead of what this process knows.

        It comes from the workflow itself (a transcript) or from another API process. Waits no
        longer than for an answer of Temporal; ``subscribe`` then refuses what is still beyond.
        """
        if cursor <= self.tip:
            return
        snapshot = await self._gateway.snapshot(self.session_id)
        deadline = time.monotonic() + self._settings.temporal_timeout_seconds
        while self.tip < cursor <= snapshot.tip and (left := deadline - time.monotonic()) > 0:
            self._urgent.set()
            await self.next_change(left)

    def subscribe(self, after: int) -> Subscription:
        """A place for one client, from its cursor on."""
        if after > self.tip:
            raise Invalid(
                f"The cursor {after} is beyond the newest event, {self.tip}: it belongs to another session.",
                code="wrong-cursor",
                tip=self.tip,
            )
        if len(self._open) >= self._settings.max_subscribers_per_session:
            raise TooMany(
                f"This session has {len(self._open)} streams on this server already.",
                code="too-many-subscribers",
            )
        subscription = Subscription(self, after)
        self._open.add(subscription)
        metrics.SUBSCRIBERS.inc()
        return subscription

    def release(self, subscription: Subscription) -> None:
        if subscription in self._open:
            self._open.remove(subscription)
            metrics.SUBSCRIBERS.dec()

    def join(self, subscription: Subscription) -> None:
        self.audience.join(subscription, self.gate.lengths, self.tip)
        if self._news.is_set():
            self._urgent.set()

    def leave(self, subscription: Subscription) -> None:
        self.audience.leave(subscription)

    def watch(self, watcher: Any) -> None:
        """Calls ``watcher(event)`` for every durable event from now on; watchers must not wait."""
        self._watchers = [*self._watchers, watcher]

    def unwatch(self, watcher: Any) -> None:
        self._watchers = [known for known in self._watchers if known != watcher]

    # History

    def recent(self, after: int) -> list[Frame] | None:
        """What came after the cursor, if memory reaches back that far."""
        if after < self._ring_start:
            return None
        frames: list[Frame] = []
        for frame, _ in reversed(self._ring):
            if (frame.seq or 0) <= after:
                break
            frames.append(frame)
        frames.reverse()
        return frames

    async def page(self, after: int, limit: int = MAX_REPLAY_EVENTS) -> ReplayPage:
        """One page from the workflow; clients that ask for the same page share one query."""
        if limit != MAX_REPLAY_EVENTS:
            return await self._gateway.replay(self.session_id, after, limit)
        task = self._pages.get(after)
        if task is None:
            metrics.REPLAY_QUERIES.inc()
            task = asyncio.create_task(self._gateway.replay(self.session_id, after, limit))
            self._pages[after] = task
            if len(self._pages) > MAX_CACHED_PAGES:
                del self._pages[next(iter(self._pages))]
            task.add_done_callback(lambda done: self._pages.pop(after, None) if done.exception() else None)
        return await asyncio.shield(task)

    async def caught_up(self, timeout_seconds: float) -> None:
        """Waits until the log has been read after the latest stop, or for the time to be up."""
        deadline = time.monotonic() + timeout_seconds
        while self._unread_stop and (left := deadline - time.monotonic()) > 0:
            await self.next_change(left)

    async def next_change(self, timeout_seconds: float) -> None:
        """Waits for news of the log, or for the time to be up."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_seconds)

    # News

    def _on_message(self, message: Message) -> None:
        match message["kind"]:
            case "delta":
                self._on_delta(message)
            case "stopping":
                self._on_stopping(message["by"])
            case "not_stopped":
                self._on_not_stopped(message["by"])
            case "tick":
                if message.get("hold"):
                    self._holds += 1
                    self._forget_stopping(message.get("by", ""))
                # A stop is read for as soon as it was taken: not behind a reading of what came before.
                if self._stopping or (message.get("quiet") and not self.audience.anyone_behind):
                    self._news.set()
                else:
                    self._urgent.set()
            case "presence" | "who":
                self.presence.on_message(message)

    def _on_stopping(self, request_id: str) -> None:
        if request_id not in self._stopping:
            loop = asyncio.get_running_loop()
            self._stopping[request_id] = loop.call_later(
                MAX_STOPPING_SECONDS, self._on_not_stopped, request_id
            )

    def _on_not_stopped(self, request_id: str) -> None:
        self._forget_stopping(request_id)
        if self._news.is_set():
            self._urgent.set()
        held, self._held = self._held, []
        for message in held:
            self._on_delta(message)

    def _forget_stopping(self, request_id: str) -> None:
        if timer := self._stopping.pop(request_id, None):
            timer.cancel()

    @property
    def _unread_stop(self) -> bool:
        return self._holds > self._holds_read

    def _on_delta(self, message: Message) -> None:
        turn_id, message_id = message.get("turn_id"), message["message_id"]
        # Its turn has perhaps begun and not been read yet, or has ended: the log will tell.
        unclear = self._unread_stop or not self.gate.knows(turn_id)
        if unclear or self._stopping:
            if len(self._held) < MAX_HELD_LIVE_DELTAS:
                self._held.append(message)
            if unclear:
                self._urgent.set()
        elif self.gate.passes(turn_id, message["attempt"], message_id):
            metrics.LIVE_DELTAS.inc()
            frame = Frame(None, message["wire"])
            self._live.append(Delta(message_id, message["offset"], message["length"], frame))
            self._show_soon()

    def _show_soon(self) -> None:
        """At once as a rule; where many watch, what comes in short order goes out together."""
        if self._showing is None:
            loop = asyncio.get_running_loop()
            pause = self._shown_at + len(self.audience) * SHOW_PAUSE_SECONDS_PER_CLIENT - loop.time()
            self._showing = loop.call_later(max(pause, 0.0), self._show)

    def _show(self) -> None:
        if self._showing is not None:
            self._showing.cancel()
            self._showing = None
        if self._live:
            live, self._live = self._live, []
            self._shown_at = asyncio.get_running_loop().time()
            self.audience.show(live)

    async def _read_forever(self) -> None:
        while not self.closed:
            try:
                await self._wait_for_news()
                await self._read()
            except Problem as problem:
                logger.info("Could not read %s (%s); trying again", self.session_id, problem.code)
                await asyncio.sleep(READ_RETRY_SECONDS)
                self._urgent.set()
            except Exception:
                # A reader that died would leave its clients in the dark without a word.
                logger.exception("Reading %s failed; trying again", self.session_id)
                await asyncio.sleep(READ_RETRY_SECONDS)
                self._urgent.set()
        for subscription in self._open:
            subscription.wake()

    async def _wait_for_news(self) -> None:
        """Returns at once for urgent news, after a pause for quiet ones, at last for none at all."""
        poll = self._settings.busy_poll_seconds if self.gate.attempts else self._settings.idle_poll_seconds
        pause = QUIET_READ_PAUSE_SECONDS if self._news.is_set() else poll
        deadline = time.monotonic() + pause
        while not self._urgent.is_set() and (left := deadline - time.monotonic()) > 0:
            quiet_before = self._news.is_set()
            waits = [asyncio.create_task(self._urgent.wait())]
            if not quiet_before:
                waits.append(asyncio.create_task(self._news.wait()))
            _, pending = await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            if not quiet_before and self._news.is_set():
                deadline = time.monotonic() + QUIET_READ_PAUSE_SECONDS
        self._urgent.clear()
        self._news.clear()

    async def _read(self) -> None:
        while True:
            # An answer knows of the stops that were told before it was asked for, and of no others.
            holds = self._holds
            metrics.REPLAY_QUERIES.inc()
            page = await self._gateway.replay(self.session_id, self.tip, MAX_REPLAY_EVENTS)
            self._pages.clear()
            for event in page.events:
                self._on_event(event)
            self.tip = max(self.tip, page.next_after)
            if not page.more:
                break
        self.closed = page.closed
        news = page.events or self.closed or holds > self._holds_read
        self._holds_read = holds
        self._release_held()
        if news:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _on_event(self, event: Event) -> None:
        # What was let through before this event was known goes before it.
        self._show()
        frame = Frame.of(event)
        self.gate.observe(event)
        self.tip = event.seq
        self._remember(event, frame)
        self.audience.tell(event, frame)
        for watcher in self._watchers:
            watcher(event)

    def _release_held(self) -> None:
        held, self._held = self._held, []
        for message in held:
            turn_id = message.get("turn_id")
            if self._unread_stop or self._stopping or self.gate.knows(turn_id):
                self._on_delta(message)
            else:
                # The log has been read to its end and doesn't say that this turn runs.
                self.gate.end(str(turn_id))

    def _remember(self, event: Event, frame: Frame) -> None:
        """Keeps recent frames for those who reconnect, folded as the log itself is."""
        if event.type in (EventType.MESSAGE_COMPLETED, EventType.MESSAGE_SUPERSEDED):
            self._fold(event.message_id)
        part_of = event.message_id if event.type in _FOLDED_TYPES else None
        self._ring.append((frame, part_of))
        self._ring_bytes += len(frame.sse)
        while len(self._ring) > MAX_RING_EVENTS or self._ring_bytes > MAX_RING_BYTES:
            dropped, _ = self._ring.popleft()
            self._ring_bytes -= len(dropped.sse)
            self._ring_start = dropped.seq or self._ring_start

    def _fold(self, message_id: str | None) -> None:
        kept = deque(entry for entry in self._ring if entry[1] is None or entry[1] != message_id)
        if len(kept) != len(self._ring):
            self._ring = kept
            self._ring_bytes = sum(len(frame.sse) for frame, _ in kept)


class Presence:
    """Who is connected to a session now, over all API processes. Kept nowhere, told by each."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._here: dict[str, Actor] = {}
        self._mine: dict[tuple[str, str], dict[str, Any]] = {}
        self._elsewhere: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        self._telling: asyncio.TimerHandle | None = None

    def arrive(self, connection_id: str, actor: Actor) -> None:
        self._here[connection_id] = actor
        key = (actor.id, actor.role)
        if key not in self._mine:
            self._mine[key] = {**actor.model_dump(mode="json", exclude_none=True), "connections": 0}
        self._mine[key]["connections"] += 1
        self._tell_soon()

    def depart(self, connection_id: str) -> None:
        if actor := self._here.pop(connection_id, None):
            key = (actor.id, actor.role)
            self._mine[key]["connections"] -= 1
            if not self._mine[key]["connections"]:
                del self._mine[key]
            self._tell_soon()

    def stop(self) -> None:
        """Tells nothing more."""
        if self._telling:
            self._telling.cancel()

    def _tell_soon(self) -> None:
        # Everyone is told of everyone: once for many who come or go together, not once for each.
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(PRESENCE_PAUSE_SECONDS, self.tell)

    def people(self) -> list[dict[str, Any]]:
        """Each person once, with the number of connections."""
        counted: dict[tuple[str, str], dict[str, Any]] = {}
        now = time.monotonic()
        others = [
            entry
            for at, entries in self._elsewhere.values()
            if now - at < PRESENCE_EXPIRY_SECONDS
            for entry in entries
        ]
        for entry in [*self._mine.values(), *others]:
            key = (entry["id"], entry["role"])
            known = counted.setdefault(key, {**entry, "connections": 0})
            known["connections"] += entry["connections"]
        return sorted(counted.values(), key=lambda entry: (entry["role"], entry["id"]))

    def ask(self) -> None:
        self._feed._bus.publish(self._feed.session_id, {"kind": "who", "process": _PROCESS})

    def tell(self) -> None:
        self.stop()
        self._telling = None
        people = [dict(entry) for entry in self._mine.values()]
        message = {"kind": "presence", "process": _PROCESS, "people": people}
        self._feed._bus.publish(self._feed.session_id, message)

    def on_message(self, message: Message) -> None:
        if message["kind"] == "who":
            if message["process"] != _PROCESS and self._here:
                self.tell()
            return
        before = self._elsewhere.get(message["process"], (0.0, []))[1]
        if message["process"] != _PROCESS:
            self._elsewhere[message["process"]] = (time.monotonic(), message["people"])
        if message["process"] == _PROCESS or before != message["people"]:
            self._feed.audience.push(self.frame())

    def frame(self) -> Frame:
        """Who is here, for those who watch."""
        return Frame(None, json.dumps({"type": "presence", "data": {"people": self.people()}}))

    @property
    def anyone_here(self) -> bool:
        return bool(self._here)

    @property
    def settled(self) -> bool:
        """Whether there is somebody, and everyone has been told of it."""
        return self.anyone_here and self._telling is None


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
        """The session's feed while the block runs; raises a problem for an unknown session."""
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
            # Nobody would ever stop what it starts.
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


def is_terminal(event: Event) -> bool:
    """Whether the event ends a turn or a sub-agent's run."""
    return event.type in TERMINAL_TURN_TYPES or event.type == EventType.AGENT_FINISHED
