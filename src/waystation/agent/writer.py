"""What one attempt of a turn writes: numbered, and kept until the session has it."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from pydantic_core import PydanticSerializationError

from waystation.errors import ConflictError, WaystationError, WriteRefused, problem
from waystation.foreign_json import ForeignJsonError, check_nesting
from waystation.models.events import MAX_DATA_BYTES, Actor, Item, Visibility
from waystation.models.ingest import (
    AckFrame,
    AnsweredFrame,
    CloseFrame,
    FencedFrame,
    FinishedFrame,
    OpenedFrame,
    OpenFrame,
    ProblemFrame,
    RefusedFrame,
    ServerFrame,
    SpawnedFrame,
    SpawnFrame,
    SteerFrame,
    StopFrame,
    WriteFrame,
)
from waystation.models.refusals import RefusalCode
from waystation.models.sessions import Spawn
from waystation.surrogates import mend_json

MAX_UNACKNOWLEDGED_BYTES = 1024 * 1024
"""How much one writer may have unacknowledged; beyond that, ``write`` waits."""
MAX_ITEMS_PER_FRAME = 500
REOPEN_PAUSE_SECONDS = 0.5

Control = StopFrame | SteerFrame | AnsweredFrame | FencedFrame | FinishedFrame | ProblemFrame


class Carrier(Protocol):
    """What a writer needs of the connection."""

    def wake(self) -> None:
        """Sends what is due."""

    def drop(self, writer: "Writer") -> None:
        """Forgets a writer that writes nothing more."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls ``call`` after a pause."""


class Writer:
    """What one attempt of a turn writes."""

    def __init__(self, connection: Carrier, frame: OpenFrame, control: Callable[[Control], None]) -> None:
        # Two sessions may use the same writer id; on the shared connection it must be unique.
        self.key = f"{frame.session_id}:{frame.writer}"
        self._frame = frame.model_copy(update={"writer": self.key})
        self._connection, self._control = connection, control
        self._unacknowledged: deque[_Sealed] = deque()
        self._bytes = 0
        self._numbered = self._sent = 0
        self._opening = self._opened = False
        self._flush_due = False
        self._changed = asyncio.Event()
        self._turnstile = asyncio.Lock()
        """What writes at the same time is numbered in the order in which it asked."""
        self._requests: dict[str, tuple[SpawnFrame, asyncio.Future[str]]] = {}
        self._requests_sent: set[str] = set()
        self._asked = 0
        self._error: WaystationError | None = None
        self._refused: list[_Refusal] = []
        """What was refused and nobody has been told of."""
        self._awaited: dict[int, RefusedFrame | None] = {}
        """Items whose own writer waits to hear of them, with why they were refused."""
        self.closing = self.closed = False

    # For the turn

    async def write(
        self,
        kind: str,
        data: dict[str, Any] | Callable[[], dict[str, Any]],
        message_id: str | None = None,
        *,
        flush: bool = False,
        closes: bool = False,
        visibility: Visibility | None = None,
    ) -> int:
        """Writes one item and returns its number; waits while too much is unacknowledged.

        Where the data depends on what was written before (an offset), a function gives it: it is called once
        there is room, when everything that was written earlier has its number. What ``closes`` something is
        written whatever was refused before it; ``raise_refused`` says that afterwards.

        Raises:
            WriteRefused: Something written earlier was refused; this item isn't written.
            WaystationError: The turn is over.
            ValueError: The data isn't JSON, or is too large: sending it would end the connection that all
                turns of this process share.
        """
        async with self._turnstile:
            while self._bytes >= MAX_UNACKNOWLEDGED_BYTES and not self._error:
                self._flush_now()
                await self._wait()
            if not closes:
                self.raise_refused()
            given = data() if callable(data) else data
            return self.put(kind, given, message_id, flush=flush, visibility=visibility)

    def put(
        self,
        kind: str,
        data: dict[str, Any],
        message_id: str | None = None,
        *,
        flush: bool = False,
        visibility: Visibility | None = None,
    ) -> int:
        """Writes one item at once, room or not: for what closes something while its turn is being cut off.

        Raises:
            WaystationError: The turn is over.
            ValueError: As ``write``.
        """
        if self._error:
            raise self._error
        sealed = _seal(
            Item.model_construct(
                n=self._numbered + 1, type=kind, message_id=message_id, data=data, visibility=visibility
            )
        )
        self._numbered += 1
        self._unacknowledged.append(sealed)
        self._bytes += sealed.size_bytes
        self._flush_due |= flush
        self._connection.wake()
        return sealed.n

    async def record(self, kind: str, data: dict[str, Any]) -> None:
        """Writes one item and waits until it is durable: for what somebody waits for afterwards.

        Raises:
            WriteRefused: It was refused, whoever else was told of other refusals meanwhile; or something
                earlier was, and this isn't written.
            WaystationError: The turn is over.
        """
        n = await self.write(kind, data, flush=True)
        self._awaited[n] = None
        try:
            await self.settle()
            if frame := self._awaited[n]:
                raise _write_refused([_Refusal(1, frame)])
        finally:
            del self._awaited[n]

    async def flush(self) -> None:
        """Waits until everything written so far is durable.

        Raises:
            WriteRefused: Something of it was refused.
            WaystationError: The turn is over.
        """
        await self.settle()
        self.raise_refused()

    async def settle(self) -> bool:
        """Waits until everything written so far is durable or refused; returns whether nothing is to be told.

        What was refused is still raised by whatever the turn does next.

        Raises:
            WaystationError: The turn is over.
        """
        # Others may keep writing in the meantime: what they write is not waited for.
        last = self._numbered
        if self._unacknowledged:
            self._flush_now()
        while self._unacknowledged and self._unacknowledged[0].n <= last and not self._error:
            await self._wait()
        if self._error:
            raise self._error
        return not self._refused

    def _flush_now(self) -> None:
        self._flush_due = True
        self._connection.wake()

    def raise_refused(self) -> None:
        """Says once what was refused, to whoever writes or waits next.

        Raises:
            WriteRefused: Something was, and nobody has been told.
        """
        refused, self._refused = self._refused, []
        if refused:
            raise _write_refused(refused)

    async def spawn(self, spawn: Spawn) -> str:
        """Asks for a sub-agent and returns its turn's id."""
        # A spawn takes another path than earlier writes, and must not overtake them in the session.
        await self.flush()
        self._asked += 1
        request = f"spawn-{self._asked}"
        frame = SpawnFrame(writer=self.key, session_id=self._frame.session_id, request=request, spawn=spawn)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._requests[request] = (frame, future)
        self._connection.wake()
        try:
            return await future
        finally:
            self._requests.pop(request, None)
            self._requests_sent.discard(request)

    def close(self) -> None:
        """Ends the writing: whoever still writes is told that the turn is over, and the API may forget it."""
        self.fail(turn_is_over("turn-over"))
        self._connection.drop(self)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # For the connection

    def due(self) -> list[str]:
        """Returns the frames to send now."""
        if self.closing:
            self.closed = True
            return [CloseFrame(writer=self.key).model_dump_json()]
        if not self._opened:
            if self._opening:
                return []
            self._opening = True
            return [self._frame.model_dump_json()]
        frames = [
            frame.model_dump_json()
            for key, (frame, _) in self._requests.items()
            if key not in self._requests_sent
        ]
        self._requests_sent.update(self._requests)
        return frames + self._due_writes()

    def _due_writes(self) -> list[str]:
        items = [sealed.json for sealed in self._unacknowledged if sealed.n > self._sent]
        if not items and not self._flush_due:
            return []
        frames = []
        for start in range(0, max(len(items), 1), MAX_ITEMS_PER_FRAME):
            chunk = items[start : start + MAX_ITEMS_PER_FRAME]
            last = start + MAX_ITEMS_PER_FRAME >= len(items)
            frames.append(write_frame(self.key, chunk, flush=self._flush_due and last))
        self._flush_due = False
        self._sent = self._numbered
        return frames

    def disconnected(self) -> None:
        self._opening = self._opened = False
        self._requests_sent.clear()
        self._sent = self._unacknowledged[0].n - 1 if self._unacknowledged else self._numbered

    def take(self, frame: ServerFrame) -> None:
        """Takes a frame that the API sent to this writer."""
        match frame:
            case AckFrame():
                self._acknowledge(frame.n)
            case RefusedFrame():
                self._take_refusal(frame)
            case OpenedFrame():
                self._opened = True
                # What was unacknowledged when the connection was lost must not wait for more to join it.
                self._flush_due |= bool(self._unacknowledged)
                self._connection.wake()
            case SpawnedFrame():
                self._resolve(frame.request, frame.turn_id)
            case ProblemFrame():
                self._take_problem(frame)
            case FencedFrame():
                self.fail(turn_is_over(frame.code))
                self._control(frame)
            case StopFrame() | SteerFrame() | AnsweredFrame() | FinishedFrame():
                self._control(frame)

    def _acknowledge(self, n: int) -> None:
        while self._unacknowledged and self._unacknowledged[0].n <= n:
            self._bytes -= self._unacknowledged.popleft().size_bytes
        self._changed.set()

    def _take_refusal(self, frame: RefusedFrame) -> None:
        """Gives up on what was refused. That nothing more counts after a stop is no news to the turn."""
        kept = deque(s for s in self._unacknowledged if not frame.first <= s.n <= frame.last)
        news = {sealed.n for sealed in self._unacknowledged} - {sealed.n for sealed in kept}
        self._unacknowledged, self._bytes = kept, sum(sealed.size_bytes for sealed in kept)
        if frame.code != RefusalCode.TURN_STOPPED:
            awaited = news & self._awaited.keys()
            self._awaited.update(dict.fromkeys(awaited, frame))
            if others := len(news - awaited):
                self._refused.append(_Refusal(others, frame))
        self._changed.set()

    def _resolve(self, request: str, turn_id: str) -> None:
        if (entry := self._requests.get(request)) and not entry[1].done():
            entry[1].set_result(turn_id)

    def _take_problem(self, frame: ProblemFrame) -> None:
        error = refusal_of(frame)
        if frame.retry:
            self._connection.later(REOPEN_PAUSE_SECONDS, self._try_again)
        elif frame.request and (entry := self._requests.get(frame.request)):
            if not entry[1].done():
                entry[1].set_exception(error)
        else:
            self.fail(error)
            self._control(frame)

    def _try_again(self) -> None:
        self.disconnected()
        self._connection.wake()

    def fail(self, error: WaystationError) -> None:
        """Fails the writer: nothing it writes counts any more."""
        self._error = self._error or error
        for _, future in self._requests.values():
            if not future.done():
                future.set_exception(error)
        self._changed.set()


class _Sealed(NamedTuple):
    """An item as it goes on the wire: encoded once, however often it is sent."""

    n: int
    json: str
    size_bytes: int


class _Refusal(NamedTuple):
    """So many items were refused, for this reason."""

    items: int
    frame: RefusedFrame


def _write_refused(refused: Sequence[_Refusal]) -> WriteRefused:
    """Returns what a turn is told of its items that were refused."""
    count = sum(one.items for one in refused)
    reasons = " ".join(dict.fromkeys(one.frame.detail for one in refused))
    return WriteRefused(
        409,
        refused[0].frame.code,
        f"{count} of the things this turn has written were not recorded. {reasons}",
    )


def refusal_of(frame: ProblemFrame) -> WaystationError:
    """Returns what is raised where the API has refused a frame."""
    return problem(409, {"code": frame.code, "detail": frame.detail})


def turn_is_over(code: str) -> ConflictError:
    """Returns what a writer raises whose turn has ended, or is in the hands of a later attempt."""
    return ConflictError(409, code, "The turn is over: nothing it writes counts any more.")


def _seal(item: Item) -> _Sealed:
    """Encodes an item; refuses what the wire can't carry, and mends halves of surrogate pairs."""
    try:
        check_nesting(item.data)
        try:
            text = item.model_dump_json()
        except PydanticSerializationError:
            item = item.model_copy(update={"data": mend_json(item.data)})
            text = item.model_dump_json()
    except ForeignJsonError as error:
        raise ValueError(f"The data of {item.type} is {error}.") from error
    except (PydanticSerializationError, TypeError) as error:
        raise ValueError(f"The data of {item.type} can't be written as JSON: {error}") from error
    size_bytes = len(text.encode())
    if size_bytes > MAX_DATA_BYTES and "text" not in item.data:
        # Counted as the API counts it.
        counted = len(json.dumps(item.model_dump(mode="json")["data"]))
        if counted > MAX_DATA_BYTES:
            raise ValueError(
                f"One event carries at most {MAX_DATA_BYTES} bytes of data; store it and write a link."
            )
    return _Sealed(item.n, text, size_bytes)


def write_frame(writer: str, items: Sequence[str], *, flush: bool) -> str:
    """Returns a ``WriteFrame`` around items that are already encoded.

    >>> WriteFrame.model_validate_json(write_frame("w", ['{"n":1,"type":"data.x"}'], flush=True)).items[0].n
    1
    """
    head = WriteFrame.model_construct(writer=writer, flush=flush).model_dump_json(exclude={"items"})
    return f'{head[:-1]},"items":[{",".join(items)}]}}'


def actor_of(agent: str) -> Actor:
    """Returns the actor that an agent writes as."""
    return Actor.model_validate({"id": agent, "role": "agent"})
