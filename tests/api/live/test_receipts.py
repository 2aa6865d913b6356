"""What writers are told is recorded is in the log, and what isn't they are told is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from api.errors import Invalid
from api.live.channels import check_item
from api.live.receipts import Author, Handed, Receipts, Settled, settle
from api.routes.ingest import PostedEvents
from tests.api.live.test_feeds import BOT, NOW
from waystation.models.events import EventType, Item, Write
from waystation.models.ingest import WriteFrame
from waystation.models.refusals import (
    MAX_OPEN_MESSAGES,
    MAX_OPEN_TOOLS,
    MAX_REFUSALS,
    MAX_REFUSALS_PER_WRITER,
    Receipt,
    Refusal,
    RefusalCode,
)
from waystation.models.sessions import LogReading
from workflows.session.event_log import LogState
from workflows.session.log import MAX_WRITERS, SessionLog


class Listener:
    """A writer that keeps what it is told of each of its items."""

    def __init__(self) -> None:
        self.recorded: set[int] = set()
        self.refused: dict[int, str] = {}

    def settle(self, settled: Settled) -> None:
        for refusal in settled.refused:
            self.refused |= dict.fromkeys(range(refusal.first, refusal.last + 1), refusal.code)
        if settled.recorded is not None:
            self.recorded |= set(range(1, settled.recorded + 1)) - set(self.refused)

    def lose(self, problem: Exception) -> None:
        raise problem


def run(first: int, last: int, author: Author | None = None, turn_id: str | None = None) -> Handed:
    return Handed("s", "w", turn_id, first, last, author or Listener())


def item(n: int, kind: str, message: str | None = None, **data: JsonValue) -> Item:
    return Item(n=n, type=kind, message_id=message, data=data)


def write(*items: Item, turn_id: str | None = None) -> Write:
    return Write(writer="w", actor=BOT, turn_id=turn_id, attempt=1 if turn_id else 0, items=items)


def told(log: SessionLog, written: Write, *, closed: bool = False) -> Listener:
    """Hands a write to the log and returns what its author is told."""
    log.accept(written, NOW)
    listener, receipts = Listener(), Receipts()
    receipts.add([run(written.items[0].n, written.items[-1].n, listener, written.turn_id)])
    asked, (writer,) = receipts.begin_reading()
    receipts.read(asked, reading(log, writer, closed=closed))
    return listener


def reading(log: SessionLog, *writers: str, closed: bool = False) -> LogReading:
    return LogReading(
        page=log.replay(log.tip, 1, closed=closed),
        receipts={writer: log.receipt(writer) for writer in writers},
        forgotten=log.state.forgotten,
    )


@given(
    good=st.lists(st.booleans(), min_size=1, max_size=40),
    batches=st.lists(st.tuples(st.integers(0, 39), st.integers(1, 12)), min_size=1, max_size=12),
)
def test_every_item_is_recorded_or_refused_however_often_and_however_batched_it_comes(
    good: list[bool], batches: list[tuple[int, int]]
) -> None:
    items = [item(n, "data.x" if fine else "bad.type", mark=n) for n, fine in enumerate(good, 1)]
    log, listener, receipts, reached = SessionLog(), Listener(), Receipts(), 0
    for back, size in [*batches, (0, len(items))]:
        batch = items[max(reached - back, 0) : reached + size]
        if not batch:
            continue
        reached = max(reached, batch[-1].n)
        log.accept(write(*batch), NOW)
        # A session continues as new at any time.
        log = SessionLog(LogState.model_validate_json(log.state.model_dump_json()))
        receipts.add([run(batch[0].n, batch[-1].n, listener)])
        asked, _ = receipts.begin_reading()
        receipts.read(asked, reading(log, "w"))
        assert listener.recorded == {event.data["mark"] for event in log.state.events}
        assert listener.recorded | set(listener.refused) == set(range(1, reached + 1))
        assert not listener.recorded & set(listener.refused)


def test_what_was_taken_after_the_log_was_asked_waits_for_the_next_reading() -> None:
    listener, receipts = Listener(), Receipts()
    receipts.add([run(1, 2, listener)])
    asked, _ = receipts.begin_reading()
    receipts.add([run(3, 4, listener)])
    log = SessionLog(LogState(writers={"w": 2}))
    receipts.read(asked, reading(log, "w"))
    assert (listener.recorded, listener.refused, receipts.awaited) == ({1, 2}, {}, True)


@pytest.mark.parametrize(
    ("closed", "turn_id", "code"),
    [
        (True, "t1", RefusalCode.SESSION_CLOSED),
        (False, "t1", RefusalCode.TURN_OVER),
        (False, None, RefusalCode.NOT_RECORDED),
    ],
)
def test_what_a_reading_knows_nothing_of_was_refused(
    closed: bool, turn_id: str | None, code: RefusalCode
) -> None:
    settled = settle(run(1, 3, turn_id=turn_id), Receipt(), closed=closed)
    assert settled == Settled(3, None, (Refusal(first=1, last=3, code=code),))


@given(st.lists(st.integers(0, 2), max_size=12), st.booleans())
def test_what_is_open_is_not_opened_again(openings: list[int], call: bool) -> None:
    """Once in the log, however often it is opened; whoever opens the same again is told that it is there."""
    kind = EventType.TOOL_CALLED if call else EventType.MESSAGE_STARTED
    items = [
        item(n, kind, None if call else "m", **({"call_id": "a", "name": "x"} if call else {}), mark=mark)
        for n, mark in enumerate(openings, 1)
    ]
    log = SessionLog()
    log.open_fence("t1", 1)
    for one in items:
        told(log, write(one, turn_id="t1"))
        log = SessionLog(LogState.model_validate_json(log.state.model_dump_json()))
    events = [event.data["mark"] for event in log.state.events]
    assert events == openings[:1]
    refused = {n for each in log.receipt("w").refused for n in range(each.first, each.last + 1)}
    assert refused == {n for n, mark in enumerate(openings, 1) if mark != openings[0]}


def test_runs_that_have_opened_a_call_twice_are_replayed_so() -> None:
    log = SessionLog(opens_once=lambda: False)
    log.open_fence("t1", 1)
    call = item(1, "tool.called", call_id="a", name="search")
    told(log, write(call, call.model_copy(update={"n": 2}), turn_id="t1"))
    assert [event.type for event in log.state.events] == [EventType.TOOL_CALLED] * 2


def test_what_a_writer_had_recorded_before_it_was_forgotten_is_not_reported_as_refused() -> None:
    log, receipts, listeners = SessionLog(), Receipts(), {}
    posted = [
        Write(writer=f"cron-{n}", actor=BOT, turn_id=None, attempt=0, items=(item(1, "data.x"),))
        for n in range(2 * MAX_WRITERS)
    ]
    for write_ in posted:
        log.accept(write_, NOW)
        listeners[write_.writer] = listener = Listener()
        receipts.add([Handed("s", write_.writer, None, 1, 1, listener)])
    while receipts.awaited:
        asked, writers = receipts.begin_reading()
        receipts.read(asked, reading(log, *writers))
    assert len(log.state.writers) == MAX_WRITERS
    assert all((each.recorded, each.refused) == ({1}, {}) for each in listeners.values())
    # Nobody was forgotten since: what the log knows nothing of now, it has not taken.
    receipts.add([Handed("s", "unheard", None, 1, 1, late := Listener())])
    asked, writers = receipts.begin_reading()
    receipts.read(asked, reading(log, *writers))
    assert late.refused == {1: RefusalCode.NOT_RECORDED}


def _open(count: int) -> list[Item]:
    return [item(n, "message.started", f"m{n}") for n in range(1, count + 1)]


def _called(count: int) -> list[Item]:
    return [item(n, "tool.called", call_id=str(n), name="search") for n in range(1, count + 1)]


MALFORMED = [
    item(1, "message.started"),
    item(1, "message.completed", text="to whom"),
    item(1, "message.completed", "m", text=5),
    item(1, "message.completed", "m", text=None),
    *(
        item(1, kind, **data)
        for kind in ("tool.called", "tool.returned")
        for data in (
            {},
            {"call_id": "a"},
            {"name": "a"},
            {"call_id": 1, "name": "a"},
            {"call_id": "", "name": "a"},
        )
    ),
    item(1, "tool.called", call_id="a", name=None),
    item(1, "steer.consumed", steer_id=7),
]

REFUSED: list[tuple[str, list[Item], dict[int, RefusalCode]]] = [
    (
        "a gap",
        [item(1, "message.delta", "m", offset=4, text="x"), item(2, "data.x")],
        {1: RefusalCode.GAP},
    ),
    (
        "a gap in a message",
        [
            item(1, "message.delta", "m", offset=0, text="ab"),
            item(2, "message.delta", "m", offset=3, text="x"),
        ],
        {2: RefusalCode.GAP},
    ),
    ("messages", _open(MAX_OPEN_MESSAGES + 2), dict.fromkeys((201, 202), RefusalCode.TOO_MANY_MESSAGES)),
    ("calls", _called(MAX_OPEN_TOOLS + 1), {201: RefusalCode.TOO_MANY_TOOLS}),
    ("no such message", [item(1, "message.completed", "m")], {1: RefusalCode.UNKNOWN_MESSAGE}),
    (
        "over",
        [item(1, "message.completed", "m", text="a"), item(2, "message.delta", "m", offset=1, text="b")],
        {2: RefusalCode.MESSAGE_OVER},
    ),
    (
        "a message twice",
        [
            item(1, "message.started", "m", mark=1),
            item(2, "message.started", "m", mark=1),
            item(3, "message.delta", "m", offset=0, text="a"),
            item(4, "message.started", "m", mark=1),
            item(5, "message.started", "m"),
            item(6, "message.completed", "m"),
            item(7, "message.started", "m", mark=1),
        ],
        dict.fromkeys((5, 7), RefusalCode.MESSAGE_ID_TAKEN),
    ),
    (
        "a call twice",
        [
            item(1, "tool.called", call_id="a", name="search", arguments=[1]),
            item(2, "tool.called", call_id="a", name="search", arguments=[1]),
            item(3, "tool.called", call_id="a", name="search", arguments=[2]),
            item(4, "tool.called", call_id="a", name="read", arguments=[1]),
            item(5, "tool.returned", call_id="a", name="search", result=1),
            item(6, "tool.returned", call_id="a", name="search", result=1),
        ],
        {3: RefusalCode.CALL_ID_TAKEN, 4: RefusalCode.CALL_ID_TAKEN, 6: RefusalCode.UNKNOWN_CALL},
    ),
    ("type", [item(1, "turn.completed"), item(2, "data.x")], {1: RefusalCode.BAD_TYPE}),
    ("size", [item(1, "data.x", big="x" * 70_000)], {1: RefusalCode.DATA_TOO_LARGE}),
    ("no steer", [item(1, "steer.consumed"), item(2, "data.x")], {1: RefusalCode.BAD_ITEM}),
    *((f"malformed {one.type} {one.data}", [one], {1: RefusalCode.BAD_ITEM}) for one in MALFORMED),
    (
        "no such call",
        [
            item(1, "tool.called", call_id="a", name="search"),
            *(
                item(n, "tool.returned", call_id=call, name="search")
                for n, call in ((2, "b"), (3, "a"), (4, "a"))
            ),
        ],
        dict.fromkeys((2, 4), RefusalCode.UNKNOWN_CALL),
    ),
]


@pytest.mark.parametrize(("items", "refused"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refused_item_is_named_and_costs_no_other(
    items: list[Item], refused: dict[int, RefusalCode]
) -> None:
    log = SessionLog()
    log.open_fence("t1", 1)
    for _ in range(2):  # the same again, after a lost connection, gets the same answer
        listener = told(log, write(*items, turn_id="t1"))
        assert listener.refused == refused
        assert listener.recorded == {one.n for one in items} - set(refused)
    assert log.state.refused == len(refused)


@pytest.mark.parametrize("malformed", MALFORMED)
def test_what_the_log_would_refuse_as_malformed_is_refused_before_with_its_place(malformed: Item) -> None:
    with pytest.raises(Invalid, match=r"(message_id|data\.\w+): ") as refused:
        check_item(malformed)
    assert refused.value.code == "bad-item"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_item_carries_what_json_does_not_know(number: float) -> None:
    with pytest.raises(Invalid, match="NaN"):
        check_item(item(1, "data.x", deep=[number]))


@pytest.mark.parametrize("numbers", [(2, 1), (1, 1), (1, 3, 2)])
def test_items_out_of_order_are_refused_not_taken_for_repeats(numbers: tuple[int, ...]) -> None:
    items = [{"n": n, "type": "data.x"} for n in numbers]
    for model, more in ((PostedEvents, {}), (WriteFrame, {"op": "write"})):
        with pytest.raises(ValidationError, match="must grow"):
            model.model_validate({"writer": "w", "items": items, **more})


def test_a_steer_of_which_the_session_knows_nothing_is_refused() -> None:
    log = SessionLog()
    taken = log.accept(write(item(1, "steer.consumed", steer_id="s")), NOW, lambda steer_id: False)
    assert taken.codes == [RefusalCode.UNKNOWN_STEER]


def test_a_stopped_turn_is_told_what_does_not_count() -> None:
    log = SessionLog()
    log.open_fence("t1", 1)
    log.accept(write(item(1, "message.delta", "m", offset=0, text="a"), turn_id="t1"), NOW)
    log.mute("t1")
    late = [
        item(2, "message.delta", "m", offset=1, text="b"),
        item(3, "tool.called", call_id="1", name="search"),
        item(4, "message.completed", "m"),
    ]
    listener = told(log, write(*late, turn_id="t1"))
    assert listener.refused == {3: RefusalCode.TURN_STOPPED}
    log.close_fence("t1")
    assert told(log, write(item(5, "data.x"), turn_id="t1")).refused == {5: RefusalCode.TURN_OVER}


def test_a_writer_of_whom_too_much_is_refused_writes_nothing_more() -> None:
    log = SessionLog()
    count = 2 * MAX_REFUSALS_PER_WRITER + 10
    items = [item(n, "data.x" if n % 2 else "bad.type") for n in range(1, count + 1)]
    listener = told(log, write(*items))
    assert len(log.receipt("w").refused) == MAX_REFUSALS_PER_WRITER + 1
    assert len(log.state.events) == len(listener.recorded) == MAX_REFUSALS_PER_WRITER
    assert len(listener.recorded | set(listener.refused)) == count


def test_what_a_session_remembers_of_refusals_is_bounded_and_honest_writers_go_on() -> None:
    log = SessionLog()
    items = [item(n, "data.x" if n % 2 else "bad.type") for n in range(1, 2 * MAX_REFUSALS_PER_WRITER)]
    for number in range(MAX_REFUSALS // MAX_REFUSALS_PER_WRITER + 3):
        log.accept(Write(writer=f"faulty-{number}", actor=BOT, items=tuple(items)), NOW)
    remembered = sum(map(len, log.state.refusals.values()))
    assert remembered <= MAX_REFUSALS + 2 * len(log.state.refusals)
    honest = told(log, write(item(1, "data.x"), item(2, "data.x")))
    assert not honest.refused


@pytest.mark.parametrize(
    "more", [{"reply_to": "somebody's workflow"}, {"schema": {"$ref": "https://elsewhere.example"}}]
)
def test_a_question_reaches_no_further_than_its_session(more: dict[str, JsonValue]) -> None:
    asked = item(1, "input.requested", question_id="q", prompt="Why?", **more)
    with pytest.raises(Invalid) as refused:
        check_item(asked)
    assert refused.value.code == "bad-question"
