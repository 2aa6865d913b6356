"""What keeps live text off the screens: a stop that is under way, or what the log must tell first."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from waystation.models.live import Delta

MAX_HELD_DELTAS = 256
"""Live text kept while it isn't known whether it may be shown."""
MAX_STOPPING_SECONDS = 2.0
"""How long live text is held for a stop that nothing more is heard of: its API process has died, say."""


class Held(NamedTuple):
    """Live text that was kept back. ``judged``: the log has been read to its end since it came."""

    delta: Delta
    judged: bool


class Holds:
    """The stops that a feed has heard of, and the live text that waits for what becomes of them.

    A stop is *asked* for before Temporal has it, then *taken*, or *dropped* as it could not be delivered. One
    that was taken is *unread* until the log has been read after it.
    """

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        self._asked: dict[str, asyncio.TimerHandle] = {}
        self._taken = self._read = 0
        self._readings = 0
        self._waiting: list[tuple[Delta, int]] = []

    @property
    def waiting(self) -> int:
        """How many deltas are kept back."""
        return len(self._waiting)

    @property
    def asked(self) -> bool:
        """Whether somebody is stopping the session, and nobody knows yet if the stop was taken."""
        return bool(self._asked)

    @property
    def unread(self) -> bool:
        """Whether a stop was taken after the log was read last."""
        return self._taken > self._read

    def ask(self, request_id: str) -> None:
        """Notes that somebody stops the session, and gives up if nothing more is heard of it."""
        if request_id not in self._asked:
            loop = asyncio.get_running_loop()
            self._asked[request_id] = loop.call_later(MAX_STOPPING_SECONDS, self._give_up, request_id)

    def take(self, request_id: str) -> None:
        """Notes that the stop was taken."""
        self._taken += 1
        self.drop(request_id)

    def drop(self, request_id: str) -> None:
        """Forgets a stop that was asked for."""
        if timer := self._asked.pop(request_id, None):
            timer.cancel()

    def begin_reading(self) -> int:
        """Returns what ``read`` is to be told: an answer knows of the stops taken before it was asked for."""
        self._readings += 1
        return self._taken

    def read(self, taken: int) -> bool:
        """Notes that the log was read; returns whether that told of stops."""
        assert self._read <= taken <= self._taken, "a reading knows of no more stops than this process"
        news, self._read = taken > self._read, taken
        return news

    def hold(self, delta: Delta) -> None:
        """Keeps live text back; what is beyond the bound is dropped here and arrives with the log."""
        if len(self._waiting) < MAX_HELD_DELTAS:
            self._waiting.append((delta, self._readings))

    def release(self, *, after_reading: bool = False) -> list[Held]:
        """Returns what was kept back, and keeps nothing; ``after_reading``: a reading has just ended."""
        held, self._waiting = self._waiting, []
        return [Held(delta, after_reading and number < self._readings) for delta, number in held]

    def stop(self) -> None:
        """Cancels all timers."""
        for timer in self._asked.values():
            timer.cancel()
