"""What holds of stops and steers: who asked, and what came of it."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.torture.evidence import Event, Evidence
from tests.torture.oracle.promises import Judged, promise
from tests.torture.record import Line


@promise("Nobody stopped, nothing stopped.", "docs/events.md#turns")
def nothing_stops_by_itself(evidence: Evidence, judged: Judged) -> None:
    asked = _asked_by_session(evidence)
    for session in evidence.sessions.values():
        for event in session.log:
            if event["type"] == "turn.stopped" or (
                event["type"] == "agent.finished" and event["data"].get("outcome") == "stopped"
            ):
                reason = event["data"].get("reason")
                known = _somebody_asked(reason, asked[session.name], session.log, event)
                judged.holds(
                    known, f"{session.name} {event['turn_id']}: stopped because of {reason!r}, by nobody"
                )


def _asked_by_session(evidence: Evidence) -> dict[str, dict[str, list[Line]]]:
    asked: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in evidence.noted("stop", "send", "takeover", "close", "temporal", "terminates"):
        asked[line["session"]][line["op"]].append(line)
    return asked


def _somebody_asked(
    reason: str | None, asked: dict[str, list[Line]], log: list[Event], stopped: Event
) -> bool:
    match reason:
        case "interrupted":
            return any((line.get("asked") or {}).get("on_busy") == "interrupt" for line in asked["send"])
        case "takeover":
            return bool(asked["takeover"])
        case "session_closed":
            return bool(asked["close"]) or any(line["did"] == "cancel" for line in asked["temporal"])
        case "parent_ended":
            parent = stopped["data"].get("parent_turn_id")
            return any(
                event.get("turn_id") == parent
                and (
                    event["type"].startswith("turn.") or event["type"] in ("agent.finished", "stop.requested")
                )
                for event in log
            )
        case _:
            by_api = any((line.get("asked") or {}).get("reason") == reason for line in asked["stop"])
            return by_api or any(f"stop {line['id']}" == reason for line in asked["temporal"])


@promise(
    "A stop that is answered 'stopped' has stopped its turn.", "docs/http-api.md#post-sessionssession_idstop"
)
def stops_are_recorded(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("stop"):
        session = evidence.sessions.get(line["session"])
        answer = line.get("answer") or {}
        if session is None or line["status"] != 200 or answer.get("outcome") != "stopped":
            continue
        turn, seq = answer.get("turn_id"), answer.get("seq")
        ends = [event for event in session.log if event["seq"] == seq]
        fine = (
            bool(ends)
            and ends[0].get("turn_id") == turn
            and ends[0]["type"] in ("turn.stopped", "agent.finished")
        )
        judged.holds(fine, f"{line['actor']}: {turn} was stopped at {seq}, where the log has {_brief(ends)}")


@promise(
    "After a stop the turn records only the end of its questions and messages, and its own.",
    "docs/events.md#control",
)
def a_stopped_turn_is_muted(evidence: Evidence, judged: Judged) -> None:
    allowed = {
        "message.completed",
        "tool.returned",
        "input.withdrawn",
        "turn.stopped",
        "agent.finished",
        "steer.expired",
        "stop.requested",
    }
    for session in evidence.sessions.values():
        stopped: set[str] = set()
        for event in session.log:
            turn = event.get("turn_id")
            if turn in stopped:
                fine = event["type"] in allowed or event["type"] in ("turn.completed", "turn.failed")
                judged.holds(fine, f"{session.name} {turn}: {event['seq']} {event['type']} after its stop")
            if event["type"] == "stop.requested" and turn:
                stopped.add(turn)


@promise("Every steer is consumed or expires.", "docs/events.md#control")
def steers_are_settled(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        if not session.log or session.log[-1]["type"] != "session.closed":
            continue
        settled = {
            event["data"].get("steer_id")
            for event in session.log
            if event["type"] in ("steer.consumed", "steer.expired")
        }
        for event in session.log:
            if event["type"] == "steer.received":
                judged.holds(event["data"]["steer_id"] in settled, f"{session.name}: {event['data']} is open")


def _brief(events: list[Event], pick: Callable[[Event], Any] = lambda event: event["type"]) -> list[Any]:
    return [pick(event) for event in events]
