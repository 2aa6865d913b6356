"""What holds of turns: how long they take, why they fail, and what a retry may repeat."""

import json
from collections import Counter, defaultdict
from typing import Any, Final

from tests.torture.evidence import Event, Evidence
from tests.torture.oracle.promises import Judged, promise
from tests.torture.scripts import steps_of

TURN_SECONDS: Final = 20.0
HEARTBEAT_SECONDS: Final = 4.0
STOP_GRACE_SECONDS: Final = 2.0
REPORT_SECONDS: Final = 10.0
"""What a stopped turn may take, beyond the grace, to report its end."""
MAX_ATTEMPTS: Final = 3
BUSY_SECONDS: Final = 15.0
"""What a loaded machine adds."""
COMEBACK_SECONDS: Final = 12.0
"""What a fault adds after its end: a process starts, connections are made again after their pauses."""
MATTER: Final = ("api", "worker", "wild", "raw", "temporal", "agents", "payloads")
"""What a turn and its end depend on; not Redis, nor how people reach the API."""
GETTING_ON_SECONDS: Final = 10.0
"""An agent that has noted something in this time before its turn's end did not hang."""
UNCOUNTED: Final = frozenset({"agent_restarted", "agent_unavailable"})
OWN_FAILURES: Final = frozenset({"raise", "exit", "interrupt", "odd_result"})
"""Ends of scripts by which a turn fails with ``agent_error``."""
BEGINS: Final = frozenset({"turn.started", "turn.retried", "turn.resumed", "agent.spawned"})
ENDS: Final = frozenset({"turn.completed", "turn.stopped", "turn.failed", "agent.finished"})


def _outcome(event: Event) -> dict[str, Any]:
    """What an end says: its outcome, and for a failure its code."""
    data = event.get("data", {})
    return {"outcome": data.get("outcome") or event["type"].partition(".")[2], **data}


def patience(evidence: Evidence, begin: float, end: float) -> float:
    """How much longer than usual something may take: while what it needs was away, or was coming back.

    What befell single connections takes no longer than a loaded machine may.
    """
    away, until = 0.0, begin
    for began, over, line in sorted(evidence.fault_times, key=lambda fault: fault[0]):
        if not line["mishap"] and line["target"].startswith(MATTER):
            back = min(over + COMEBACK_SECONDS, end)
            away += max(0.0, back - max(began, until))
            until = max(until, back)
    return BUSY_SECONDS + away


def _was_struck(evidence: Evidence, begin: float, end: float) -> bool:
    """Returns whether anything struck what turns depend on, or had just done so."""
    return any(
        line["target"].startswith(MATTER) and began <= end and begin <= over + COMEBACK_SECONDS
        for began, over, line in evidence.fault_times
    )


def _went_on(evidence: Evidence, session: str, turn: str, ended: float) -> bool:
    """Returns whether the turn's agent was still getting on with it: it was slow, and didn't hang."""
    return any(
        line["session"] == session
        and line["turn"] == turn
        and ended - GETTING_ON_SECONDS < line["at"] < ended
        for line in evidence.noted(
            "spawned", "flushed", "steered", "stepped", "learnt", "raised", "returned", "raw_done"
        )
    )


@promise(
    "Every attempt of a turn ends within the turn's time, whatever dies.",
    "docs/settings.md#limits-of-new-sessions",
)
def attempts_end_in_time(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        begun: dict[str, float] = {}
        for event in session.log:
            turn = event.get("turn_id")
            if event["type"] in BEGINS | ENDS | {"turn.waiting"} and turn in begun:
                began, ended = begun.pop(turn), evidence.moment(event["time"])
                bound = TURN_SECONDS + HEARTBEAT_SECONDS + patience(evidence, began, ended)
                judged.holds(
                    ended - began <= bound, f"{session.name} {turn}: an attempt took {ended - began:.0f} s"
                )
            if event["type"] in BEGINS and turn:
                begun[turn] = evidence.moment(event["time"])


@promise("A stopped turn ends within its grace, and what its report may take.", "docs/architecture.md#a-stop")
def stops_end_in_time(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        asked: dict[str, float] = {}
        for event in session.log:
            turn = event.get("turn_id")
            if event["type"] == "stop.requested" and turn:
                asked.setdefault(turn, evidence.moment(event["time"]))
            elif event["type"] in ENDS and turn in asked:
                began, ended = asked.pop(turn), evidence.moment(event["time"])
                bound = STOP_GRACE_SECONDS + REPORT_SECONDS + patience(evidence, began, ended)
                judged.holds(
                    ended - began <= bound, f"{session.name} {turn}: its stop took {ended - began:.0f} s"
                )


@promise(
    "At most one turn answers people at a time, and none while an operator has taken over.",
    "docs/events.md",
)
def one_turn_at_a_time(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        running: str | None = None
        paused = False
        for event in session.log:
            match event["type"]:
                case "turn.started":
                    fine = running is None and not paused
                    beside = running or "an operator"
                    judged.holds(fine, f"{session.name}: {event['turn_id']} begins beside {beside}")
                    running = event["turn_id"]
                case "turn.completed" | "turn.stopped" | "turn.failed" if event["turn_id"] == running:
                    running = None
                case "takeover.started":
                    paused = True
                case "takeover.released":
                    paused = False


@promise("Attempts are numbered 1, 2, 3…, and at most three of them count.", "docs/agents.md#retries")
def attempts_are_counted(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        last: dict[str, int] = defaultdict(lambda: 1)
        counted: Counter[str] = Counter()
        for event in session.log:
            if event["type"] in ("turn.retried", "turn.resumed"):
                turn, data = event["turn_id"], event["data"]
                judged.holds(
                    data["attempt"] == last[turn] + 1,
                    f"{session.name} {turn}: {data['attempt']} after {last[turn]}",
                )
                last[turn] = data["attempt"]
            if event["type"] == "turn.resumed":
                counted[turn] = 0  # what went wrong before a wait doesn't count after it
            elif event["type"] == "turn.retried":
                counted[turn] += data["code"] not in UNCOUNTED
                judged.holds(
                    counted[turn] < MAX_ATTEMPTS, f"{session.name} {turn}: retried {counted[turn]} times"
                )


@promise("A retried turn gets the sub-agents of its first attempt.", "docs/agents.md#sub-agents")
def spawns_are_not_repeated(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        spawned = Counter(
            (event["data"]["parent_turn_id"], event["data"]["key"])
            for event in session.log
            if event["type"] == "agent.spawned"
        )
        for (parent, key), times in spawned.items():
            judged.holds(times == 1, f"{session.name} {parent}: spawned {key} {times} times")


@promise("Agents' code alone makes a turn fail with agent_error.", "docs/errors.md#turns-that-fail")
def only_scripts_fail_turns(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        texts = texts_of_turns(session.log)
        for event in session.log:
            if event["type"] in ENDS and _outcome(event).get("code") == "agent_error":
                text = texts.get(event["turn_id"], "")
                detail = _outcome(event).get("detail")
                judged.holds(
                    _fails_by_itself(text), f"{session.name} {event['turn_id']}: failed with {detail}"
                )
            elif event["type"] in ENDS:
                judged.checked += 1


def texts_of_turns(log: list[Event]) -> dict[str, str]:
    said = {
        event["message_id"]: event["data"]["text"] for event in log if event["type"] == "message.completed"
    }
    texts = {
        event["turn_id"]: said.get(event["data"].get("message_id"), "")
        for event in log
        if event["type"] == "turn.started"
    }
    return texts | {
        event["turn_id"]: event["data"]["text"] for event in log if event["type"] == "agent.spawned"
    }


def _fails_by_itself(text: str) -> bool:
    return any(kind == "end" and more[0] in OWN_FAILURES for kind, *more in steps_of(text))


@promise(
    "Turns fail for documented reasons, and never because the turn is broken.",
    "docs/errors.md#turns-that-fail",
)
def failures_have_their_reasons(evidence: Evidence, judged: Judged) -> None:
    terminated = {(line["session"], line["turn"]) for line in evidence.noted("terminates")}
    for session in evidence.sessions.values():
        for event in session.log:
            if event["type"] not in ENDS or _outcome(event)["outcome"] != "failed":
                continue
            code, turn = _outcome(event).get("code"), event["turn_id"]
            what = f"{session.name} {turn}: {json.dumps(event['data'])[:300]}"
            match code:
                case "turn_lost":
                    judged.holds((session.name, turn) in terminated, what)
                case "turn_timeout":
                    ended = evidence.moment(event["time"])
                    slowed = _was_struck(evidence, ended - TURN_SECONDS, ended) or (
                        _went_on(evidence, session.name, turn, ended)
                    )
                    judged.holds("hang" in texts_of_turns(session.log).get(turn, "") or slowed, what)
                case _:
                    known = {
                        "agent_error",
                        "agent_lost",
                        "agent_retry",
                        "agent_unavailable",
                        "agent_restarted",
                        "payloads_unavailable",
                    }
                    judged.holds(code in known, what)
