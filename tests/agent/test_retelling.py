"""What a later attempt of a turn tells again isn't shown twice, and nothing that is new gets lost."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.support import BOT, LoggedWriter
from tests.agent.memory import RecordsInMemory, steps, waits
from waystation.agent import Turn, TurnDiverged
from waystation.agent.told import told_of
from waystation.client.transcript import Transcript
from waystation.models.events import Event, EventType
from waystation.models.sessions import TurnInput
from workflows.session.log import SessionLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Told(NamedTuple):
    """One thing that a turn tells: text, a message in pieces, a tool call, a step, or an event."""

    what: str
    name: str
    pieces: tuple[str, ...] = ()
    result: float | None = None


class Attempts:
    """The attempts of a turn, one after the other, over one log."""

    def __init__(self) -> None:
        self.log = SessionLog()
        self.records = RecordsInMemory()
        self.count = 0

    def begin(self, waited_for: tuple[str, ...] = ()) -> Turn:
        """Begins another attempt; the one before was killed, or parked."""
        self.count += 1
        if self.count > 1 and not waited_for:
            self.log.supersede_attempt("t1", NOW)
            self.log.append(EventType.TURN_RETRIED, BOT, NOW, turn_id="t1")
        self.log.open_fence("t1", self.count)
        given = TurnInput(
            session_id="s", turn_id="t1", attempt=self.count, agent="bot", text="", waited_for=waited_for
        )
        nobody: Any = None
        writer = LoggedWriter(self.log, "t1", self.count)
        told = told_of(self.transcript, given)
        known = steps(self.records, attempt=self.count, remembered=dict(self.records.recorded))
        return Turn(given, nobody, writer, [], nobody, waits(), known, told)

    @property
    def events(self) -> list[Event]:
        return self.log.state.events

    @property
    def transcript(self) -> Transcript:
        transcript = Transcript()
        for event in self.events:
            transcript.apply(event)
        return transcript

    def shown(self) -> "Counter[object]":
        """What stands in the log as completed: as often as it does."""
        found: Counter[object] = Counter()
        for message in self.transcript:
            if message.status == "completed":
                found["message", message.kind, message.text] += 1
        for use in self.transcript.tools:
            if use.returned and use.error is None:
                found["tool", use.name, json.dumps([use.arguments, use.result])] += 1
        for event in self.transcript.events:
            if event.type.startswith("data."):
                found["event", event.type, str(event.data)] += 1
        return found


async def _done() -> str:
    return "done"


async def tell(turn: Turn, things: Sequence[Told], until: int | None = None) -> None:
    """Tells all of it, or is cut off after so many writes, as by kill -9."""
    left = until

    class Killed(BaseException):
        pass

    def write() -> None:
        nonlocal left
        if left is not None:
            if left == 0:
                raise Killed
            left -= 1

    writer: Any = turn._writer
    plain = writer.put

    def put(*arguments: Any, **more: Any) -> None:
        write()
        plain(*arguments, **more)

    writer.put = put
    try:
        for thing in things:
            match thing.what:
                case "text":
                    for piece in thing.pieces:
                        await turn.write(piece)
                case "step":
                    assert await turn.step(thing.name, _done, show=thing.name) == "done"
                case "message":
                    kind = None if thing.name == "message" else thing.name
                    async with turn.message(kind=kind) as message:
                        for piece in thing.pieces:
                            await message.write(piece)
                case "tool":
                    async with turn.tool(thing.name, list(thing.pieces)) as call:
                        call.result = thing.result
                case _:
                    await turn.emit(thing.name, {"pieces": list(thing.pieces)})
        await turn.end_message()
    except Killed:
        pass


def as_shown(things: Sequence[Told]) -> "Counter[object]":
    """What is shown of these things if all of them are told for the first time."""
    attempts = Attempts()
    asyncio.run(tell(attempts.begin(), things))
    return attempts.shown()


PIECES = st.lists(st.sampled_from(["a", "ab", "b", "a" * 3, ""]), max_size=3).map(tuple)
THINGS = st.one_of(
    st.builds(Told, st.just("message"), st.sampled_from(["message", "reasoning"]), PIECES),
    st.builds(
        Told, st.just("tool"), st.sampled_from(["x", "y"]), PIECES, st.sampled_from([1, 1.0, True, None])
    ),
    st.builds(Told, st.just("event"), st.sampled_from(["p", "q"]), PIECES),
    st.builds(Told, st.just("text"), st.just("text"), PIECES),
    st.builds(Told, st.just("step"), st.sampled_from(["x", "z"])),
)
SCRIPTS = st.lists(THINGS, max_size=8)


@given(SCRIPTS, st.data())
def test_the_same_told_again_is_shown_once_wherever_the_first_attempts_were_cut_off(
    script: list[Told], data: st.DataObject
) -> None:
    attempts = Attempts()
    for _ in range(data.draw(st.integers(1, 3))):
        cut = data.draw(st.integers(0, 40))
        asyncio.run(tell(attempts.begin(), script, until=cut))
    asyncio.run(tell(attempts.begin(), script))
    assert attempts.shown() == as_shown(script)


@given(SCRIPTS, SCRIPTS)
def test_what_differs_is_shown_in_full_and_what_is_the_same_once(first: list[Told], then: list[Told]) -> None:
    """Each thing stands as often as the attempt that told it most often has told it."""
    attempts = Attempts()
    asyncio.run(tell(attempts.begin(), first))
    asyncio.run(tell(attempts.begin(), then))
    assert attempts.shown() == as_shown(first) | as_shown(then)


@given(SCRIPTS)
def test_nothing_at_all_is_written_where_all_was_told(script: list[Told]) -> None:
    attempts = Attempts()
    asyncio.run(tell(attempts.begin(), script))
    again = attempts.begin()
    asyncio.run(tell(again, script))
    assert again._writer.written == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("waited_for", [(), ("t1:q",)])
async def test_what_is_said_after_a_step_is_another_message_also_when_it_is_told_again(
    waited_for: tuple[str, ...],
) -> None:
    script = [Told("text", "", ("one ",)), Told("step", "x"), Told("text", "", ("two",)), Told("step", "x")]
    attempts = Attempts()
    await tell(attempts.begin(), script)
    again = attempts.begin(waited_for=waited_for)
    await tell(again, script)
    assert again._writer.written == []  # type: ignore[attr-defined]
    assert [message.text for message in attempts.transcript] == ["one ", "two"]


async def test_a_message_is_held_back_while_it_may_be_the_same_and_written_once_it_differs() -> None:
    attempts = Attempts()
    await tell(attempts.begin(), [Told("message", "message", ("Hello, ", "Ada."))])
    turn = attempts.begin()
    writer: Any = turn._writer
    await turn.write("Hel")
    await turn.write("lo, A")
    assert writer.written == []
    await turn.write("lan.")
    assert [item.data.get("text") for item in writer.written] == [None, "Hello, A", "lan."]
    await turn.end_message()
    assert [message.text for message in attempts.transcript] == ["Hello, Ada.", "Hello, Alan."]


async def test_a_question_that_is_given_up_before_it_is_durable_is_withdrawn() -> None:
    turn = Attempts().begin()
    writer: Any = turn._writer
    writer.flush = asyncio.Event().wait
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await turn.ask("Anybody?")
    assert [item.type for item in writer.written] == ["input.requested", "input.withdrawn"]


async def test_a_message_that_ends_before_the_one_that_was_told_is_another_one() -> None:
    attempts = Attempts()
    await tell(attempts.begin(), [Told("message", "message", ("Hello, Ada.",))])
    turn = attempts.begin()
    await turn.write("Hello")
    await turn.end_message()
    assert [message.text for message in attempts.transcript] == ["Hello, Ada.", "Hello"]


async def test_what_is_written_at_the_same_time_keeps_its_order_when_it_is_released() -> None:
    attempts = Attempts()
    await tell(attempts.begin(), [Told("message", "message", ("one two",))])
    turn = attempts.begin()
    await turn.write("one ")
    await asyncio.gather(turn.write("2 "), turn.write("3 "), turn.write("4"))
    await turn.end_message()
    assert attempts.transcript.messages[-1].text == "one 2 3 4"


async def test_tools_side_by_side_are_matched_whatever_their_order() -> None:
    attempts = Attempts()

    async def use(turn: Turn, n: int, after: float) -> None:
        async with turn.tool("count", {"n": n % 2}) as call:
            for _ in range(int(after)):
                await asyncio.sleep(0)
            call.result = n

    first, then = attempts.begin(), None
    await asyncio.gather(*(use(first, n, 4 - n) for n in range(4)))
    shown = attempts.shown()
    then = attempts.begin()
    await asyncio.gather(*(use(then, n, n) for n in range(4)))
    assert attempts.shown() == shown


async def test_a_tool_whose_end_was_cut_off_is_shown_again_and_one_left_open_gets_its_end() -> None:
    attempts = Attempts()
    first = attempts.begin()
    block = first.tool("order", {"n": 1})
    opened = await block.__aenter__()
    parked = attempts.begin(waited_for=("t1:q",))
    parked._retelling.reached("t1:q")
    async with parked.tool("order", {"n": 1}) as call:
        call.result = "done"
    assert call.id == opened.id
    assert [e.type for e in attempts.events] == ["tool.called", "tool.returned"]
    await attempts.begin().tool("other").__aenter__()
    retried = attempts.begin()
    async with retried.tool("other") as call:
        call.result = 1
    ends = [e.data.get("error") for e in attempts.events if e.type == "tool.returned"]
    assert ends == [None, "the attempt was given up", None]


async def test_a_call_that_fails_again_in_the_same_way_is_shown_once() -> None:
    attempts = Attempts()
    for _ in range(2):
        turn = attempts.begin()
        with pytest.raises(ValueError, match="no tea"):
            async with turn.tool("order"):
                raise ValueError("no tea")
    assert [e.type for e in attempts.events].count("tool.returned") == 1


async def test_a_message_that_a_timeout_cuts_off_again_is_shown_once() -> None:
    attempts = Attempts()
    for _ in range(2):
        turn = attempts.begin()
        with contextlib.suppress(TimeoutError):
            async with turn.message() as message:
                await message.write("half an ans")
                raise TimeoutError
        await turn.write("sorry")
        await turn.end_message()
    assert [(m.text, m.data) for m in attempts.transcript] == [
        ("half an ans", {"finish": "failed"}),
        ("sorry", {}),
    ]


async def test_whoever_looks_at_what_was_written_decides_alone_what_to_write() -> None:
    attempts = Attempts()
    await tell(attempts.begin(), [Told("message", "message", ("Yes.",))])
    turn = attempts.begin()
    assert turn.written == []  # this test gives its turns no history
    await turn.write("Yes.")
    await turn.end_message()
    assert [message.text for message in attempts.transcript] == ["Yes.", "Yes."]


# Going on after a park

Body = Callable[[Turn], Coroutine[Any, Any, object]]


async def other_message(turn: Turn) -> None:
    await turn.write("It is 10:01.")


async def longer_message(turn: Turn) -> None:
    await turn.write("It is 10:00 and a half.")


async def shorter_message(turn: Turn) -> None:
    await turn.write("It is")
    await turn.end_message()


async def other_kind(turn: Turn) -> None:
    async with turn.message(kind="reasoning") as thoughts:
        await thoughts.write("It is 10:00.")


async def other_call(turn: Turn) -> None:
    async with turn.tool("search", {"q": "coffee"}):
        raise AssertionError


async def other_result(turn: Turn) -> None:
    async with turn.tool("search", {"q": "tea"}) as call:
        call.result = 6


async def other_event(turn: Turn) -> None:
    await turn.emit("progress", {"percent": 41})


async def other_question(turn: Turn) -> None:
    await turn.ask("It is 10:01. Go on?")


async def other_sub_agent(turn: Turn) -> None:
    await turn.spawn("researcher", "Look again.")


async def caught(turn: Turn) -> str:
    try:
        await turn.emit("progress", {"percent": 41})
    except Exception:
        return "never mind"
    raise AssertionError


async def failing_call(turn: Turn) -> str:
    try:
        async with turn.tool("search", {"q": "tea"}):
            raise ValueError("no tea")
    except ValueError:
        return "never mind"


async def nothing(turn: Turn) -> None:
    """Returns without having come back."""


async def what_was_told(turn: Turn) -> None:
    await turn.write("It is 10:00.")
    async with turn.tool("search", {"q": "tea"}) as call:
        call.result = 5
    await turn.emit("progress", {"percent": 40})


@pytest.mark.parametrize(
    ("body", "now"),
    [
        (other_message, "now comes a message that goes on with 'It is 10:01.'"),
        (longer_message, "goes on with 'It is 10:00 and a half.'"),
        (shorter_message, "ends with 'It is'"),
        (other_kind, "a message of kind 'reasoning'"),
        (other_call, "a call of 'search'"),
        (other_result, "another result of 'search'"),
        (other_event, "the event 'data.progress'"),
        (other_question, "the question 'It is 10:01. Go on?'"),
        (other_sub_agent, "a sub-agent with the key 'researcher-"),
        (caught, "the event 'data.progress'"),
        (failing_call, "a failure of 'search'"),
        (nothing, "its end"),
    ],
)
async def test_a_turn_that_takes_another_way_after_a_park_fails_and_says_why(body: Body, now: str) -> None:
    attempts = Attempts()
    await what_was_told(attempts.begin())
    before = len(attempts.events)
    turn = attempts.begin(waited_for=("t1:q",))

    async def run() -> None:
        await body(turn)
        turn.returns()

    with pytest.raises(TurnDiverged) as told:
        await run()
    assert now in str(told.value)
    assert "waited for t1:q" in str(told.value)
    assert "belongs into turn.step" in str(told.value)
    assert len(attempts.events) == before, "nothing is doubled on the wrong way"
    with pytest.raises(TurnDiverged, match="waited for"):
        turn.returns()


async def test_after_it_has_come_back_what_differs_is_simply_new() -> None:
    attempts = Attempts()
    await what_was_told(attempts.begin())
    before = attempts.shown()
    turn = attempts.begin(waited_for=("t1:q", "t1.1"))
    await what_was_told(turn)
    assert attempts.shown() == before
    turn._retelling.reached("t1.1")
    await turn.write("And now for something completely different.")
    await turn.end_message()
    turn.returns()
    assert len(attempts.transcript.messages) == 2


async def test_the_error_names_what_was_expected() -> None:
    attempts = Attempts()
    await what_was_told(attempts.begin())
    with pytest.raises(TurnDiverged, match=r"not yet again: a message that begins with 'It is 10:00\.'"):
        await attempts.begin(waited_for=("t1:q",)).emit("other", {})
