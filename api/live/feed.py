"""One reader of each session per API process, and everything its clients are served from it.

A feed hears of news on the live bus and reads it with the ``read`` query; a slow poll makes
up for a bus that is lost. However many clients watch a session, the workflow sees one reader.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from api import metrics
from api.errors import Invalid, Problem, TooMany
from api.gateways.sessions import Gateway
from api.live.audience import Audience, LiveText
from api.live.bus import LiveBus
from api.live.delivery import Frame, Gate
from api.live.expiry import look_after
from api.live.holds import Holds
from api.live.presence import Presence
from api.live.receipts import Handed, Receipts
from api.live.recent import Recent
from api.live.subscription import Subscription
from waystation.models.attention import attention_of
from waystation.models.events import (
    FOLDED_TYPES,
    SETTLED_QUESTION_TYPES,
    TERMINAL_TURN_TYPES,
    Event,
    EventType,
)
from waystation.models.live import (
    ALL_SESSIONS,
    Delta,
    Here,
    LiveMessage,
    NotStopped,
    Stirred,
    Stopped,
    Stopping,
    Tick,
    WhoIsHere,
)
from waystation.models.sessions import MAX_REPLAY_EVENTS, LogPosition, ReplayPage
from waystation.settings import Settings

Watcher = Callable[[Event], None]

logger = logging.getLogger(__name__)

SHOW_PAUSE_SECONDS_PER_CLIENT = 40e-6
"""Twice what it takes to send to one client: live text leaves half of the process's time for the rest.
With 1,000 clients of a session, text that comes within 40 ms of the last goes out together."""
MAX_CACHED_PAGES = 32
"""Pages of history kept for those who resume at the same cursor at the same time."""
QUIET_READ_PAUSE_SECONDS = 1.0
"""How long the reading of deltas that clients have seen live may wait for more of them: each reading is a
query. If a client hasn't seen them, it doesn't wait."""
READ_RETRY_SECONDS = 0.5


class Feed:
    """One session as this process knows it."""

    def __init__(self, session_id: str, gateway: Gateway, bus: LiveBus, settings: Settings) -> None:
        self.session_id = session_id
        self.gate: Gate
        self.tip = 0
        self.heading = 0
        """The newest event here that isn't text of a message: all other news is read without delay."""
        self.closed = False
        self.audience = Audience()
        self.presence = Presence(functools.partial(bus.publish, session_id), self.audience.push)
        self._gateway, self._bus, self._settings = gateway, bus, settings
        self._live: list[LiveText] = []
        self._showing: asyncio.TimerHandle | None = None
        self._shown_at = 0.0
        self._open: set[Subscription] = set()
        self._recent = Recent(0)
        self._pages: dict[int, asyncio.Task[ReplayPage]] = {}
        self.holds = Holds(self._on_not_stopped)
        self._receipts = Receipts()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._changed = asyncio.Event()
        self._deadlines: dict[str, datetime] = {}
        """Of the questions that wait for an answer."""
        self._expiring: asyncio.TimerHandle | None = None
        self._watchers: list[Watcher] = []
        self._reader: asyncio.Task[None] | None = None
        self._stopped = False

    # Life

    async def start(self) -> None:
        """Learns where the session stands, then listens. Raises a problem if it can't."""
        self._bus.subscribe(self.session_id, self._on_message)
        try:
            await self._learn()
        except BaseException:
            self._bus.unsubscribe(self.session_id, self._on_message)
            raise
        self._start_reading()
        self.presence.ask()

    async def _learn(self) -> None:
        snapshot = await self._gateway.snapshot(self.session_id)
        self.gate = Gate()
        self.tip = self.heading = snapshot.tip
        self._recent = Recent(snapshot.tip)
        self.closed = snapshot.status == "closed" and not snapshot.running
        self.gate.attempts = {
            turn.turn_id: turn.attempt for turn in snapshot.running if turn.status == "running"
        }
        self.gate.lengths = {message.message_id: message.characters for message in snapshot.open_messages}
        self.gate.owners = {message.message_id: message.turn_id for message in snapshot.open_messages}
        self._deadlines = {one.question_id: one.deadline for one in snapshot.questions if one.deadline}
        self._read_when_it_expires()

    async def stop(self) -> None:
        """Ends the reading and every client's stream."""
        self._stopped = True
        self.presence.stop()
        self.holds.stop()
        for handle in (self._showing, self._expiring):
            if handle:
                handle.cancel()
        self._bus.unsubscribe(self.session_id, self._on_message)
        for subscription in self._open:
            subscription.end()
        if self._reader:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    # Writers

    def expect(self, handed: Sequence[Handed]) -> None:
        """Settles what Temporal has just taken with the next reading of the log."""
        self._receipts.add(handed)
        if self._reader and self._reader.done():
            # The session has closed, or nobody follows it any more; the log still tells what it took before.
            self._start_reading()

    def settle_soon(self) -> None:
        """Doesn't wait for more news before it settles what Temporal has."""
        if self._receipts.awaited:
            self._urgent.set()

    # Clients

    async def reach(self, cursor: int) -> None:
        """Reads on up to a client's cursor, which may be ahead of what this process knows.

        The cursor comes from the workflow itself (a transcript) or from another API process. Waits no
        longer than Temporal may take to answer; ``subscribe`` then refuses a cursor that is still beyond.
        """
        if cursor <= self.tip:
            return
        snapshot = await self._gateway.snapshot(self.session_id)
        deadline = time.monotonic() + self._settings.temporal_timeout_seconds
        while self.tip < cursor <= snapshot.tip and (left := deadline - time.monotonic()) > 0:
            self._urgent.set()
            await self.next_change(left)

    def subscribe(self, after: int, *, staff: bool) -> Subscription:
        """Returns a place for one client, from its cursor on; ``staff`` are shown what people aren't."""
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
        subscription = Subscription(self, after, staff=staff)
        self._open.add(subscription)
        metrics.SUBSCRIBERS.inc()
        return subscription

    def release(self, subscription: Subscription) -> None:
        """Releases a client's place."""
        if subscription in self._open:
            self._open.remove(subscription)
            metrics.SUBSCRIBERS.dec()

    def join(self, subscription: Subscription) -> None:
        """Lets a client that has caught up follow live."""
        self.audience.join(subscription, self.gate.lengths, self.tip)
        if self._news.is_set():
            self._urgent.set()

    def leave(self, subscription: Subscription) -> None:
        """Lets a client no longer follow live."""
        self.audience.leave(subscription)

    def watch(self, watcher: Watcher) -> None:
        """Calls ``watcher(event)`` for every durable event from now on; watchers must not wait."""
        self._watchers = [*self._watchers, watcher]

    def unwatch(self, watcher: Watcher) -> None:
        """Stops calling ``watcher``."""
        self._watchers = [known for known in self._watchers if known != watcher]

    # History

    def recent(self, after: int) -> list[Frame] | None:
        """Returns what came after the cursor, if memory reaches back that far."""
        return self._recent.after(after)

    async def page(self, after: int, *, anew: bool = False) -> ReplayPage:
        """Returns one page from the workflow; clients that ask for the same page share one query.

        ``anew``: with all that was recorded when this was called.
        """
        task = None if anew else self._pages.get(after)
        if task is None:
            metrics.REPLAY_QUERIES.inc()
            task = asyncio.create_task(self._gateway.replay(self.session_id, after, MAX_REPLAY_EVENTS))
            self._pages[after] = task
            if len(self._pages) > MAX_CACHED_PAGES:
                del self._pages[next(iter(self._pages))]
            task.add_done_callback(lambda done: self._forget(after, done))
        return await asyncio.shield(task)

    def _forget(self, after: int, page: "asyncio.Task[ReplayPage]") -> None:
        """Asks anew for a page that couldn't be read."""
        if (page.cancelled() or page.exception()) and self._pages.get(after) is page:
            del self._pages[after]

    async def caught_up(self, timeout_seconds: float) -> None:
        """Waits until the log has been read after the latest stop, or for the time to run out."""
        deadline = time.monotonic() + timeout_seconds
        while self.holds.unread and (left := deadline - time.monotonic()) > 0:
            await self.next_change(left)

    async def next_change(self, timeout_seconds: float) -> None:
        """Waits for news of the log, or for the time to run out."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_seconds)

    # News

    def _on_message(self, message: LiveMessage) -> None:
        match message:
            case Delta():
                self._on_delta(message)
            case Tick():
                # A stop is looked for in the log as soon as it was taken, not behind an earlier reading.
                if self.holds.asked or (message.quiet and not self.audience.anyone_behind):
                    self._news.set()
                else:
                    self._urgent.set()
            case Stopping():
                self.holds.ask(message.by)
            case Stopped():
                self.holds.take(message.by)
                (self._news if self.holds.asked else self._urgent).set()
            case NotStopped():
                self._on_not_stopped(message.by)
            case Here() | WhoIsHere():
                self.presence.hear(message)

    def _on_not_stopped(self, request_id: str) -> None:
        self.holds.drop(request_id)
        if self._news.is_set():
            self._urgent.set()
        for held in self.holds.release():
            self._on_delta(held.delta)

    def _on_delta(self, delta: Delta, *, judged: bool = False) -> None:
        # Its turn has perhaps begun and not been read yet, or has ended, or there is news that it must not
        # overtake: the log will tell.
        behind = delta.after > self.tip and not judged
        unclear = behind or self.holds.unread or not self.gate.knows(delta.turn_id)
        if unclear or self.holds.asked or self.holds.waiting:
            self.holds.hold(delta)
            if unclear:
                self._urgent.set()
        elif self.gate.passes(delta.turn_id, delta.attempt, delta.message_id):
            metrics.LIVE_DELTAS.inc()
            frame = Frame(None, delta.wire)
            self._live.append(LiveText(delta.message_id, delta.offset, delta.length, frame))
            self._show_soon()

    def _show_soon(self) -> None:
        """Usually shows immediately; where many watch, it joins what comes in quick succession."""
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

    def _start_reading(self) -> None:
        self._reader = asyncio.create_task(self._read_forever(), name=f"feed {self.session_id}")

    async def _read_forever(self) -> None:
        while not (self.closed or self._stopped) or self._receipts.awaited:
            if self.closed or self._stopped:
                self._urgent.set()
            try:
                await self._wait_for_news()
                await self._read()
            except Problem as problem:
                logger.info("Could not read %s (%s); trying again", self.session_id, problem.code)
                await asyncio.sleep(READ_RETRY_SECONDS)
                self._urgent.set()
            except Exception:
                # A reader that died would leave its clients waiting without notice.
                logger.exception("Reading %s failed; trying again", self.session_id)
                await asyncio.sleep(READ_RETRY_SECONDS)
                self._urgent.set()
        for subscription in self._open:
            subscription.wake()

    async def _wait_for_news(self) -> None:
        """Returns immediately for urgent news, after a pause for quiet news, else when it is time to poll."""
        poll = self._settings.busy_poll_seconds if self.gate.attempts else self._settings.idle_poll_seconds
        pause = QUIET_READ_PAUSE_SECONDS if self._news.is_set() else poll
        deadline = time.monotonic() + pause
        while not self._urgent.is_set() and (left := deadline - time.monotonic()) > 0:
            quiet_before = self._news.is_set()
            waits = [asyncio.create_task(self._urgent.wait())]
            if not quiet_before:
                waits.append(asyncio.create_task(self._news.wait()))
            try:
                await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Also if this wait is cancelled: nobody else knows of them.
                for wait in waits:
                    wait.cancel()
            if not quiet_before and self._news.is_set():
                deadline = time.monotonic() + QUIET_READ_PAUSE_SECONDS
        self._urgent.clear()
        self._news.clear()

    async def _read(self) -> None:
        while True:
            stops = self.holds.begin_reading()
            asked, writers = self._receipts.begin_reading()
            metrics.REPLAY_QUERIES.inc()
            position = LogPosition(after=self.tip, limit=MAX_REPLAY_EVENTS, writers=writers)
            reading = await self._gateway.read(self.session_id, position)
            page = reading.page
            self._pages.clear()
            if page.tip < position.after:
                await self._start_over(page.tip)
                break
            for event in page.events:
                self._on_event(event)
            self.tip = max(self.tip, page.next_after)
            if not page.more:
                break
        self.closed = page.closed
        self._read_when_it_expires()
        news = self.holds.read(stops) or page.events or self.closed
        self._release_held()
        self._receipts.read(asked, reading)
        if asked and self._receipts.awaited:
            self._urgent.set()
        if news:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def _read_when_it_expires(self) -> None:
        if self._expiring:
            self._expiring.cancel()
        self._expiring = look_after(self._deadlines.values(), self._urgent.set)

    async def _start_over(self, tip: int) -> None:
        """The log ends before what was read of it: somebody has reset its workflow (docs/operations.md)."""
        logger.warning(
            "The log of %s was at %d and ends at %d; its clients start over", self.session_id, self.tip, tip
        )
        await self._learn()
        for subscription in self._open:
            subscription.end()

    def _on_event(self, event: Event) -> None:
        # Flush live text accepted before this event first.
        self._show()
        frame = Frame.of(event)
        self.gate.observe(event)
        self.tip = event.seq
        if event.type not in FOLDED_TYPES:
            self.heading = event.seq
        self._recent.add(event, frame)
        self.audience.tell(event, frame)
        self._note_deadline(event)
        if (more_waits := attention_of(event.type)) is not None:
            self._bus.publish(ALL_SESSIONS, Stirred(self.session_id, settles=not more_waits))
        for watcher in self._watchers:
            watcher(event)

    def _note_deadline(self, event: Event) -> None:
        if event.type == EventType.INPUT_REQUESTED and (at := event.data.get("deadline")):
            self._deadlines[str(event.data["question_id"])] = datetime.fromisoformat(str(at))
        elif event.type in SETTLED_QUESTION_TYPES:
            self._deadlines.pop(str(event.data["question_id"]), None)

    def _release_held(self) -> None:
        for delta, judged in self.holds.release(after_reading=True):
            unclear = self.holds.unread or self.holds.asked
            if judged and not unclear and not self.gate.knows(delta.turn_id):
                # The log has been read to its end and doesn't say that this turn runs.
                self.gate.end(str(delta.turn_id))
            else:
                self._on_delta(delta, judged=judged)


def is_terminal(event: Event) -> bool:
    """Whether the event ends a turn or a sub-agent's run."""
    return event.type in TERMINAL_TURN_TYPES or event.type == EventType.AGENT_FINISHED
