"""What holds of requests: 2xx took effect, 4xx had none, the same asked twice counts once."""

from collections import defaultdict

from tests.torture.evidence import Evidence
from tests.torture.oracle.promises import Judged, promise
from tests.torture.record import Line

CLOSED_WITH = frozenset({1000, 1001, 1003, 1006, 1007, 1008, 1009, 1012, 4204})
LATER = frozenset({408, 429, 500, 503})


def _by_id(evidence: Evidence, operation: str) -> dict[tuple[str, str], list[Line]]:
    found: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in evidence.noted(operation):
        if line["session"] in evidence.sessions:
            found[line["session"], line["id"]].append(line)
    return found


def _code(line: Line) -> str | None:
    """Returns why the API itself has refused it."""
    answer = line["answer"]
    return answer.get("code") if isinstance(answer, dict) and not line["proxied"] else None


def _accepted(lines: list[Line]) -> bool:
    return any(line["status"] in (200, 201, 202) and not line["proxied"] for line in lines)


def is_refused(lines: list[Line]) -> bool:
    """Whether every try was refused for good by the API itself."""
    return all(
        line["proxied"]
        or (line["status"] is not None and 400 <= line["status"] < 500 and line["status"] not in LATER)
        for line in lines
    )


@promise(
    "A message that was accepted is in the log, once, with its text.",
    "docs/http-api.md#post-sessionssession_idmessages",
)
def accepted_messages_are_there_once(evidence: Evidence, judged: Judged) -> None:
    for (name, id_), lines in _by_id(evidence, "send").items():
        said = [
            event for event in evidence.sessions[name].log
            if event.get("message_id") == id_ and event["type"] == "message.completed"
        ]  # fmt: skip
        steers = [
            event for event in evidence.sessions[name].log
            if event["type"] == "steer.received" and event["data"].get("steer_id") == id_
        ]  # fmt: skip
        if _accepted(lines):
            judged.holds(bool(said or steers), f"{id_}: accepted, and not in the log")
            for event in said:
                same = event["data"]["text"] == lines[0]["asked"]["text"]
                judged.holds(same or bool(steers), f"{id_}: the log has another text")
        judged.holds(len(said) <= 1 + bool(steers), f"{id_}: {len(said)} times in the log")
        if is_refused(lines):
            judged.holds(not said and not steers, f"{id_}: refused, and yet in the log")


@promise("The same request gets the same answer.", "docs/http-api.md#post-sessionssession_idmessages")
def the_same_gets_the_same_answer(evidence: Evidence, judged: Judged) -> None:
    for (_, id_), lines in _by_id(evidence, "send").items():
        answers = [
            (line["answer"]["seq"], line["answer"].get("turn_id"))
            for line in lines
            if line["status"] == 202 and line["answer"]
        ]
        judged.holds(len(set(answers)) <= 1, f"{id_}: answered {answers}")
        taken = [line["answer"]["detail"] for line in lines if _code(line) == "message-id-taken"]
        judged.holds(not taken, f"{id_}: sent again by its own sender, and refused: {taken}")


@promise(
    "A stop or steer that is asked again has the same outcome.",
    "docs/http-api.md#post-sessionssession_idstop",
)
def the_same_has_the_same_outcome(evidence: Evidence, judged: Judged) -> None:
    for operation in ("stop", "steer"):
        for (_, id_), lines in _by_id(evidence, operation).items():
            outcomes = {
                (line["answer"].get("outcome"), line["answer"].get("seq"))
                for line in lines
                if line["status"] == 200 and line["answer"] and line["answer"].get("outcome") != "pending"
            }
            judged.holds(len(outcomes) <= 1, f"{id_}: {outcomes}")


@promise(
    "A steer is recorded once, and becomes one message at most.",
    "docs/http-api.md#post-sessionssession_idsteer",
)
def steers_count_once(evidence: Evidence, judged: Judged) -> None:
    for (name, id_), lines in _by_id(evidence, "steer").items():
        log = evidence.sessions[name].log
        received = [e for e in log if e["type"] == "steer.received" and e["data"].get("steer_id") == id_]
        messages = [e for e in log if e["type"] == "message.completed" and e.get("message_id") == id_]
        judged.holds(len(received) <= 1, f"{id_}: received {len(received)} times")
        judged.holds(len(messages) <= 1, f"{id_}: {len(messages)} messages")
        answered = {
            line["answer"].get("outcome") for line in lines if line["status"] == 200 and line["answer"]
        }
        if answered & {"consumed", "queued"}:
            judged.holds(bool(received or messages), f"{id_}: {answered}, and not in the log")


@promise("Whoever has joined, left, taken over or released is in the log.", "docs/http-api.md#people")
def people_are_recorded(evidence: Evidence, judged: Judged) -> None:
    types = {
        "join": "participant.joined",
        "leave": "participant.left",
        "takeover": "takeover.started",
        "release": "takeover.released",
    }
    for operation, expected in types.items():
        for line in evidence.noted(operation):
            session = evidence.sessions.get(line["session"])
            if session is None or line["status"] not in (200, 201) or line["proxied"] or not line["answer"]:
                continue
            seq = line["answer"]["seq"]
            # Asked for again, it changes nothing, and the answer is where the log stands.
            there = any(event["type"] == expected and event["seq"] <= seq for event in session.log)
            judged.holds(there, f"{line['actor']}: {operation} answered with {seq}, and never recorded")


@promise("Posted events that were answered 200 are recorded, once.", "docs/ingest.md#without-a-socket")
def posted_events_are_there_once(evidence: Evidence, judged: Judged) -> None:
    for (name, id_), lines in _by_id(evidence, "post").items():
        for item in lines[0]["asked"]["items"]:
            found = [
                event for event in evidence.sessions[name].log
                if event["type"] == "data.report" and event["data"] == item["data"]
            ]  # fmt: skip
            judged.holds(len(found) <= 1, f"{id_}: {item} is {len(found)} times in the log")
            if _accepted(lines):
                judged.holds(len(found) == 1, f"{id_}: {item} was answered 200, and isn't in the log")
            if is_refused(lines):
                judged.holds(not found, f"{id_}: {item} was refused, and is in the log")


@promise("Nobody does what their credential does not allow.", "docs/settings.md#roles")
def nobody_exceeds_their_role(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("attacked"):
        if line["status"] is not None and not line["proxied"] and not line["allowed"]:
            fine = 400 <= line["status"] < 500 or line["status"] == 503
            judged.holds(fine, f"{line['role']} got {line['status']} for {line['method']} {line['where']}")


@promise("Every refusal is a problem document; 429 and 503 say when to come back.", "docs/errors.md")
def refusals_are_problems(evidence: Evidence, judged: Judged) -> None:
    for operation in evidence.by_operation:
        for line in evidence.noted(operation):
            if not line.get("told") or line["proxied"]:
                continue
            told, answer = line["told"], line["answer"] or {}
            what = f"{line['actor']}: {operation} got {line['status']} {told} {str(answer)[:200]}"
            judged.holds(told["content-type"] == "application/problem+json" and "code" in answer, what)
            if line["status"] in (429, 503):
                judged.holds(told["retry-after"] is not None, what)


@promise("Nothing that people ask for is an internal error.", "docs/errors.md#500-and-503")
def no_internal_errors(evidence: Evidence, judged: Judged) -> None:
    for operation in evidence.by_operation:
        for line in evidence.noted(operation):
            if isinstance(line.get("status"), int) and "began" in line:
                judged.holds(
                    line["status"] != 500, f"{line['actor']}: {operation} got 500: {line.get('answer')}"
                )


@promise("Sockets are closed with a code that is documented, and not by a bug.", "docs/http-api.md")
def sockets_end_with_a_reason(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("socket", "socket_attacked"):
        if (code := line.get("code")) is not None:
            fine = code in CLOSED_WITH or 4_400 <= code < 4_600
            judged.holds(
                fine and code != 4_500, f"{line['actor']}: closed with {code} ({line.get('reason')})"
            )
