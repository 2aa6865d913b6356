"""What Temporal has of this process's writers, and what the session has done with it.

A batch that Temporal has taken may still be refused by the session, whole or in part. So its writers are
told nothing before the log has been read after it: that reading says how far each writer's items have been
decided, and which of them were refused. A session remembers its last writers, not all: what one that it
forgot in the meantime had written was decided, and counts as recorded.
"""

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from api import metrics
from api.errors import Problem
from waystation.models.refusals import Receipt, Refusal, RefusalCode
from waystation.models.sessions import LogReading

logger = logging.getLogger(__name__)

MAX_WRITERS_PER_READING: Final = 100
"""So that the answer stays below what Temporal transports, whatever was refused."""


class Settled(NamedTuple):
    """What has become of a run of items."""

    last: int
    """The run's last item; every item of it is recorded or refused."""
    recorded: int | None
    """The last item that is recorded; ``None`` if the run holds none."""
    refused: tuple[Refusal, ...]


class Author(Protocol):
    """Who has written, and is told what becomes of it."""

    def settle(self, settled: Settled) -> None:
        """Takes note of what is recorded and what is refused."""

    def lose(self, problem: Problem) -> None:
        """Takes note that nothing more of this writer can be taken."""


class Handed(NamedTuple):
    """A run of one writer's items that Temporal has taken."""

    session_id: str
    writer: str
    turn_id: str | None
    first: int
    last: int
    author: Author


class Receipts:
    """What was handed to Temporal, until a reading of the log tells what became of it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Handed, int]] = []
        """Each with how many writers the session had forgotten, as far as was known when Temporal took it."""
        self._forgotten = 0

    @property
    def awaited(self) -> bool:
        """Whether anything waits to be settled."""
        return bool(self._waiting)

    def add(self, handed: Sequence[Handed]) -> None:
        """Notes what Temporal has just taken."""
        self._waiting.extend((one, self._forgotten) for one in handed)

    def begin_reading(self) -> tuple[int, tuple[str, ...]]:
        """Returns what ``read`` is to be told, and which writers to ask about: the longest waiting."""
        writers: dict[str, None] = {}
        for count, (handed, _) in enumerate(self._waiting):
            if handed.writer not in writers and len(writers) == MAX_WRITERS_PER_READING:
                return count, tuple(writers)
            writers[handed.writer] = None
        return len(self._waiting), tuple(writers)

    def read(self, asked: int, reading: LogReading) -> None:
        """Settles what waited when the log was asked; what came later waits for the next reading."""
        due, self._waiting = self._waiting[:asked], self._waiting[asked:]
        self._forgotten = reading.forgotten
        for handed, forgotten in due:
            receipt = reading.receipts.get(handed.writer, Receipt())
            if receipt == Receipt() and reading.forgotten > forgotten:
                receipt = Receipt(n=handed.last)
            settled = settle(handed, receipt, closed=reading.page.closed)
            _report(handed, settled.refused)
            try:
                handed.author.settle(settled)
            except Exception:
                # The others must learn what has become of theirs.
                logger.exception("A writer of %s could not be told what was recorded", handed.session_id)


def settle(handed: Handed, receipt: Receipt, *, closed: bool) -> Settled:
    """Returns what has become of a run, going by the receipt of its writer.

    >>> run = Handed("s", "w", None, 1, 4, author=None)
    >>> receipt = Receipt(n=9, refused=(Refusal(first=3, last=6, code="gap"),))
    >>> settle(run, receipt, closed=False).recorded
    2
    """
    refused = [
        Refusal(
            first=max(known.first, handed.first),
            last=min(known.last, handed.last),
            code=known.code,
        )
        for known in receipt.refused
        if known.first <= handed.last and handed.first <= known.last
    ]
    if receipt.n < handed.last:
        # The log has been read since, and knows nothing of these.
        first = max(handed.first, receipt.n + 1)
        refused.append(Refusal(first=first, last=handed.last, code=_why_not(handed, closed=closed)))
    recorded: int | None = handed.last
    for known in reversed(refused):
        if recorded == known.last:
            recorded = known.first - 1
    if recorded is not None and recorded < handed.first:
        recorded = None
    return Settled(handed.last, recorded, tuple(refused))


def _why_not(handed: Handed, *, closed: bool) -> RefusalCode:
    if closed:
        return RefusalCode.SESSION_CLOSED
    return RefusalCode.TURN_OVER if handed.turn_id else RefusalCode.NOT_RECORDED


def _report(handed: Handed, refused: Sequence[Refusal]) -> None:
    for refusal in refused:
        metrics.REFUSED_ITEMS.labels(refusal.code).inc(refusal.last - refusal.first + 1)
    if refused:
        logger.warning(
            "The session %s refused items of the writer %s: %s",
            handed.session_id,
            handed.writer,
            ", ".join(f"{refusal.first} to {refusal.last} ({refusal.code})" for refusal in refused[:5]),
        )
