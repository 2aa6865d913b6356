"""What the log refuses and what it keeps, beside the property in tests/client/test_transcripts.py."""

from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from waystation.agent.brief import brief
from waystation.models.events import Actor, EventType, Item, Role, Write
from waystation.models.refusals import MAX_OPEN_MESSAGES, MAX_OPEN_TOOLS, RefusalCode
from workflows.session.event_log import LogState
from workflows.session.log import SessionLog

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def write(
    turn_id: str | None, *items: tuple[str, str, dict[str, JsonValue]], writer: str = "w", by: str = "bot"
) -> Write:
    return Write(
        writer=writer,
        actor=Actor(id=by, role=Role.AGENT),
        turn_id=turn_id,
        attempt=1 if turn_id else 0,
        items=tuple(
            Item(n=n, type=kind, message_id=m, data=data) for n, (kind, m, data) in enumerate(items, 1)
        ),
    )


def test_a_message_that_ends_after_the_stop_says_nothing_that_was_not_on_screens() -> None:
    log = SessionLog()
    log.open_fence("t1", 1)
    log.accept(write("t1", ("message.delta", "m", {"offset": 0, "text": "shown"})), NOW)
    log.mute("t1")
    accepted = log.accept(
        write("t1", ("message.completed", "m", {"text": "shown, and much more"}), writer="again"), NOW
    )
    (completed,) = accepted.events
    assert completed.type == EventType.MESSAGE_COMPLETED
    assert completed.data["text"] == "shown"


def test_messages_that_one_writer_never_ends_do_not_keep_others_from_writing() -> None:
    log = SessionLog()
    left = [("message.started", f"left-{number}", {}) for number in range(MAX_OPEN_MESSAGES + 1)]
    assert log.accept(write(None, *left, by="cron"), NOW).refused == 1
    log.open_fence("t1", 1)
    accepted = log.accept(
        write("t1", ("message.delta", "m", {"offset": 0, "text": "heard"}), writer="t1"), NOW
    )
    assert [event.type for event in accepted.events] == ["message.started", "message.delta"]


def test_a_full_log_takes_nothing_of_writers_outside_turns_but_the_ends_of_their_messages() -> None:
    log = SessionLog()
    log.accept(write(None, ("message.delta", "m", {"offset": 0, "text": "begun"})), NOW)
    more = [
        ("data.x", "x", {}),
        ("tool.called", "x", {"call_id": "c", "name": "n"}),
        ("message.completed", "whole", {"text": "another"}),
        ("message.started", "new", {}),
    ]
    refused = log.accept(write(None, *more, writer="w2"), NOW, full=True)
    assert refused.codes == [RefusalCode.SESSION_FULL] * len(more)
    end = write(None, ("message.completed", "m", {"text": "begun, and much more"}), writer="w3")
    assert [event.data["text"] for event in log.accept(end, NOW, full=True).events] == ["begun"]


def test_what_an_agents_error_says_is_recorded_without_credentials() -> None:
    error = RuntimeError("POST /v1/tokens/spt_1N4Qx8Kd22 with Bearer abcdefgh12345678 was refused")
    assert brief(error) == "RuntimeError: POST /v1/tokens/[redacted] with Bearer [redacted] was refused"


def called(log: SessionLog) -> dict[JsonValue, JsonValue]:
    """What each tool call came to: its result or error; calls that are still open are missing."""
    return {
        event.data["call_id"]: event.data.get("error", event.data.get("result"))
        for event in log.state.events
        if event.type == EventType.TOOL_RETURNED
    }


@pytest.mark.parametrize(
    ("finish", "error"),
    [
        ("stopped", "the turn was stopped"),
        ("failed", "the turn failed"),
        ("completed", "no result was reported"),
        (None, "the attempt was given up"),
    ],
)
def test_a_tool_whose_end_was_never_reported_is_closed_with_its_turn(finish: str | None, error: str) -> None:
    log = SessionLog()
    log.open_fence("t1", 1)
    calls = [("tool.called", "x", {"call_id": name, "name": "search"}) for name in ("a", "b", "c")]
    log.accept(
        write("t1", *calls, ("tool.returned", "x", {"call_id": "b", "name": "search", "result": 2})), NOW
    )
    if finish == "stopped":
        log.mute("t1")
        late = ("tool.returned", "x", {"call_id": "a", "name": "search", "result": "too late"})
        assert log.accept(write("t1", late, writer="w2"), NOW).refused == 1
    log = SessionLog(LogState.model_validate_json(log.state.model_dump_json()))
    if finish:
        log.finish_turn("t1", NOW, finish)
    else:
        log.supersede_attempt("t1", NOW)
    assert called(log) == {"a": error, "b": 2, "c": error}
    assert log.finish_turn("t1", NOW, "failed") == [], "nothing is closed twice"


def test_a_turn_may_have_so_many_calls_open_and_closing_one_makes_room() -> None:
    log = SessionLog()
    log.open_fence("t1", 1)
    calls = [("tool.called", "x", {"call_id": str(n), "name": "search"}) for n in range(MAX_OPEN_TOOLS + 1)]
    assert log.accept(write("t1", *calls), NOW).refused == 1
    returned = ("tool.returned", "x", {"call_id": "0", "name": "search", "result": 0})
    again = ("tool.called", "x", {"call_id": "again", "name": "search"})
    assert log.accept(write("t1", returned, again, writer="w2"), NOW).refused == 0
    assert len(log.finish_turn("t1", NOW, "stopped")) == MAX_OPEN_TOOLS
