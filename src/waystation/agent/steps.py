"""A turn's steps: each runs once, and a later attempt of the turn gets back what it returned."""

import asyncio
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import JsonValue

from waystation.agent.step_records import StepRecords, StepRefused
from waystation.agent.step_results import ResultType
from waystation.agent.waits import Waits
from waystation.models.steps import MAX_STEP_KEY_CHARACTERS, MAX_STEPS

MAX_RECORDING_AT_ONCE: Final = 8
"""Temporal takes at most ten updates of one workflow at the same time."""

CLOSE_SECONDS: Final = 1.0
"""How long the recording of a step that has run may hold up the end of its turn."""


@dataclass(frozen=True)
class CurrentStep:
    """The step that runs here."""

    key: str
    idempotency_key: str
    """For what the step does outside: of session, turn and key, so the same in every attempt."""
    attempt: int


_current: ContextVar[CurrentStep | None] = ContextVar("current_step", default=None)


_around: ContextVar[CurrentStep | None] = ContextVar("around", default=None)
"""The call of a model's tool in which this runs. Unlike a step it may ask, spawn and have steps."""


def current_step() -> CurrentStep:
    """Returns the step that runs here, or the call of a model's tool, for its idempotency key.

    Raises:
        LookupError: No step runs here.

    >>> async def charge(amount: int) -> str:
    ...     return await processor.charge(amount, idempotency_key=current_step().idempotency_key)
    """
    if (step := _current.get() or _around.get()) is None:
        raise LookupError("No step runs here: current_step() is for functions given to turn.step().")
    return step


def place_of_counting() -> str:
    """Returns within what calls are counted: in each call of a model's tool by themselves.

    A later attempt remembers the calls that have ended, and doesn't count what they did.
    """
    step = _around.get()
    return "" if step is None else step.idempotency_key


def refuse_within_a_step(what: str) -> None:
    """Raises ``StepRefused`` within a step: a later attempt remembers the step and wouldn't come by here."""
    if (step := _current.get()) is not None:
        raise StepRefused(
            f"{what} can't be used within a step (here '{step.key}'): a later attempt gets the step's result "
            "back without running it. Do it before or after the step."
        )


class Shows(Protocol):
    """Shows a step as a tool call."""

    async def begun(self) -> None:
        """The step begins."""

    async def ended(self, error: BaseException | None = None) -> None:
        """It has ended, and is recorded; or has failed."""

    async def remembered(self) -> None:
        """It was recorded by an earlier attempt."""


@dataclass
class _Running:
    """A step under way, and how many calls wait for it."""

    task: asyncio.Task[JsonValue]
    is_cancellable: bool
    """A coroutine function can be cut off. A thread can't, nor may a recording be: the step has run."""
    waiting: int = 0


@dataclass
class Steps:
    """The steps of one attempt of a turn."""

    session_id: str
    turn_id: str
    attempt: int
    waits: Waits
    records: StepRecords
    remembered: Mapping[str, JsonValue] = field(default_factory=dict)
    """What earlier attempts have recorded."""

    def __post_init__(self) -> None:
        self._results = dict(self.remembered)
        self._size_bytes = sum(len(json.dumps(result)) for result in self._results.values())
        self._running: dict[str, _Running] = {}
        self._uses: dict[str, tuple[object, ...]] = {}
        self._recording = asyncio.Semaphore(MAX_RECORDING_AT_ONCE)

    async def run(
        self,
        key: str,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        *,
        shows: Shows | None = None,
        returns: Any = None,
    ) -> Any:
        """See ``Turn.step``."""
        refuse_within_a_step("turn.step")
        if not 0 < len(key) <= MAX_STEP_KEY_CHARACTERS:
            raise StepRefused(f"A step's key has 1 to {MAX_STEP_KEY_CHARACTERS} characters, not {len(key)}.")
        kind = ResultType.of(key, function, returns)
        use = (_name_of(function), *arguments)
        again = self._check_use(key, use)
        if key in self._results:
            if shows and not again and key in self.remembered:
                await shows.remembered()
            return kind.read(self._results[key])
        if key not in self._running:
            self._start(key, function, arguments, kind, shows)
        return kind.read(await self._wait_for(key))

    def recall(self, key: str) -> JsonValue | None:
        """See ``Turn.recall``."""
        return self._results.get(key)

    @contextmanager
    def around(self, key: str) -> Iterator[None]:
        """Marks code whose result its caller records under this key: ``current_step`` is this one there."""
        before = _around.get()
        _around.set(CurrentStep(key, self.idempotency_key(key), self.attempt))
        try:
            yield
        finally:
            # Not by a token: a generator's block may be left in another context than it was entered in.
            _around.set(before)

    async def close(self) -> None:
        """Ends what nobody waits for any more; what has run is recorded first."""
        running = [one.task for one in self._running.values()]
        for one in list(self._running.values()):
            if one.is_cancellable:
                one.task.cancel()
        if running:
            await asyncio.wait(running, timeout=CLOSE_SECONDS)

    def _check_use(self, key: str, use: tuple[object, ...]) -> bool:
        """Returns whether this attempt has come by this step before.

        Raises:
            StepRefused: It was another step: this one would silently get that one's result.
        """
        again = key in self._uses
        known = self._uses.setdefault(key, use)
        if not _are_equal(known, use):
            raise StepRefused(
                f"The step '{key}' has another function or other arguments than the step of that key before: "
                "put what differs into the key."
            )
        return again

    def _start(
        self,
        key: str,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        kind: ResultType,
        shows: Shows | None,
    ) -> None:
        if len(self._results) + len(self._running) >= MAX_STEPS:
            raise StepRefused(f"A turn has at most {MAX_STEPS:,} steps.")
        task = asyncio.create_task(self._run(key, function, arguments, kind, shows), name=f"step {key}")
        self._running[key] = _Running(task, is_cancellable=inspect.iscoroutinefunction(function))
        self.waits.begin(task)
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: str, done: asyncio.Task[JsonValue]) -> None:
        del self._running[key]
        self.waits.end(done)
        if not done.cancelled():
            done.exception()  # looked at, for nobody may wait for it any more

    async def _wait_for(self, key: str) -> JsonValue:
        running = self._running[key]
        running.waiting += 1
        try:
            return await asyncio.shield(running.task)
        except asyncio.CancelledError:
            # Either the step was cancelled from within, or this call is: then the last one ends the step.
            if running.waiting == 1 and running.is_cancellable and not running.task.done():
                running.task.cancel()
                await asyncio.wait([running.task])
            raise
        finally:
            running.waiting -= 1

    async def _run(
        self,
        key: str,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        kind: ResultType,
        shows: Shows | None,
    ) -> JsonValue:
        if shows:
            await shows.begun()
        try:
            result = await self._call(key, function, arguments)
            self._running[key].is_cancellable = False
            recorded = await self._record(key, result, kind)
        except BaseException as error:
            if shows:
                await shows.ended(error)
            raise
        if shows:
            await shows.ended()
        return recorded

    async def _call(self, key: str, function: Callable[..., object], arguments: tuple[object, ...]) -> object:
        _current.set(CurrentStep(key, self.idempotency_key(key), self.attempt))
        try:
            if inspect.iscoroutinefunction(function):
                return await function(*arguments)
            result = await asyncio.to_thread(function, *arguments)
            if inspect.isawaitable(result):  # a lambda around a coroutine function
                self._running[key].is_cancellable = True
                return await result
            return result
        finally:
            _current.set(None)

    async def _record(self, key: str, result: object, kind: ResultType) -> JsonValue:
        recorded, size_bytes = kind.to_json(result)
        if size_bytes > self.records.max_result_bytes:
            raise StepRefused(
                f"The step '{key}' has run, but its result of {size_bytes:,} bytes of JSON is too large: at "
                f"most {self.records.max_result_bytes:,}. Store it and return a link."
            )
        if self._size_bytes + size_bytes > self.records.max_bytes:
            raise StepRefused(
                f"The step '{key}' has run, but the results of a turn's steps have at most "
                f"{self.records.max_bytes:,} bytes of JSON. Store large ones and return links."
            )
        self._size_bytes += size_bytes
        async with self._recording:
            self._results[key] = counted = await self.records.record(key, recorded)
        return counted

    def idempotency_key(self, key: str) -> str:
        """Returns what stands for a step of this turn, in whatever attempt."""
        parts = json.dumps([self.session_id, self.turn_id, key])
        return f"step-{hashlib.sha256(parts.encode()).hexdigest()[:40]}"


def _name_of(function: Callable[..., object]) -> object:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _are_equal(one: object, other: object) -> bool:
    """Whether two uses are the same, as far as can be told."""
    try:
        return bool(one == other)
    except Exception:  # an argument's own comparison raises what it likes
        return True
