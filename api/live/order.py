"""The live text of one writer, in the order of its writing.

Text goes to screens immediately; a tool call, the end of a message, an event of an agent's own reach them
with the log, a moment later. So text that was written after such an item waits here until the log has it.
Text that follows nothing but text doesn't wait. On a new connection all text waits until the log was read:
what the writer was told on an earlier one, perhaps by another process, is not known here.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from api.errors import Problem
from api.live.receipts import Author, Settled
from waystation.models.events import FOLDED_TYPES, EventType, Item, Write

MAX_HELD_DELTAS = 256
"""Of one writer. What is beyond it arrives with the log."""

Show = Callable[[Write, Item, int], None]
"""Shows a delta live, but nowhere before the events up to a ``seq``."""


class _Held(NamedTuple):
    behind: int
    """The number of the item it waits for."""
    write: Write
    item: Item


class WriterOrder:
    """One writer as its author writes with it: passes on what becomes of its items, and orders its text."""

    def __init__(self, author: Author, show: Show) -> None:
        self.author, self._show = author, show
        self._after = 0
        self._decided = 0
        self._catching_up = False
        self._behind = 0
        """The newest item that reaches screens only with the log."""
        self._held: deque[_Held] = deque()

    def catch_up(self) -> None:
        """Holds all text until ``caught_up``."""
        self._catching_up = True

    def caught_up(self) -> None:
        """Notes that the log was read, and the writer knows of nothing beyond what ``know`` was told."""
        self._catching_up = False
        self._release()

    def know(self, seq: int) -> None:
        """Notes that the writer knows of the event ``seq``: what it writes from now on comes after it."""
        self._after = max(self._after, seq)

    def write(self, write: Write, item: Item) -> None:
        """Shows text, or holds it behind what must be on screens before it."""
        if item.type == EventType.MESSAGE_DELTA:
            if self._behind <= self._decided and not self._catching_up:
                self._show(write, item, self._after)
            elif len(self._held) < MAX_HELD_DELTAS:
                self._held.append(_Held(self._behind, write, item))
        elif item.type not in FOLDED_TYPES:
            self._behind = max(self._behind, item.n)

    def settle(self, settled: Settled) -> None:
        """Tells the author, and shows the text that has waited for these items."""
        self.author.settle(settled)
        self._decided = max(self._decided, settled.last)
        self._release()

    def _release(self) -> None:
        while self._held and self._held[0].behind <= self._decided and not self._catching_up:
            # Perhaps the log has brought it to viewers here, but not yet to those of another process.
            _, write, item = self._held.popleft()
            self._show(write, item, self._after)

    def lose(self, problem: Problem) -> None:
        """Tells the author, and shows nothing more."""
        self._held.clear()
        self.author.lose(problem)
