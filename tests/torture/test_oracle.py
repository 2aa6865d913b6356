"""Each promise can be seen broken: an oracle that can't fail says nothing. Handmade records, one for each."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.torture.evidence import Evidence, Final, FinalSession
from tests.torture.oracle import PROMISES, judge
from tests.torture.plan import Actor, Plan
from tests.torture.record import Line
from tests.torture.test_oracle_money import BROKEN as BROKEN_WITH_MONEY
from tests.torture.test_oracle_questions import BROKEN as BROKEN_WITH_QUESTIONS

AGENT = {"id": "wild", "role": "agent"}
Event = dict[str, Any]


def event(seq: int, type_: str, turn: str | None = None, message: str | None = None, **data: Any) -> Event:
    return {
        "seq": seq, "type": type_, "actor": AGENT, "turn_id": turn, "message_id": message, "data": data,
        "time": f"2026-01-01T00:{seq // 60:02d}:{seq % 60:02d}.000Z",
    }  # fmt: skip


GOOD_LOG = (
    event(1, "session.started", agent="wild"),
    event(2, "message.completed", None, "m-1", text="Go on."),
    event(3, "turn.started", "t1", attempt=1),
    event(4, "tool.called", "t1", call_id="c", name="tool"),
    event(5, "tool.returned", "t1", call_id="c", name="tool"),
    event(8, "message.completed", "t1", "t1-1-1", text="hello", started=6),
    event(9, "turn.completed", "t1", attempt=1),
    event(10, "session.closed"),
)
READ = [
    *(["event", one["seq"], one["type"], one["turn_id"], one["message_id"]] for one in GOOD_LOG[:5]),
    ["live", "t1", "t1-1-1", 0, "hello"],
    *(["event", one["seq"], one["type"], one["turn_id"], one["message_id"]] for one in GOOD_LOG[5:]),
]
SCREEN = {
    "messages": [["m-1", "wild", "Go on."], ["t1-1-1", "wild", "hello"]],
    "events": [[one["seq"], one["type"]] for one in GOOD_LOG if not one["type"].startswith("message.")],
    "cursor": 10,
    "over": True,
}


def line(actor: str, operation: str, at: float = 1.0, **what: Any) -> Line:
    return {"at": at, "actor": actor, "op": operation, "session": "s", **what}


def asked(operation: str, status: int | None, **what: Any) -> Line:
    given = {"began": 0.5, "status": status, "proxied": False, "answer": {}, "asked": {}, "id": None, **what}
    return line("somebody", operation, **given)


SENT = asked("send", 202, id="m-1", asked={"text": "Go on."}, answer={"seq": 2, "turn_id": "t1"})


def evidence(*lines: Line, log: tuple[Event, ...] = GOOD_LOG, **changes: Any) -> Evidence:
    """A run with one session, in which all went well but for what is given."""
    read_at_the_end = {name: changes.pop(name) for name in ("replayed", "histories") if name in changes}
    transcript = {
        "messages": [
            {"id": "m-1", "by": AGENT, "text": "Go on."},
            {"id": "t1-1-1", "by": AGENT, "text": "hello"},
        ],
        "cursor": 10,
    }
    session = FinalSession(
        "s",
        log=list(log),
        replays={"api-1": list(changes.pop("replay", log))},
        transcripts={"api-1": transcript} if log == GOOD_LOG else {},
        snapshots={"api-1": {"status": changes.pop("status", "closed"), "tip": 10}},
        workflow="COMPLETED",
        unreadable=changes.pop("unreadable", None),
    )
    final = Final(sessions=[session], secrets={"key": "hunter2"}, **read_at_the_end)
    plan = Plan(1, 60.0, "sessions", (Actor("s/host", "host", 0.0, 60.0, "s"),))
    return Evidence(plan, [asked("start", 201), *lines], final, changes.pop("logs", {}))


def read(*blocks: list[Any]) -> Line:
    return line("device", "read", blocks=list(blocks))


def extended(*events: Event) -> tuple[Event, ...]:
    """The good log with something before its end, whose last events are numbered anew."""
    return (*GOOD_LOG[:-2], *events, *GOOD_LOG[-2:])


WELL = evidence(
    SENT,
    read(*READ),
    line("device", "screen", **SCREEN),
    line("wild-1", "flushed", turn="t1", attempt=1, said=["hello"]),
    line("wild-1", "returned", turn="t1", attempt=1),
    line("api-1", "terminated", seconds=0.5, fault=None),
    line("prober", "health", process="api-1", answered=10),
    line("prober", "memory", process="api-1", bytes=1_000),
)

BROKEN: dict[str, Callable[[], Evidence]] = {
    "every_session_can_be_read": lambda: evidence(unreadable="TimeoutError"),
    "numbers_grow": lambda: evidence(log=(*GOOD_LOG, event(10, "session.closed"))),
    "a_number_means_one_event": lambda: evidence(read(["event", 3, "turn.stopped", "t1", None])),
    "turns_end_once": lambda: evidence(log=extended(event(9, "turn.failed", "t1"))),
    "nothing_follows_the_end": lambda: evidence(log=(*GOOD_LOG, event(11, "turn.queued", "t2"))),
    "what_is_opened_is_closed": lambda: evidence(
        log=extended(event(9, "tool.called", "t1", call_id="d", name="tool"))
    ),
    "every_api_reads_the_same": lambda: evidence(replay=GOOD_LOG[:-1]),
    "snapshots_match_the_log": lambda: evidence(asked("look", 200, answer={"status": "idle", "tip": 4})),
    "the_status_is_true": lambda: evidence(status="running"),
    "screens_equal_the_log": lambda: evidence(
        line("device", "screen", **{**SCREEN, "messages": [["t1-1-1", "wild", "helo"]]})
    ),
    "devices_reach_the_end": lambda: evidence(read(*READ)),
    "events_arrive_in_order": lambda: evidence(read(READ[0], READ[0])),
    "text_follows_what_was_written_before": lambda: evidence(read(*READ[:4], READ[5])),
    "no_text_after_a_stop": lambda: evidence(
        read(*READ[:5], ["event", 7, "stop.requested", "t1", None], READ[5])
    ),
    "live_text_is_the_logs": lambda: evidence(read(["live", "t1", "t1-1-1", 0, "hullo"])),
    "nothing_stops_by_itself": lambda: evidence(
        log=(*GOOD_LOG[:-2], event(9, "turn.stopped", "t1"), GOOD_LOG[-1])
    ),
    "stops_are_recorded": lambda: evidence(
        asked("stop", 200, answer={"outcome": "stopped", "turn_id": "t1", "seq": 9})
    ),
    "a_stopped_turn_is_muted": lambda: evidence(
        log=extended(event(9, "stop.requested", "t1"), event(9, "data.progress", "t1"))
    ),
    "steers_are_settled": lambda: evidence(log=extended(event(9, "steer.received", "t1", steer_id="x"))),
    "accepted_messages_are_there_once": lambda: evidence(asked("send", 202, id="m-2", asked={"text": "?"})),
    "the_same_gets_the_same_answer": lambda: evidence(SENT, {**SENT, "answer": {"seq": 3, "turn_id": "t1"}}),
    "posted_events_are_there_once": lambda: evidence(
        asked("post", 200, id="p-1", asked={"items": [{"n": 1, "data": {"by": "p", "n": 1}}]})
    ),
    "nobody_exceeds_their_role": lambda: evidence(
        line(
            "attacker",
            "attacked",
            status=200,
            proxied=False,
            allowed=False,
            role="nobody",
            method="GET",
            where="/sessions",
        )
    ),
    "refusals_are_problems": lambda: evidence(
        asked("look", 404, told={"content-type": "text/html", "retry-after": None})
    ),
    "sockets_end_with_a_reason": lambda: evidence(
        line("device", "socket", code=1011, reason="internal-error")
    ),
    "no_internal_errors": lambda: evidence(asked("look", 500)),
    "flushed_text_is_there": lambda: evidence(
        line("wild-1", "flushed", turn="t1", attempt=1, said=["good", "bye"])
    ),
    "taken_steers_are_consumed": lambda: evidence(
        line("wild-1", "steered", turn="t1", attempt=1, steer="x"),
        line("wild-1", "returned", turn="t1", attempt=1),
    ),
    "acknowledged_items_are_there": lambda: evidence(
        line("raw-1", "raw_done", turn="t1", said={"t1-1-1": "bye"}, acknowledged=3, written=3, refused=[])
    ),
    "attempts_end_in_time": lambda: evidence(
        log=(*extended(event(9, "turn.queued", "t2"))[:-2], event(59 + 9, "turn.completed", "t1"))
    ),
    "stops_end_in_time": lambda: evidence(
        log=(*extended(event(9, "stop.requested", "t1"))[:-2], event(59 + 9, "turn.stopped", "t1"))
    ),
    "one_turn_at_a_time": lambda: evidence(log=(*GOOD_LOG[:6], event(9, "turn.started", "t2"))),
    "attempts_are_counted": lambda: evidence(
        log=extended(event(9, "turn.retried", "t1", attempt=3, code="agent_lost"))
    ),
    "spawns_are_not_repeated": lambda: evidence(
        log=extended(
            *(
                event(9, "agent.spawned", turn, parent_turn_id="t1", key="k", text="")
                for turn in ("t1.1", "t1.2")
            )
        )
    ),
    "only_scripts_fail_turns": lambda: evidence(
        log=(*GOOD_LOG[:-2], event(9, "turn.failed", "t1", code="agent_error"))
    ),
    "failures_have_their_reasons": lambda: evidence(
        log=(*GOOD_LOG[:-2], event(9, "turn.failed", "t1", code="turn_broken"))
    ),
    "the_same_has_the_same_outcome": lambda: evidence(
        *(asked("stop", 200, id="x", answer={"outcome": "stopped", "seq": seq}) for seq in (9, 10))
    ),
    "steers_count_once": lambda: evidence(asked("steer", 200, id="x", answer={"outcome": "consumed"})),
    "people_are_recorded": lambda: evidence(asked("takeover", 200, answer={"seq": 9})),
    "processes_live": lambda: evidence(line("api-1", "ended", expected=False, code=1, said="Segmentation")),
    "everything_comes_back": lambda: evidence(line("run", "never_calm", why="it has ended")),
    "sigterm_ends_in_time": lambda: evidence(line("api-1", "terminated", seconds=9.0, fault=None)),
    "health_is_quick": lambda: evidence(
        line("prober", "slow_health", process="api-1", seconds=2.0, lag=0.0, status=200)
    ),
    "histories_replay": lambda: evidence(replayed={"s@1": "Nondeterminism error"}),
    "payloads_are_encrypted": lambda: evidence(
        histories={"s@1": '{"events": [{"input": {"metadata": {"encoding": "anNvbi9wbGFpbg=="}}}]}'}
    ),
    "memory_is_bounded": lambda: evidence(line("prober", "memory", process="api-1", bytes=10**10)),
    "secrets_stay_secret": lambda: evidence(logs={"api-1": "the key is hunter2"}),
    "no_unexpected_errors": lambda: evidence(logs={"api-1": "Task exception was never retrieved"}),
    "actors_do_their_part": lambda: evidence(line("s/host", "actor_failed", traceback="KeyError")),
}


def test_every_promise_has_a_record_that_breaks_it() -> None:
    assert {*BROKEN, *BROKEN_WITH_MONEY, *BROKEN_WITH_QUESTIONS} == set(PROMISES)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_promise_is_seen(name: str) -> None:
    assert judge(BROKEN[name]())[name].broken


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_kept_promise_is_not_called_broken(name: str) -> None:
    assert judge(WELL)[name].violations == []


def test_a_message_that_is_sent_again_is_not_taken_by_somebody_else() -> None:
    refused = asked("send", 409, id="m-1", answer={"code": "message-id-taken", "detail": "It is taken."})
    assert judge(evidence(SENT, refused))["the_same_gets_the_same_answer"].broken


@pytest.mark.parametrize(("lag", "broken"), [(0.0, 1), (8.0, 1), (9.5, 0)])
def test_a_prober_that_gave_up_blames_the_process_unless_the_machine_had_no_time(
    lag: float, broken: int
) -> None:
    slow = line("prober", "slow_health", process="api-1", seconds=10.2, lag=lag, status="ReadTimeout")
    assert judge(evidence(slow), "health_is_quick")["health_is_quick"].broken == broken
