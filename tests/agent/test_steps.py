"""A step runs once, and looks the same whether it has just run or is remembered."""

import asyncio
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from tests.agent.memory import RecordsInMemory, steps, waits
from waystation.agent import StepRefused, StepResultError, current_step
from waystation.agent.step_results import ResultType
from waystation.agent.steps import Steps, refuse_within_a_step
from waystation.models.steps import MAX_STEPS


class Receipt(BaseModel):
    id: str
    cents: int


@dataclass
class Place:
    x: int


async def receive(cents: int) -> Receipt:
    return Receipt(id="r1", cents=cents)


def locate(x: int) -> Place:
    return Place(x)


async def untyped(value: Any):  # type: ignore[no-untyped-def]
    return value


async def again(records: RecordsInMemory) -> Steps:
    return steps(attempt=2, remembered=await records.read())


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (receive, (5,), Receipt(id="r1", cents=5)),
        (locate, (3,), Place(3)),
        (untyped, ({1: (2, 3)},), {"1": [2, 3]}),
        (untyped, (None,), None),
        (untyped, (Receipt(id="r", cents=1),), {"id": "r", "cents": 1}),
        (untyped, (float("nan"),), None),
        (untyped, ("a\ud800b",), "a\N{REPLACEMENT CHARACTER}b"),
        (lambda: receive(7), (), {"id": "r1", "cents": 7}),
        (functools.partial(receive, 8), (), Receipt(id="r1", cents=8)),
        (str, (9,), "9"),
        (len, ([1, 2],), 2),
    ],
)
async def test_a_result_is_the_same_at_first_and_later(
    function: Callable[..., object], arguments: tuple[Any, ...], expected: object
) -> None:
    records = RecordsInMemory()
    first = await steps(records).run("k", function, arguments)
    later = await (await again(records)).run("k", function, arguments)
    assert first == later == expected
    assert type(first) is type(later) is type(expected)


async def test_what_is_remembered_does_not_run() -> None:
    async def never() -> None:
        raise AssertionError

    assert await steps(remembered={"k": 5}).run("k", never, (), returns=int) == 5


async def test_returns_says_what_an_unannotated_function_gives() -> None:
    records = RecordsInMemory()
    assert await steps(records).run("k", lambda: receive(1), (), returns=Receipt) == Receipt(id="r1", cents=1)


async def test_each_call_gets_an_object_of_its_own() -> None:
    turn = steps()
    first = await turn.run("k", untyped, ([],))
    first.append(1)
    assert await turn.run("k", untyped, ([],)) == []


async def test_what_a_function_raises_is_not_recorded_and_it_runs_again() -> None:
    records, runs = RecordsInMemory(), 0

    async def flaky() -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ConnectionError("not now")
        return "done"

    turn = steps(records)
    with pytest.raises(ConnectionError):
        await turn.run("k", flaky, ())
    assert records.recorded == {}
    assert await turn.run("k", flaky, ()) == "done"
    assert records.recorded == {"k": "done"}


async def test_the_same_key_at_the_same_time_runs_once() -> None:
    runs, go = 0, asyncio.Event()

    async def slow() -> int:
        nonlocal runs
        runs += 1
        await go.wait()
        return runs

    turn = steps()
    calls = [asyncio.create_task(turn.run("k", slow, ())) for _ in range(5)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*calls) == [1] * 5


async def test_steps_run_side_by_side() -> None:
    meeting = asyncio.Barrier(20)

    async def meet(n: int) -> int:
        await meeting.wait()
        return n

    turn = steps()
    found = await asyncio.gather(*(turn.run(f"k{n}", meet, (n,)) for n in range(20)))
    assert found == list(range(20))


async def test_a_function_without_async_runs_in_a_thread_and_knows_its_step() -> None:
    def where() -> list[str]:
        step = current_step()
        return [threading.current_thread().name, step.key, step.idempotency_key]

    turn = steps()
    thread, key, idempotency_key = await turn.run("k", where, ())
    assert thread != threading.current_thread().name
    assert (key, idempotency_key) == ("k", turn.idempotency_key("k"))


async def test_the_idempotency_key_is_of_session_turn_and_key_and_never_of_the_attempt() -> None:
    assert steps(attempt=1).idempotency_key("k") == steps(attempt=2).idempotency_key("k")
    others = [
        Steps("s", "t1", 1, waits(), RecordsInMemory()).idempotency_key("l"),
        Steps("s", "t2", 1, waits(), RecordsInMemory()).idempotency_key("k"),
        Steps("s2", "t1", 1, waits(), RecordsInMemory()).idempotency_key("k"),
        Steps("s", "t1", 1, waits(), RecordsInMemory()).idempotency_key("k"),
    ]
    assert len(set(others)) == 4
    assert others[-1] == steps().idempotency_key("k")


def test_outside_a_step_there_is_none() -> None:
    with pytest.raises(LookupError, match="No step runs here"):
        current_step()
    refuse_within_a_step("anything")


async def test_a_step_within_a_step_is_refused_with_an_explanation() -> None:
    turn = steps()

    async def outer() -> None:
        await turn.run("inner", untyped, (1,))

    with pytest.raises(StepRefused, match=r"turn\.step can't be used within a step \(here 'outer'\)"):
        await turn.run("outer", outer, ())


@pytest.mark.parametrize("key", ["", "k" * 129])
async def test_a_key_has_its_bounds(key: str) -> None:
    with pytest.raises(StepRefused, match="1 to 128 characters"):
        await steps().run(key, untyped, (1,))


async def test_two_steps_under_one_key_are_told_apart_rather_than_confused() -> None:
    turn = steps()
    assert await turn.run("charge", untyped, (1,)) == 1
    with pytest.raises(StepRefused, match="put what differs into the key"):
        await turn.run("charge", untyped, (2,))
    with pytest.raises(StepRefused, match="put what differs into the key"):
        await turn.run("charge", receive, (1,))


@pytest.mark.parametrize(
    ("value", "match"), [(object(), "can't be recorded"), ("x" * 1_000, r"1,002 bytes of JSON is too large")]
)
async def test_what_cannot_be_recorded_is_refused(value: object, match: str) -> None:
    records = RecordsInMemory()
    with pytest.raises((StepRefused, StepResultError), match=match):
        await steps(records).run("k", untyped, (value,))
    assert records.recorded == {}


async def test_a_result_nested_too_deeply_is_refused() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(StepResultError, match="nested more than 32 levels deep"):
        await steps().run("k", untyped, (deep,))


async def test_all_results_together_have_a_bound_also_after_a_retry() -> None:
    records = RecordsInMemory()
    turn = steps(records)
    for n in range(5):
        await turn.run(f"k{n}", untyped, ("x" * 900,))
    for attempt in (turn, await again(records)):
        with pytest.raises(StepRefused, match="5,000 bytes of JSON"):
            await attempt.run("one more", untyped, ("x" * 900,))


async def test_a_turn_has_a_thousand_steps() -> None:
    turn = steps(remembered={f"k{n}": None for n in range(MAX_STEPS)})
    assert await turn.run("k7", untyped, (1,)) is None
    with pytest.raises(StepRefused, match="at most 1,000 steps"):
        await turn.run("one more", untyped, (1,))


async def test_a_result_that_has_another_shape_since_a_deployment_is_named() -> None:
    with pytest.raises(StepResultError, match=r"cents: Field required.*another key"):
        await steps(remembered={"k": {"id": "r1"}}).run("k", receive, (1,))


async def test_a_return_type_that_json_cannot_hold_is_refused_before_anything_runs() -> None:
    async def lock() -> threading.Thread:
        raise AssertionError

    with pytest.raises(StepResultError, match="can't be read from JSON"):
        await steps().run("k", lock, ())


async def test_an_annotation_that_cannot_be_resolved_is_refused_before_anything_runs() -> None:
    async def find() -> "Missing":  # type: ignore[name-defined] # noqa: F821
        raise AssertionError

    with pytest.raises(StepResultError, match="pass returns="):
        await steps().run("k", find, ())


async def test_a_function_that_returns_another_type_than_it_says_is_refused() -> None:
    async def lie() -> Receipt:
        return "a private word"  # type: ignore[return-value]

    with pytest.raises(StepResultError, match="it is a str, and not what the function says") as told:
        await steps().run("k", lie, ())
    assert "private" not in str(told.value), "the session shows why a turn has failed"


# Cut off


async def test_a_timeout_cuts_a_coroutine_off_and_it_may_run_again() -> None:
    records, ended = RecordsInMemory(), asyncio.Event()
    turn = steps(records)

    async def hang(*, for_ever: bool = True) -> str:
        try:
            if not turn._results and not ended.is_set():
                await asyncio.Event().wait()
            return "at last"
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await turn.run("k", hang, ())
    assert ended.is_set(), "its cleaning up was waited for"
    assert records.recorded == {}
    assert await turn.run("k", hang, ()) == "at last"


async def test_one_of_two_waiting_calls_may_be_cut_off() -> None:
    go = asyncio.Event()

    async def slow() -> str:
        await go.wait()
        return "done"

    turn = steps()
    calls = [asyncio.create_task(turn.run("k", slow, ())) for _ in range(2)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    go.set()
    assert await calls[1] == "done"


async def test_a_thread_cannot_be_cut_off_so_its_result_counts() -> None:
    records, go, runs = RecordsInMemory(), threading.Event(), list[int]()

    def slow() -> str:
        runs.append(1)
        go.wait(10)
        return "done"

    turn = steps(records)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await turn.run("k", slow, ())
    again = asyncio.create_task(turn.run("k", slow, ()))
    await asyncio.sleep(0)
    go.set()
    assert await again == "done"
    assert (len(runs), records.recorded) == (1, {"k": "done"})


class _SlowRecords(RecordsInMemory):
    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def record(self, key: str, result: JsonValue) -> JsonValue:
        self.asked.set()
        await self.go.wait()
        return await super().record(key, result)


async def test_what_has_run_is_recorded_although_its_caller_was_cut_off() -> None:
    records = _SlowRecords()
    turn = steps(records)
    call = asyncio.create_task(turn.run("k", untyped, (1,)))
    await records.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    closing = asyncio.create_task(turn.close())
    await asyncio.sleep(0)
    records.go.set()
    await closing
    assert records.recorded == {"k": 1}


async def test_at_most_eight_are_recorded_at_once() -> None:
    """Temporal takes ten updates of one workflow at the same time, and lets the others wait for long."""
    at_once = most = 0

    class Counting(RecordsInMemory):
        async def record(self, key: str, result: JsonValue) -> JsonValue:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            return await super().record(key, result)

    turn = steps(Counting())
    await asyncio.gather(*(turn.run(f"k{n}", untyped, (n,)) for n in range(50)))
    assert most == 8


# The result that counts


async def test_the_first_recorded_result_counts() -> None:
    records = RecordsInMemory()
    records.recorded["k"] = "of another process"
    assert await steps(records).run("k", untyped, ("mine",)) == "of another process"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_comes_back_as_it_was(value: Any) -> None:
    kind = ResultType.of("k", untyped)
    recorded, _ = kind.to_json(value)
    assert kind.read(recorded) == value
