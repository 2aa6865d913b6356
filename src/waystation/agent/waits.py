"""Whether a turn does nothing but wait for people: then it need not hold a process.

A turn that waits is *parked* after a while: its attempt ends, its session keeps it, and the next attempt
begins from the top once something that it waited for is settled.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_calls_around: ContextVar[tuple[str, ...]] = ContextVar("calls_around", default=())
"""The tool calls within which the current code runs."""


class Waits:
    """What a turn waits for, and what it does besides."""

    def __init__(self, park_after_seconds: float | None, park: Callable[[tuple[str, ...]], None]) -> None:
        """``park`` is called with all that is waited for; without ``park_after_seconds``, never."""
        self._park_after, self._park = park_after_seconds, park
        self._waiting: dict[object, tuple[str, tuple[str, ...]]] = {}
        self._doing: set[object] = set()
        self._calls: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Everything that the turn waits for now, if it does nothing else; else nothing."""
        covered = {call for _, around in self._waiting.values() for call in around}
        if self._doing or not self._calls <= covered:
            return ()
        return tuple(dict.fromkeys(wait_id for wait_id, _ in self._waiting.values()))

    async def wait(self, wait_id: str, settled: "asyncio.Future[T]") -> T:
        """Waits for people: for an answer to a question, or for a sub-agent, which may wait for one."""
        if settled.done():
            return settled.result()
        token = object()
        self._waiting[token] = (wait_id, _calls_around.get())
        self._changed()
        try:
            return await asyncio.shield(settled)
        finally:
            del self._waiting[token]
            self._changed()

    @contextmanager
    def doing(self) -> Iterator[None]:
        """Marks work that a park must not interrupt: it would be done twice."""
        token = object()
        self.begin(token)
        try:
            yield
        finally:
            self.end(token)

    def begin(self, what: object) -> None:
        """Marks the beginning of such work."""
        self._doing.add(what)
        self._changed()

    def end(self, what: object) -> None:
        """Marks its end."""
        self._doing.discard(what)
        self._changed()

    def begin_call(self, call_id: str) -> None:
        """Marks a tool call: the turn may be parked while its code waits, and not while it works."""
        self._calls.add(call_id)
        self._changed()

    def end_call(self, call_id: str) -> None:
        """Marks its end."""
        self._calls.discard(call_id)
        self._changed()

    @contextmanager
    def within_call(self, call_id: str) -> Iterator[None]:
        """Marks the code of a call, in whatever task it runs; what begins there is within the call too."""
        _calls_around.set((*_calls_around.get(), call_id))
        try:
            yield
        finally:
            # Not by a token: a generator's block may be left in another context than it was entered in.
            _calls_around.set(tuple(one for one in _calls_around.get() if one != call_id))

    def close(self) -> None:
        """Never parks the turn any more."""
        self._park_after = None
        self._changed()

    def _changed(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._park_after is not None and self.waiting_for:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._park_after, lambda: self._park(self.waiting_for))
