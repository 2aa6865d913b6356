"""Turns what agents write into durable batches: one signal at a time for each session.

The pace adapts: the next batch leaves when Temporal has taken the last and the interval has
passed (longer where Temporal is slow), or immediately at a boundary: a message's end, a
tool call, a flush. While Temporal is down, a batch is tried again until it is up; what is
written in the meantime waits here up to a bound, and beyond it in the agents. What the session does
with a batch, its receipts tell (api/live/receipts.py).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from api import metrics
from api.errors import Problem, Unavailable
from api.gateways.sessions import Gateway
from api.live.receipts import Author, Handed
from waystation.backoff import Backoff
from waystation.models.events import MAX_WRITES_PER_PUBLISH, EventType, Item, Publish, Write

logger = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 4 * 1024 * 1024
"""What may wait for one session; beyond it the agents' connections are not read."""
MAX_BATCH_BYTES = 512 * 1024
MAX_INTERVAL_SECONDS = 2.0
SLOW_ACKNOWLEDGEMENT_FACTOR = 10.0
"""Never spend more than a tenth of the time waiting for acknowledgements: a Temporal that is slow to answer
is busy, and what people ask of it (a stop, say) would wait behind text that is on their screens already."""
RETRY_PAUSE_SECONDS = 0.5
MAX_RETRY_PAUSE_SECONDS = 5.0
MAX_UNKNOWN_TROUBLES = 10
"""How often a batch is tried again after an error that isn't Temporal's (of external storage, say)."""
_ITEM_OVERHEAD_BYTES = 120

HandOver = Callable[[Sequence[Handed], bool], None]
"""Is called with what Temporal has taken, and with whether that is only text, which nobody waits for."""


class Batcher:
    """The durable path of one session in this process."""

    def __init__(
        self, session_id: str, gateway: Gateway, interval_seconds: float, hand_over: HandOver
    ) -> None:
        self._session_id, self._gateway, self._interval, self._hand_over = (
            session_id,
            gateway,
            interval_seconds,
            hand_over,
        )
        self._pending: list[_Pending] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._boundary = False
        self._flush = False
        """Whether somebody waits for what is pending or on its way."""
        self._room = asyncio.Event()
        self._room.set()
        self._last_sent = 0.0
        self._last_took = 0.0
        self._task: asyncio.Task[None] | None = None

    async def add(self, write: Write, author: Author, *, flush: bool = False) -> None:
        """Accepts a write; waits only while the buffer is full. ``flush``: its author waits for it."""
        await self._room.wait()
        if write.items:
            self._merge(write, author)
        self._boundary |= flush or any(item.type != EventType.MESSAGE_DELTA for item in write.items)
        self._flush |= flush and (bool(self._pending) or self._task is not None)
        self._wake.set()
        if self._task is None and self._pending:
            self._task = asyncio.create_task(self._run(), name=f"batches {self._session_id}")

    def _merge(self, write: Write, author: Author) -> None:
        last = self._pending[-1] if self._pending else None
        for item in write.items:
            if last is None or not last.continues(write, author):
                last = _Pending(write, author)
                self._pending.append(last)
            self._bytes += last.add(item)
        if self._bytes >= MAX_BUFFERED_BYTES:
            self._room.clear()

    async def _run(self) -> None:
        try:
            while self._pending:
                await self._wait_for_pace()
                await self._send(self._take())
        finally:
            self._task = None

    async def _wait_for_pace(self) -> None:
        interval = min(
            max(self._interval, self._last_took * SLOW_ACKNOWLEDGEMENT_FACTOR), MAX_INTERVAL_SECONDS
        )
        while not self._boundary and (left := self._last_sent + interval - time.monotonic()) > 0:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                break
        self._boundary = False

    def _take(self) -> "list[_Pending]":
        batch: list[_Pending] = []
        size = 0
        while (
            self._pending
            and len(batch) < MAX_WRITES_PER_PUBLISH
            and (not batch or size + self._pending[0].size <= MAX_BATCH_BYTES)
        ):
            pending = self._pending.pop(0)
            size += pending.size
            batch.append(pending)
        self._bytes -= size
        if self._pending:
            self._boundary = True
        if self._bytes < MAX_BUFFERED_BYTES:
            self._room.set()
        return batch

    async def _send(self, batch: "list[_Pending]") -> None:
        publish = Publish(writes=tuple(pending.write() for pending in batch))
        backoff = Backoff(RETRY_PAUSE_SECONDS, MAX_RETRY_PAUSE_SECONDS)
        troubles = 0
        while True:
            self._last_sent = time.monotonic()
            try:
                await self._gateway.publish(self._session_id, publish)
                break
            except Unavailable:
                pass
            except Problem as problem:
                _give_up(batch, problem)
                return
            except Exception:
                troubles += 1
                logger.exception("A batch for %s could not be sent", self._session_id)
                if troubles > MAX_UNKNOWN_TROUBLES:
                    _give_up(batch, Problem("What was written could not be stored; it has been logged."))
                    return
            metrics.BATCH_FAILURES.inc()
            await backoff.wait()
        self._last_took = time.monotonic() - self._last_sent
        metrics.BATCHES.inc()
        metrics.BATCH_SECONDS.observe(self._last_took)
        quiet = not self._flush and all(pending.quiet for pending in batch)
        self._flush &= bool(self._pending)
        self._hand_over([pending.handed(self._session_id) for pending in batch], quiet)


def _give_up(batch: "list[_Pending]", problem: Problem) -> None:
    for pending in batch:
        pending.author.lose(problem)


class _Growing:
    """An item on its way; a delta grows by those that follow it without a gap."""

    __slots__ = ("_first", "_texts", "_until", "n")

    def __init__(self, item: Item) -> None:
        self._first, self.n = item, item.n
        self._texts: list[str] = []
        self._until = 0
        offset, text = item.data.get("offset"), item.data.get("text")
        if item.type == EventType.MESSAGE_DELTA and isinstance(offset, int) and isinstance(text, str):
            self._texts.append(text)
            self._until = offset + len(text)

    def grow(self, item: Item, text: str) -> bool:
        """Takes the text of a delta that continues this one; returns whether it does."""
        follows = item.message_id == self._first.message_id and item.data.get("offset") == self._until
        if not self._texts or not follows:
            return False
        self._texts.append(text)
        self._until += len(text)
        self.n = item.n
        return True

    def whole(self) -> Item:
        """Returns everything as one item."""
        first = self._first
        data = {**first.data, "text": "".join(self._texts)} if self._texts else dict(first.data)
        # The parts were validated when they came in.
        return Item.model_construct(**{**dict(first), "n": self.n, "data": data})


class _Pending:
    """A run of items by one writer, with neighbouring deltas coalesced."""

    def __init__(self, write: Write, author: Author) -> None:
        self._write, self.author = write, author
        self._items: list[_Growing] = []
        self.size = 0
        self._first = self._last = 0
        self.quiet = True

    def continues(self, write: Write, author: Author) -> bool:
        """Returns whether the write is by the same writer and author, and there is room for it."""
        mine = self._write
        return (
            self.author is author
            and (mine.writer, mine.turn_id, mine.attempt, mine.actor)
            == (write.writer, write.turn_id, write.attempt, write.actor)
            and self.size < MAX_BATCH_BYTES // 2
        )

    def add(self, item: Item) -> int:
        """Appends an item, or merges it into the last delta; returns by how many bytes this has grown."""
        self._first, self._last = self._first or item.n, max(self._last, item.n)
        text = item.data.get("text")
        grown = len(text.encode(errors="replace")) if isinstance(text, str) else len(str(item.data))
        is_delta = item.type == EventType.MESSAGE_DELTA
        if not (is_delta and isinstance(text, str) and self._items and self._items[-1].grow(item, text)):
            self.quiet &= is_delta
            self._items.append(_Growing(item))
            grown += _ITEM_OVERHEAD_BYTES
        self.size += grown
        return grown

    def handed(self, session_id: str) -> Handed:
        """Returns what is to be settled once Temporal has taken it."""
        return Handed(
            session_id, self._write.writer, self._write.turn_id, self._first, self._last, self.author
        )

    def write(self) -> Write:
        """Returns everything as one write."""
        return self._write.model_copy(update={"items": tuple(item.whole() for item in self._items)})
