"""What waits for people, as one API process knows it, for everybody who wants to be told.

However many pages are open, each session, purchase and paid request in which something may wait is asked once
when there is news of it, and Temporal's lists once in a while: for what the live bus has lost, and for what
nobody tells of. What each person may see is then chosen in memory, once for all pages of theirs.
"""

import asyncio
import contextlib
import functools
import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from api import metrics
from api.auth import Principal
from api.errors import Problem, TooMany
from api.gateways.attention import AttentionGateway, Entry, Found, Place
from api.live.bus import LiveBus
from api.live.delivery import Frame
from api.live.expiry import look_after
from waystation.models.attention import MAX_ITEMS, Attention
from waystation.models.live import ALL_SESSIONS, LiveMessage, Stirred, Tick
from waystation.settings import Settings

LOOKS_AT_ONCE: Final = 16
MAX_LOOKS_WANTED: Final = 1_000
"""Of more news than that, what is lost is found by the next list."""
LINGER_SECONDS: Final = 30.0
"""How long it is kept up to date after the last page has closed: whoever comes back asks nothing anew."""
TELL_PAUSE_SECONDS: Final = 0.1
"""Changes that come in quick succession are told together."""
KNOWN_FOR_SECONDS: Final = 60.0
"""After this, what is on the list still is looked at again, should news of it have been lost."""

logger = logging.getLogger(__name__)


class _Known(NamedTuple):
    """What a look has found, and when; or why the last one found nothing out."""

    found: Found
    at: float
    problem: Problem | None = None


class _Who(NamedTuple):
    """All pages of whom see the same."""

    subject: str
    role: str
    sessions: frozenset[str] | None


class AttentionStream:
    """One page's place: it is sent how things stand, and again each time that they have changed."""

    def __init__(self, seen: str | None) -> None:
        """``seen`` is the id of what the page has already."""
        self._seen = seen
        self._latest: Frame | None = None
        self._besides: list[Frame] = []
        self._ready = asyncio.Event()
        self._ended = False

    def show(self, identity: str, frame: Frame) -> None:
        """Sends how things stand now, unless the page has it; a slow page is sent only the latest."""
        self._latest = None if identity == self._seen else frame
        self._seen = identity
        self._ready.set()

    def push(self, frame: Frame) -> None:
        self._besides = [frame]
        self._ready.set()

    def end(self) -> None:
        self._ended = True
        self._ready.set()

    async def frames(self) -> AsyncIterator[list[Frame]]:
        while not self._ended:
            await self._ready.wait()
            self._ready.clear()
            frames, self._besides, latest, self._latest = self._besides, [], self._latest, None
            if latest is not None:
                frames = [latest]
            if frames and not self._ended:
                yield frames


@dataclass(eq=False)
class _Viewer:
    """A person with their pages, and what these show."""

    caller: Principal
    streams: set[AttentionStream] = field(default_factory=set)
    users: int = 0
    shown: str = ""
    frame: Frame = field(default_factory=lambda: Frame.comment(""))

    def show(self, attention: Attention) -> None:
        text = attention.model_dump_json(exclude_none=True)
        identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        if identity != self.shown:
            self.shown, self.frame = identity, Frame.state(identity, text)
            for stream in self.streams:
                stream.show(identity, self.frame)


class _Watch(NamedTuple):
    """Somebody who wants to know of all sessions though no page is open."""

    operators: frozenset[str]
    on_change: Callable[[], None]


class AttentionBoard:
    """Knows what waits for whom while anybody wants to know."""

    def __init__(self, looks: AttentionGateway, bus: LiveBus, settings: Settings) -> None:
        self._looks, self._bus, self._settings = looks, bus, settings
        self._known: dict[Place, _Known] = {}
        self._more = False
        self._viewers: dict[_Who, _Viewer] = {}
        self._watch: _Watch | None = None
        self._looking: dict[Place, asyncio.Task[None]] = {}
        self._again: set[Place] = set()
        self._expiring: dict[Place, asyncio.TimerHandle] = {}
        """When it is looked again because something there expires."""
        self._slots = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._listing: asyncio.Task[None] | None = None
        self._listed: frozenset[str] | None = None
        """For which operators Temporal's lists have been asked; ``None``: not at all."""
        self._polling: asyncio.Task[None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._telling: asyncio.TimerHandle | None = None
        self._woken = asyncio.Event()
        """Ends the pause before the next poll."""
        self._missed = False
        """Whether news may have been lost of all that is known."""
        self._retry_seconds = settings.busy_poll_seconds

    async def stop(self) -> None:
        """Ends all streams, and forgets everything."""
        for viewer in self._viewers.values():
            for stream in viewer.streams:
                stream.end()
        self._forget()

    # Whoever wants to know

    async def now(self, caller: Principal) -> Attention:
        """Returns what waits for the caller.

        Raises:
            Problem: Temporal can't be asked.
        """
        async with self._use(caller):
            return self._of(caller)

    @asynccontextmanager
    async def stream(self, caller: Principal, seen: str | None) -> AsyncIterator[AttentionStream]:
        """Yields a place for a page of the caller's, which has seen ``seen`` last.

        Raises:
            Problem: Temporal can't be asked, or the caller has too many pages.
        """
        async with self._use(caller) as viewer:
            if len(viewer.streams) >= self._settings.max_subscribers_per_session:
                raise TooMany(
                    f"You have {len(viewer.streams)} of these streams on this server already.",
                    code="too-many-subscribers",
                )
            viewer.show(self._of(caller))
            stream = AttentionStream(seen)
            stream.show(viewer.shown, viewer.frame)
            viewer.streams.add(stream)
            metrics.ATTENTION_STREAMS.inc()
            try:
                yield stream
            finally:
                viewer.streams.discard(stream)
                metrics.ATTENTION_STREAMS.dec()

    async def watch(self, operators: frozenset[str], on_change: Callable[[], None]) -> None:
        """Knows of all sessions from now on, without any page, and calls when something has changed.

        Of sessions that only somebody looks after, those of ``operators``.

        Raises:
            Problem: Temporal can't be asked; it is tried again.
        """
        self._watch = _Watch(operators, on_change)
        self._begin()
        while self._listed is None or not operators <= self._listed:
            await self._list_once()

    def unwatch(self) -> None:
        """Ends it."""
        if self._watch is not None:
            self._watch = None
            self._linger()

    def told(self, caller: Principal) -> Attention:
        """Returns what waits for the caller, as far as it is known to whoever watches."""
        return self._of(caller)

    @asynccontextmanager
    async def _use(self, caller: Principal) -> AsyncIterator[_Viewer]:
        """Yields the caller's own part once all is known that concerns them."""
        who = _Who(caller.subject, caller.role, caller.sessions)
        viewer = self._viewers.setdefault(who, _Viewer(caller))
        viewer.users += 1
        self._begin()
        try:
            await self._know(caller)
            yield viewer
        finally:
            viewer.users -= 1
            if not viewer.users:
                del self._viewers[who]
            self._linger()

    def _linger(self) -> None:
        if not self._viewers and self._watch is None and self._polling and not self._lingering:
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(LINGER_SECONDS, self._forget)

    def _begin(self) -> None:
        if self._lingering:
            self._lingering.cancel()
            self._lingering = None
        if self._polling is None:
            self._bus.subscribe(ALL_SESSIONS, self._on_message)
            self._polling = asyncio.create_task(self._poll())

    def _forget(self) -> None:
        if self._polling is None:
            return
        self._bus.unsubscribe(ALL_SESSIONS, self._on_message)
        for task in (self._polling, self._listing, *self._looking.values()):
            if task:
                task.cancel()
        for handle in (self._telling, self._lingering, *self._expiring.values()):
            if handle:
                handle.cancel()
        self._polling = self._listing = self._telling = self._lingering = None
        self._known.clear()
        self._looking.clear()
        self._again.clear()
        self._expiring.clear()
        self._listed, self._more = None, False

    async def _know(self, caller: Principal) -> None:
        if caller.sessions is None:
            while not self._is_listed_for(caller):
                await self._list_once()
        else:
            for session_id in caller.sessions:
                place = Place("session", session_id)
                if self._is_unknown(place):
                    self._look_soon(place)
        # Two rounds: a session says which purchases of its own wait.
        for _ in range(2):
            if looking := list(self._looking.values()):
                await asyncio.wait(looking, timeout=self._settings.temporal_timeout_seconds)
        known = [self._known.get(Place("session", one)) for one in caller.sessions or ()]
        problems = [one.problem for one in known if one and one.problem]
        if problems and len(problems) == len(known):
            raise problems[0]  # nobody answers: that is not nothing

    def _is_listed_for(self, caller: Principal) -> bool:
        return self._listed is not None and (caller.role != "operator" or caller.subject in self._listed)

    # News

    def _on_message(self, message: LiveMessage) -> None:
        match message:
            case Stirred(workflow_id=stirred, settles=settles):
                self._on_stirred(stirred, settles=settles)
            case Tick():  # the bus was lost, and is back
                self._missed = True
                self._woken.set()

    def _on_stirred(self, workflow_id: str, *, settles: bool) -> None:
        # Also what waits in a session's purchases: these don't tell of themselves.
        places = {place for place in self._known.keys() | self._looking.keys() if place.id == workflow_id}
        for place, known in self._known.items():
            if any(entry.item.session_id == workflow_id for entry in known.found.entries):
                places.add(place)
        if not places and not settles and self._over_all:
            places.add(Place("session", workflow_id))
        for place in places:
            self._look_soon(place)

    @property
    def _over_all(self) -> bool:
        """Whether anybody wants to know of all sessions, or did just now."""
        return self._listed is not None or self._listing is not None

    def _is_unknown(self, place: Place) -> bool:
        known = self._known.get(place)
        return known is None or known.problem is not None

    async def _poll(self) -> None:
        """Finds what nobody tells of, and what the bus has lost."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._woken.wait()
            self._woken.clear()
            missed, self._missed = self._missed, False
            try:
                if self._over_all:
                    await self._list_once()
            except Problem as problem:
                logger.info("Could not list what waits for people (%s); trying again", problem.code)
            except Exception:
                logger.exception("Listing what waits for people failed; trying again")
            self._look_again(0 if missed else KNOWN_FOR_SECONDS)

    def _pause_seconds(self) -> float:
        """Returns how long to wait for the next poll: less at first where something could not be read."""
        if not any(map(self._is_unknown, self._known)):
            self._retry_seconds = self._settings.busy_poll_seconds
            return self._settings.idle_poll_seconds
        pause = min(self._retry_seconds, self._settings.idle_poll_seconds)
        self._retry_seconds = 2 * pause
        return pause

    def _look_again(self, after_seconds: float) -> None:
        """Looks at what was last looked at so long ago, and at each session that a token names."""
        before = time.monotonic() - after_seconds
        named = {one for who in self._viewers for one in who.sessions or ()}
        for place, known in list(self._known.items()):
            if known.at <= before or place.id in named:
                self._look_soon(place)

    async def _list_once(self) -> None:
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._list())
        await asyncio.shield(self._listing)

    async def _list(self) -> None:
        metrics.ATTENTION_LISTS.inc()
        operators = frozenset(who.subject for who in self._viewers if who.role == "operator")
        if self._watch:
            operators |= self._watch.operators
        found = await self._looks.candidates(operators)
        listed = set(found.places)
        # What is on the list no more may only be missing there yet: it says so itself.
        gone = [place for place, known in self._known.items() if place not in listed and known.found.entries]
        for place in (*filter(self._is_unknown, found.places), *gone):
            self._look_soon(place)
        self._more, self._listed = found.more, operators
        self._tell_soon()

    # Looking

    def _look_soon(self, place: Place) -> None:
        if place in self._looking:
            self._again.add(place)
        elif len(self._looking) < MAX_LOOKS_WANTED:
            self._looking[place] = asyncio.create_task(self._look(place))

    async def _look(self, place: Place) -> None:
        try:
            async with self._slots:
                # News from before is in the answer.
                self._again.discard(place)
                metrics.ATTENTION_LOOKS.inc()
                self._take(place, await self._looks.look(place))
        except Problem as problem:
            logger.info("Could not see what waits in %s (%s); trying again", place.id, problem.code)
            if not any(map(self._is_unknown, self._known)):
                self._woken.set()  # not only after a pause of when all was well
            # As it was, and looked at again with the next poll.
            before = self._known.get(place, _Known(Found(), 0.0))
            self._known[place] = before._replace(at=0.0, problem=problem)
        except Exception:
            logger.exception("Seeing what waits in %s failed; trying again", place.id)
        finally:
            if self._looking.get(place) is asyncio.current_task():
                del self._looking[place]
                if place in self._again:
                    self._look_soon(place)

    def _take(self, place: Place, found: Found) -> None:
        self._look_when_it_expires(place, found)
        before = self._known.pop(place, None)
        named = any(place.id in (who.sessions or ()) for who in self._viewers)
        if found.entries or found.further or named:
            self._known[place] = _Known(found, time.monotonic())
        for further in found.further:
            if further not in self._known:
                self._look_soon(further)
        if found.entries or (before and before.found.entries):
            self._tell_soon()

    def _look_when_it_expires(self, place: Place, found: Found) -> None:
        if (handle := self._expiring.pop(place, None)) is not None:
            handle.cancel()
        deadlines = [one.item.deadline for one in found.entries if one.item.deadline]
        if looking := look_after(deadlines, functools.partial(self._look_soon, place)):
            self._expiring[place] = looking

    # Telling

    def _tell_soon(self) -> None:
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(TELL_PAUSE_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = None
        for viewer in self._viewers.values():
            if viewer.streams:
                viewer.show(self._of(viewer.caller))
        if self._watch:
            self._watch.on_change()

    def _of(self, caller: Principal) -> Attention:
        mine = [
            (known, entry)
            for known in self._known.values()
            for entry in known.found.entries
            if entry.waits_for(caller)
        ]
        more = any(known.found.least for known, _ in mine)
        if caller.sessions is None:
            more = more or self._more or any(known.problem for known in self._known.values())
        return attention([entry for _, entry in mine], more=more)


def attention(entries: Iterable[Entry], *, more: bool) -> Attention:
    """Returns what is told of entries that wait for one person."""
    items = sorted((entry.item for entry in entries), key=lambda item: item.since, reverse=True)
    counts = Counter(item.kind for item in items)
    return Attention(
        count=len(items),
        counts={kind: counts[kind] for kind in sorted(counts)},
        items=tuple(items[:MAX_ITEMS]),
        more=more,
    )
