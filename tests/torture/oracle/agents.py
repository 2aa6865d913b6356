"""What holds of what agents write."""

from tests.torture.evidence import Evidence
from tests.torture.oracle.promises import Judged, promise


@promise("What an agent has flushed is in the log.", "docs/agents.md#writing")
def flushed_text_is_there(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("flushed"):
        session = evidence.sessions.get(line["session"])
        if session is None:
            continue
        own = f"{line['turn']}-{line['attempt']}-"
        # What an earlier attempt has completed isn't written again.
        written = tuple(f"{line['turn']}-{attempt}-" for attempt in range(1, line["attempt"] + 1))
        messages = [event for event in session.log if (event.get("message_id") or "").startswith(written)]
        if any(e["type"] == "message.superseded" and e["message_id"].startswith(own) for e in messages):
            continue  # withdrawn with its attempt
        text = "".join(e["data"]["text"] for e in messages if e["type"] == "message.completed")
        missing = [said for said in line["said"] if said not in text]
        judged.holds(not missing, f"{line['session']} {line['turn']}: flushed {missing[:2]}, not in the log")


@promise(
    "What is acknowledged on the agents' socket is in the log.",
    "docs/ingest.md#what-is-refused",
)
def acknowledged_items_are_there(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("raw_done"):
        session = evidence.sessions.get(line["session"])
        if session is None:
            continue
        texts = {
            event["message_id"]: event["data"]["text"]
            for event in session.log
            if event["type"] == "message.completed"
        }
        for message, text in line["said"].items():
            logged = texts.get(message)
            judged.holds(
                logged == text, f"{line['session']} {message}: {text!r} is acknowledged, not {logged!r}"
            )
        last = max([line["acknowledged"], *(refused["last"] for refused in line["refused"])])
        judged.holds(last >= line["written"], f"{line['session']} {line['turn']}: ended with items unsettled")


@promise("Steers that a turn has taken are recorded as consumed.", "docs/agents.md#steers")
def taken_steers_are_consumed(evidence: Evidence, judged: Judged) -> None:
    ended_well = {(line["session"], line["turn"], line["attempt"]) for line in evidence.noted("returned")}
    for line in evidence.noted("steered"):
        session = evidence.sessions.get(line["session"])
        if session is None or (line["session"], line["turn"], line["attempt"]) not in ended_well:
            continue
        completed = any(
            event["type"] == "turn.completed" and event["turn_id"] == line["turn"] for event in session.log
        )
        consumed = any(
            event["type"] == "steer.consumed" and event["data"].get("steer_id") == line["steer"]
            for event in session.log
        )
        if completed:
            judged.holds(
                consumed, f"{line['session']} {line['turn']}: took {line['steer']}, not consumed in the log"
            )
