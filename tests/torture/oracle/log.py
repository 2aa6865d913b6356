"""What holds of each session's log."""

from collections import defaultdict
from itertools import pairwise

from tests.torture.evidence import Evidence, FinalSession
from tests.torture.oracle.promises import Judged, promise
from tests.torture.screen import screen_of

TURN_ENDS = frozenset({"turn.completed", "turn.stopped", "turn.failed"})


@promise("A session can be read to its end, by every way.", "docs/http-api.md#get-sessionssession_idreplay")
def every_session_can_be_read(evidence: Evidence, judged: Judged) -> None:
    started = {line["session"] for line in evidence.noted("start") if line["status"] in (200, 201)}
    for session in evidence.final.sessions:
        if session.name in started:
            judged.holds(session.unreadable is None, f"{session.name}: {session.unreadable}")


@promise("seq is 1, 2, 3… and never repeats.", "docs/events.md")
def numbers_grow(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        for before, after in pairwise(event["seq"] for event in session.log):
            judged.holds(before < after, f"{session.name}: {after} follows {before}")


@promise("A number stands for one event, whoever reads it.", "docs/events.md")
def a_number_means_one_event(evidence: Evidence, judged: Judged) -> None:
    meant: dict[tuple[str, int], str] = {
        (session.name, event["seq"]): event["type"]
        for session in evidence.sessions.values()
        for event in session.log
    }
    for line in evidence.noted("read"):
        for block in line["blocks"]:
            if block[0] == "event":
                known = meant.setdefault((line["session"], block[1]), block[2])
                judged.holds(
                    known == block[2],
                    f"{line['session']}: {block[1]} is {known}, {line['actor']} saw {block[2]}",
                )
    for line in evidence.noted("replayed"):
        for seq, type_ in line["events"]:
            known = meant.setdefault((line["session"], seq), type_)
            judged.holds(known == type_, f"{line['session']}: {seq} is {known}, {line['actor']} read {type_}")


@promise(
    "Every turn ends with exactly one of turn.completed, turn.stopped, turn.failed.", "docs/events.md#turns"
)
def turns_end_once(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        begun, ended = set(), defaultdict(list)
        for event in session.log:
            if event["type"] in ("turn.queued", "turn.started", "agent.spawned"):
                begun.add(event["turn_id"])
            elif event["type"] in TURN_ENDS or event["type"] == "agent.finished":
                ended[event["turn_id"]].append(event["type"])
        for turn in begun | set(ended):
            whole = is_over(session) and "terminated" not in session.workflow.lower()
            fine = len(ended[turn]) == 1 or (not whole and len(ended[turn]) == 0)
            judged.holds(fine, f"{session.name} {turn}: ends {ended[turn]}")


@promise("Nothing follows session.closed, which comes once.", "docs/events.md#session")
def nothing_follows_the_end(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        types = [event["type"] for event in session.log]
        if types:
            judged.holds(types[0] == "session.started", f"{session.name}: begins with {types[0]}")
            judged.holds("session.closed" not in types[:-1], f"{session.name}: goes on after session.closed")


@promise("Messages and tool calls that are open when a turn ends are closed.", "docs/events.md#tools")
def what_is_opened_is_closed(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        open_: dict[tuple[str, str | None], str] = {}
        for event in session.log:
            turn, data = event.get("turn_id"), event.get("data", {})
            match event["type"]:
                case "message.started" | "message.delta":
                    open_["message", event["message_id"]] = str(turn)
                case "message.completed" | "message.superseded":
                    open_.pop(("message", event["message_id"]), None)
                case "tool.called":
                    open_["tool", f"{turn} {data.get('call_id')}"] = str(turn)
                case "tool.returned":
                    open_.pop(("tool", f"{turn} {data.get('call_id')}"), None)
                case "turn.completed" | "turn.stopped" | "turn.failed" | "agent.finished":
                    left = [key for key, owner in open_.items() if owner == turn]
                    judged.holds(not left, f"{session.name} {turn}: ended with {left} open")


@promise("Every API process reads the same log, which is the workflow's.", "docs/operations.md#processes")
def every_api_reads_the_same(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        whole = screen_of(session.log)
        own = [(event["seq"], event["type"]) for event in session.log]
        for api, replay in session.replays.items():
            read = [(event["seq"], event["type"]) for event in replay]
            judged.holds(read == own, f"{session.name}: the replay of {api} differs from the workflow's")
        for api, view in session.transcripts.items():
            shown = [[one["id"], one["by"]["id"], one["text"]] for one in view["messages"]
                     if one.get("status") != "superseded"]  # fmt: skip
            judged.holds(
                shown == whole.messages, f"{session.name}: the transcript of {api} differs from the log"
            )
            judged.holds(
                view["cursor"] == whole.cursor,
                f"{session.name}: {api} is at {view['cursor']}, not {whole.cursor}",
            )


@promise("The status shown is what the session is doing now.", "docs/http-api.md#get-sessionssession_id")
def the_status_is_true(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        for api, snapshot in session.snapshots.items():
            if is_over(session):
                judged.holds(
                    snapshot["status"] == "closed",
                    f"{session.name}: closed, but {api} says {snapshot['status']}",
                )


@promise("A snapshot says what the log says at its tip.", "docs/http-api.md#get-sessionssession_id")
def snapshots_match_the_log(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("look"):
        # Those who watch money look at mandates and payments, not at a session.
        session, answer = evidence.sessions.get(line.get("session", "")), line.get("answer") or {}
        if session is None or line["status"] != 200 or "status" not in answer or "tip" not in answer:
            continue
        expected = _status_at(session, answer["tip"])
        # A session that is being closed says so before the turns that it stops have ended.
        fine = answer["status"] == expected or (answer["status"] == "closed" != expected and is_over(session))
        judged.holds(fine, f"{session.name} at {answer['tip']}: {answer['status']}, by its log {expected}")


def _status_at(session: FinalSession, tip: int) -> str:
    busy: dict[str, str] = {}
    paused = False
    for event in session.log:
        if event["seq"] > tip:
            break
        match event["type"]:
            case "session.closed":
                return "closed"
            case "turn.queued":
                busy[event["turn_id"]] = "queued"
            case "turn.started" | "turn.resumed" | "agent.spawned":
                busy[event["turn_id"]] = "running"
            case "turn.waiting":
                busy[event["turn_id"]] = "waiting"
            case "stop.requested" if event.get("turn_id") in busy:
                busy[event["turn_id"]] = "stopping"
            case "turn.completed" | "turn.stopped" | "turn.failed" | "agent.finished":
                busy.pop(event["turn_id"], None)
            case "takeover.started":
                paused = True
            case "takeover.released":
                paused = False
    if paused:
        return "paused"
    waits = "waiting" in busy.values() and set(busy.values()) <= {"waiting", "queued"}
    return "waiting" if waits else "running" if busy else "idle"


def is_over(session: FinalSession) -> bool:
    """Returns whether the session has said that it is closed."""
    return bool(session.log) and session.log[-1]["type"] == "session.closed"
