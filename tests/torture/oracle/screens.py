"""What holds of each device's screen, while it reads and at the end."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tests.torture.evidence import Event, Evidence
from tests.torture.oracle.log import is_over
from tests.torture.oracle.promises import Judged, promise
from tests.torture.screen import screen_of

Block = list[Any]
WRITTEN = (
    "tool.",
    "data.",
    "steer.consumed",
    "turn.started",
    "turn.retried",
    "turn.resumed",
    "agent.spawned",
    "input.requested",
)
"""What a turn's text has to wait for: what the turn has written itself, and its beginning."""
STOPPED = frozenset({"stop.requested", "turn.completed", "turn.stopped", "turn.failed", "agent.finished"})


def blocks_of(evidence: Evidence) -> dict[tuple[str, str], list[Block]]:
    """Returns everything that each device has read, in order, by session and device."""
    found: dict[tuple[str, str], list[Block]] = defaultdict(list)
    for line in evidence.noted("read"):
        found[line["session"], line["actor"]] += line["blocks"]
    return found


@promise(
    "Every screen ends with the whole log, character by character, in its order.",
    "docs/architecture.md#a-reconnect",
)
def screens_equal_the_log(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("screen"):
        session = evidence.sessions.get(line["session"])
        if session is None or not is_over(session):
            continue
        whole = screen_of(session.log)
        differs = next(
            (f"{mine} is {theirs} in the log"
             for mine, theirs in zip(line["messages"], whole.messages, strict=False) if mine != theirs),
            f"{len(line['messages'])} messages, {len(whole.messages)} in the log",
        )  # fmt: skip
        judged.holds(line["messages"] == whole.messages, f"{line['actor']}: {differs}")
        seen = [tuple(event) for event in line["events"]]
        missing, more = set(whole.events) - set(seen), set(seen) - set(whole.events)
        judged.holds(
            seen == whole.events,
            f"{line['actor']}: lacks {sorted(missing)[:5]}, has {sorted(more)[:5]} besides",
        )


@promise("A device that stays reads a closed session to its end.", "docs/browsers.md")
def devices_reach_the_end(evidence: Evidence, judged: Judged) -> None:
    shown = {line["actor"] for line in evidence.noted("screen")}
    failed = {line["actor"] for line in evidence.noted("actor_failed")}
    for name, actor in blocks_of(evidence):
        session = evidence.sessions.get(name)
        if session is not None and is_over(session) and actor not in failed:
            judged.holds(actor in shown, f"{actor}: never came to the end of {name}")


@promise("Durable events arrive once, in order.", "docs/browsers.md#reading")
def events_arrive_in_order(evidence: Evidence, judged: Judged) -> None:
    for (_, actor), blocks in blocks_of(evidence).items():
        last = 0
        for block in blocks:
            match block:
                case ["event", seq, type_, *_]:
                    judged.holds(seq > last, f"{actor}: {seq} {type_} after {last}")
                    last = max(last, seq)
                case ["cursor", seq] | ["transcript", seq]:
                    last = max(last, seq)
                case ["anew"]:
                    last = 0


@promise("Live text never appears before what was written before it.", "docs/ingest.md#order")
def text_follows_what_was_written_before(evidence: Evidence, judged: Judged) -> None:
    before = {name: dict(_last_before(session.log)) for name, session in evidence.sessions.items()}
    for (name, actor), blocks in blocks_of(evidence).items():
        cursor = 0
        for block in blocks:
            match block:
                case ["event", seq, *_] | ["cursor", seq] | ["transcript", seq]:
                    cursor = max(cursor, seq)
                case ["anew"]:
                    cursor = 0
                case ["live", turn, message, *_]:
                    seq = before.get(name, {}).get(message)
                    if seq is not None:
                        judged.holds(
                            cursor >= seq,
                            f"{actor}: text of {message} ({turn}) at {cursor}, before event {seq}",
                        )


def _last_before(log: list[Event]) -> Iterator[tuple[str, int]]:
    """Yields for each message the last that its turn had written, other than messages, before it began."""
    of_turn: dict[str, list[int]] = defaultdict(list)
    for event in log:
        type_, data = event["type"], event.get("data", {})
        if type_ == "agent.spawned":
            of_turn[data["parent_turn_id"]].append(event["seq"])
        if type_.startswith(WRITTEN) and event.get("turn_id"):
            of_turn[event["turn_id"]].append(event["seq"])
    for event in log:
        if event["type"] == "message.completed" and "started" in event["data"] and event.get("turn_id"):
            earlier = [seq for seq in of_turn[event["turn_id"]] if seq < event["data"]["started"]]
            yield event["message_id"], max(earlier, default=0)


@promise("No character of a turn is shown after its stop, or its end.", "docs/architecture.md#a-stop")
def no_text_after_a_stop(evidence: Evidence, judged: Judged) -> None:
    for (_, actor), blocks in blocks_of(evidence).items():
        over: dict[str, str] = {}
        for block in blocks:
            match block:
                case [
                    "event",
                    seq,
                    "stop.requested"
                    | "turn.completed"
                    | "turn.stopped"
                    | "turn.failed"
                    | "agent.finished" as type_,
                    str(turn),
                    *_,
                ]:
                    over[turn] = f"{seq} {type_}"
                case ["anew"]:
                    over = {}
                case ["live", turn, message, offset, _]:
                    judged.holds(
                        turn not in over, f"{actor}: text of {message} at {offset} after {over.get(turn)}"
                    )


@promise("What was shown live is what is in the log.", "docs/architecture.md#a-token-from-agent-to-screen")
def live_text_is_the_logs(evidence: Evidence, judged: Judged) -> None:
    texts = {
        (session.name, event["message_id"]): event["data"]
        for session in evidence.sessions.values()
        for event in session.log
        if event["type"] == "message.completed"
    }
    for (name, actor), blocks in blocks_of(evidence).items():
        for block in blocks:
            if block[0] != "live" or (name, block[2]) not in texts:
                continue
            data, offset, text = texts[name, block[2]], block[3], block[4]
            if offset > len(data["text"]):
                continue  # it waits for what never came, and is on no screen
            logged = data["text"][offset : offset + len(text)]
            # What ended early may lack what only screens had, when the process that wrote it died.
            same = logged == text if "finish" not in data else text.startswith(logged)
            judged.holds(same, f"{actor}: {block[2]} at {offset} showed {text!r}, the log has {logged!r}")
