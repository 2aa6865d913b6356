"""Each promise about questions can be seen broken: records of a turn that asked, waited and went on."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.torture.evidence import Evidence, Final, FinalSession
from tests.torture.oracle import judge
from tests.torture.plan import Plan
from tests.torture.record import Line

Json = dict[str, Any]
SCRIPT = [
    ["say", 1, ["Hello. "], 0], ["step", 2, 0, True], ["guarded", 3, "order"],
    ["ask", 4, "text", True, 60], ["end", "nothing"],
]  # fmt: skip
SAID = '[2 step abc][3 approved: {"n": 3}][4: "wool"]'
APPROVAL: Json = {
    "question_id": "t1:q3", "kind": "approval", "prompt": "Allow order?", "tool": "order",
    "arguments": {"n": 3}, "digest": "sha256:1",
}  # fmt: skip
QUESTION: Json = {
    "question_id": "t1:q4", "kind": "question", "prompt": "4: what?", "digest": "sha256:2",
    "deadline": "2026-01-01T00:01:00.000Z",
}  # fmt: skip


def event(seq: int, type_: str, by: str = "asker", message: str | None = None, **data: Any) -> Json:
    roles = {"asker": "agent", "waystation": "system"}
    turn = None if type_.startswith("session.") or message == "m-1" else "t1"
    return {
        "seq": seq, "type": type_, "actor": {"id": by, "role": roles.get(by, "user")}, "turn_id": turn,
        "message_id": message, "data": data, "time": f"2026-01-01T00:00:{seq:02d}.000Z",
    }  # fmt: skip


LOG = (
    event(1, "session.started", agent="asker"),
    event(2, "message.completed", "ada", "m-1", text=json.dumps(SCRIPT)),
    event(3, "turn.started", attempt=1, message_id="m-1"),
    event(4, "message.completed", message="t1-1-1", text="Hello. ", started=4),
    event(5, "tool.called", call_id="s", name="Step 2", kind="step"),
    event(6, "tool.returned", call_id="s", name="Step 2"),
    event(7, "input.requested", **APPROVAL),
    event(8, "turn.waiting", attempt=1, waiting_for=["t1:q3"]),
    event(9, "input.answered", "ada", question_id="t1:q3", value={"decision": "approve"}, digest="sha256:1"),
    event(10, "turn.resumed", attempt=2),
    event(11, "tool.called", call_id="c", name="order", arguments={"n": 3}),
    event(12, "tool.returned", call_id="c", name="order", result={"n": 3}),
    event(13, "input.requested", **QUESTION),
    event(14, "input.answered", "bob", question_id="t1:q4", value="wool"),
    event(15, "message.completed", message="t1-2-1", text=SAID, started=15),
    event(16, "turn.completed", attempt=2),
    event(17, "session.closed"),
)


def line(actor: str, operation: str, **what: Any) -> Line:
    return {"at": 1.0, "actor": actor, "op": operation, "session": "s", **what}


def answered(actor: str, question: str, value: Any, status: int | None, **answer: Any) -> Line:
    given = {"began": 0.5, "proxied": False, "id": question, "asked": {"value": value}}
    return line(actor, "answer", status=status, answer=answer, **given)


LINES = (
    line("host", "start", began=0.1, status=201, proxied=False, asked={"approval_rules": []}, answer={}),
    answered("ada", "t1:q3", {"decision": "approve"}, 200, seq=9),
    answered("bob", "t1:q4", "wool", 200, seq=14),
    answered(
        "ada", "t1:q4", "silk", 409,
        settled={"outcome": "answered", "actor": {"id": "bob"}, "value": "wool", "seq": 14},
    ),
    line("wild-1", "stepped", turn="t1", attempt=1, key="step-2", value="abc"),
    line("wild-1", "step_returned", turn="t1", attempt=1, key="step-2", value="abc"),
    line("wild-2", "step_returned", turn="t1", attempt=2, key="step-2", value="abc"),
    line("wild-2", "learnt", turn="t1", attempt=2, prompt="4: what?", value="wool"),
)  # fmt: skip


def evidence(
    *more: Line,
    log: tuple[Json, ...] = LOG,
    without: tuple[int, ...] = (),
    change: dict[int, Json] | None = None,
) -> Evidence:
    """A run in which all went well, but for these lines and events, and changes to the data of others."""
    events = [deepcopy(one) for one in log if one["seq"] not in without]
    for one in events:
        changed = (change or {}).get(one["seq"], {})
        one["data"] |= {name: value for name, value in changed.items() if name != "time"}
        one["time"] = changed.get("time", one["time"])
    session = FinalSession("s", log=events, workflow="COMPLETED")
    return Evidence(Plan(1, 60.0, "sessions"), [*LINES, *more], Final(sessions=[session]))


def with_event(at: int, type_: str, by: str = "asker", **data: Any) -> tuple[Json, ...]:
    """Returns the log with one more event after the one of this number."""
    return (*LOG[:at], event(at, type_, by, **data), *LOG[at:])


WITH_RULE = {"asked": {"approval_rules": [{"tool": "order", "policy": "deny"}]}}
BROKEN: dict[str, list[Callable[[], Evidence]]] = {
    "questions_are_settled_once": [
        lambda: evidence(without=(14,)),
        lambda: evidence(log=with_event(14, "input.expired", "waystation", question_id="t1:q4")),
        lambda: evidence(log=with_event(7, "input.requested", **APPROVAL)),
    ],
    "the_first_answer_counts": [
        lambda: evidence(answered("ada", "t1:q4", "silk", 200, seq=14)),
        lambda: evidence(
            answered(
                "ada", "t1:q4", "silk", 409,
                settled={"outcome": "answered", "actor": {"id": "eve"}, "value": "wool", "seq": 14},
            )
        ),
        lambda: evidence(without=(14,)),
    ],
    "answers_were_given": [
        lambda: evidence(change={14: {"value": "jute"}}),
        lambda: evidence(
            answered("eve", "t1:q4", "jute", 403),
            log=(*LOG[:13], event(14, "input.answered", "eve", question_id="t1:q4", value="jute"), *LOG[14:]),
        ),
    ],
    "answers_reach_their_turn": [
        lambda: evidence(
            line("wild-2", "learnt", turn="t1", attempt=2, prompt="4: what?", value="silk")
        ),
    ],
    "waiting_turns_go_on": [
        lambda: evidence(without=(10,)),
        lambda: evidence(without=(9,)),
        lambda: evidence(change={10: {"attempt": 3}}),
        lambda: evidence(without=(9, 10, *range(11, 17))),
    ],
    "recorded_steps_do_not_run_again": [
        lambda: evidence(line("wild-2", "stepped", turn="t1", attempt=2, key="step-2", value="def")),
        lambda: evidence(line("wild-2", "step_returned", turn="t1", attempt=2, key="step-2", value="def")),
        lambda: evidence(line("wild-2", "stepped", turn="t1", attempt=1, key="step-2", value="def")),
    ],
    "retelling_shows_no_seam": [
        lambda: evidence(change={15: {"text": "Hello. " + SAID}}),
        lambda: evidence(change={15: {"text": SAID[:-1]}}),
        lambda: evidence(change={15: {"text": SAID.replace("abc", "def")}}),
        lambda: evidence(log=with_event(12, "tool.returned", call_id="d", name="order", result={"n": 3})),
        lambda: evidence(without=(11, 12)),
    ],
    "deadlines_hold": [
        lambda: evidence(change={14: {"time": "2026-01-01T00:01:01.000Z"}}),
        lambda: evidence(
            log=(*LOG[:13], event(14, "input.expired", "waystation", question_id="t1:q4"), *LOG[14:])
        ),
        lambda: evidence(
            log=(*LOG[:13], event(14, "input.expired", "waystation", question_id="t1:q4"), *LOG[14:]),
            change={14: {"time": "2026-01-01T00:05:00.000Z"}},
        ),
    ],
    "approvals_have_the_digest": [
        lambda: evidence(change={9: {"digest": None}}),
        lambda: evidence(change={9: {"digest": "sha256:2"}}),
    ],
    "rules_decide": [
        lambda: evidence(line("host", "start", status=201, **WITH_RULE)),
        lambda: evidence(change={9: {"rule": 0}}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_promise_is_seen(name: str) -> None:
    for number, broken in enumerate(BROKEN[name]):
        assert judge(broken(), name)[name].broken, f"record {number}"


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_kept_promise_is_not_called_broken(name: str) -> None:
    judged = judge(evidence(), name)[name]
    assert judged.violations == []
    assert judged.checked


def test_a_turn_that_was_stopped_may_have_told_less() -> None:
    stopped = event(16, "turn.stopped", reason="enough")
    log = (*LOG[:14], stopped, LOG[16])
    assert judge(evidence(log=log), "retelling_shows_no_seam")["retelling_shows_no_seam"].violations == []


def test_what_an_attempt_that_was_given_up_has_run_is_no_repetition() -> None:
    late = line("wild-1", "stepped", turn="t1", attempt=1, key="step-5", value="def")
    later = line("wild-2", "stepped", turn="t1", attempt=2, key="step-5", value="ghi")
    returned = line("wild-2", "step_returned", turn="t1", attempt=2, key="step-5", value="ghi")
    name = "recorded_steps_do_not_run_again"
    assert judge(evidence(later, returned, late), name)[name].violations == []
