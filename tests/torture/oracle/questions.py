"""What holds of questions to people: who answered, what counts, and that a turn that waited shows no seam."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Final

from tests.torture.evidence import Event, Evidence, FinalSession
from tests.torture.interviews import (
    NOBODY,
    says_answer,
    says_decision,
    says_given_up,
    says_helper,
    says_step,
    step_title,
    survey_name,
)
from tests.torture.oracle.log import is_over
from tests.torture.oracle.promises import Judged, promise
from tests.torture.oracle.requests import is_refused
from tests.torture.oracle.turns import ENDS, patience, texts_of_turns
from tests.torture.record import Line
from tests.torture.scripts import steps_of

ASKER: Final = "asker"
SETTLES: Final = frozenset({"input.answered", "input.expired", "input.withdrawn"})
NO_DECISION: Final = "without a person's decision"
Key = tuple[str, str]


def _of_questions(session: FinalSession) -> Iterator[tuple[str, list[Event]]]:
    """Yields each question with what the log has of it, in order."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in session.log:
        if event["type"] == "input.requested" or event["type"] in SETTLES:
            found[event["data"]["question_id"]].append(event)
    yield from found.items()


@promise("Each question is settled once, by the end of its turn at the latest.", "docs/events.md#questions")
def questions_are_settled_once(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        open_: dict[str, str | None] = {}
        for event in session.log:
            if event["type"] == "input.requested":
                question = event["data"]["question_id"]
                judged.holds(question not in open_, f"{session.name} {question}: asked while it is open")
                open_[question] = event["turn_id"]
            elif event["type"] in SETTLES:
                question = event["data"]["question_id"]
                what = f"{session.name} {question}: {event['seq']} {event['type']}, and isn't open"
                judged.holds(open_.pop(question, NOBODY) != NOBODY, what)
            elif event["type"] in ENDS:
                left = [question for question, turn in open_.items() if turn == event["turn_id"]]
                judged.holds(not left, f"{session.name} {event['turn_id']}: ended with {left} open")


@promise(
    "The first valid answer counts, and whoever answers is told what does.", "docs/questions.md#answering"
)
def the_first_answer_counts(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("answer"):
        session, answer = evidence.sessions.get(line["session"]), line["answer"] or {}
        if session is None or line["proxied"]:
            continue
        settled = answer.get("settled") or {}
        if line["status"] == 200:
            counts = (line["id"], "input.answered", line["actor"], line["asked"]["value"])
            seq = answer["seq"]
        elif line["status"] == 409 and settled:
            by = settled["actor"]["id"] if settled.get("actor") else None
            counts = (line["id"], f"input.{settled['outcome']}", by, settled.get("value"))
            seq = settled["seq"]
        else:
            continue
        logged = [_what_counts(event) for event in session.log if event["seq"] == seq]
        judged.holds(logged == [counts], f"{line['actor']} was told {counts} at {seq}, the log has {logged}")


def _what_counts(event: Event) -> tuple[Any, ...]:
    data = event["data"]
    return data.get("question_id"), event["type"], event["actor"]["id"], data.get("value")


@promise(
    "An answer in the log was given by its actor, and was not refused.", "docs/questions.md#what-can-be-asked"
)
def answers_were_given(evidence: Evidence, judged: Judged) -> None:
    given: dict[tuple[Key, str, str], list[Line]] = defaultdict(list)
    for line in evidence.noted("answer"):
        given[(line["session"], line["id"]), line["actor"], _json(line["asked"]["value"])].append(line)
    signalled = {
        ((line["session"], line["question"]), line["actor"], _json(line["value"]))
        for line in evidence.noted("signals_answer")
    }
    for session in evidence.sessions.values():
        for event in session.log:
            if event["type"] != "input.answered" or event["actor"]["role"] == "system":
                continue
            what = (
                (session.name, event["data"]["question_id"]),
                event["actor"]["id"],
                _json(event["data"]["value"]),
            )
            said = given[what]
            fine = what in signalled or (bool(said) and not is_refused(said))
            judged.holds(fine, f"{what}: {event['seq']} is an answer that nobody gave, or that was refused")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


@promise("What people answered is what the agent gets, in every attempt.", "docs/questions.md")
def answers_reach_their_turn(evidence: Evidence, judged: Judged) -> None:
    for line in evidence.noted("learnt"):
        if (session := evidence.sessions.get(line["session"])) is None:
            continue
        answers = [
            answer
            for prompt, answer in _answers(session.log, line["turn"]).items()
            if prompt == line["prompt"]
        ]
        what = f"{line['session']} {line['turn']}: the agent learnt {line['value']}, the log has {answers}"
        judged.holds(answers == [line["value"]], what)


def _answers(log: list[Event], turn: str) -> dict[str, Any]:
    """Returns what came of a turn's questions, by what was asked."""
    prompts: dict[str, str] = {}
    answers: dict[str, Any] = {}
    for event in log:
        if event["turn_id"] == turn and event["type"] == "input.requested":
            prompts[event["data"]["question_id"]] = event["data"]["prompt"]
        elif event["turn_id"] == turn and event["type"] in ("input.answered", "input.expired"):
            answers[prompts[event["data"]["question_id"]]] = event["data"].get("value", NOBODY)
    return answers


@promise(
    "A turn that waits goes on as soon as something it waits for is settled, and not before.",
    "docs/questions.md#what-happens-while-a-turn-waits",
)
def waiting_turns_go_on(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.readable.values():
        waits: dict[str, tuple[int, set[str]]] = {}
        settled: set[str] = set()
        withdrawn: set[str] = set()
        for event in session.log:
            turn, type_, data = str(event.get("turn_id")), event["type"], event["data"]
            # What lets a turn go on is recorded together with its going on.
            due = {name for name, (_, awaited) in waits.items() if awaited & settled}
            may = due or {name for name, (_, awaited) in waits.items() if awaited & withdrawn}
            fine = turn in may if type_ == "turn.resumed" else not due
            what = f"{session.name} {turn}: {event['seq']} {type_}"
            judged.holds(fine, f"{what}, while {waits} wait and {may} may go on")
            if type_ in ("input.answered", "input.expired"):
                settled.add(data["question_id"])
            elif type_ == "input.withdrawn":
                withdrawn.add(data["question_id"])
            elif type_ == "input.requested":
                withdrawn.discard(data["question_id"])
            elif type_ == "turn.waiting":
                waits[turn] = data["attempt"], set(data["waiting_for"])
            elif type_ in ENDS or type_ in ("turn.resumed", "stop.requested"):
                attempt, _ = waits.pop(turn, (0, set()))
                if type_ == "turn.resumed":
                    judged.holds(data["attempt"] == attempt + 1, f"{what}: {data['attempt']} after {attempt}")
                elif type_ in ENDS:
                    settled.add(turn)
        if is_over(session):
            judged.holds(not waits, f"{session.name}: {waits} wait for ever")


@promise("A step whose result is recorded doesn't run again, and keeps its result.", "docs/agents.md#steps")
def recorded_steps_do_not_run_again(evidence: Evidence, judged: Judged) -> None:
    ran: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    returned: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for operation, found in (("stepped", ran), ("step_returned", returned)):
        for line in evidence.noted(operation):
            if line["session"] in evidence.sessions:
                found[line["session"], line["turn"], line["key"]].append(line)
    for step, lines in returned.items():
        values, runs = {line["value"] for line in lines}, ran[step]
        judged.holds(len(values) == 1, f"{step}: returned {values}")
        judged.holds(values <= {run["value"] for run in runs}, f"{step}: returned {values}, by no run")
        first = min(line["attempt"] for line in lines)
        # An attempt that was given up may still run it, if nobody has told it: what comes of that is refused.
        again = [run for run in runs if run["attempt"] > first]
        judged.holds(not again, f"{step}: returned in attempt {first}, and ran in {again[:1]}")
    for step, runs in ran.items():
        attempts = Counter(run["attempt"] for run in runs)
        judged.holds(max(attempts.values()) == 1, f"{step}: ran several times in one attempt: {attempts}")


@promise(
    "What a turn tells is there once and in order, however often it began again.",
    "docs/agents.md#what-is-told-again",
)
def retelling_shows_no_seam(evidence: Evidence, judged: Judged) -> None:
    results = {
        (line["session"], line["turn"], line["key"]): line["value"]
        for line in evidence.noted("step_returned")
    }
    for session in evidence.sessions.values():
        texts = texts_of_turns(session.log)
        for end in session.log:
            turn = end.get("turn_id")
            if end["type"] not in ENDS or end["actor"]["id"] != ASKER or "answered_by" in end["data"]:
                continue
            steps = {
                key: value for (name, of, key), value in results.items() if (name, of) == (session.name, turn)
            }
            expected, calls = _telling(session.log, turn, texts.get(turn, ""), steps)
            said = "".join(_said(session.log, turn))
            returned = _returned(session.log, turn)
            if end["type"] == "turn.completed" or end["data"].get("outcome") == "completed":
                judged.holds(said == expected, f"{session.name} {turn}: says {said!r}, not {expected!r}")
                judged.holds(returned == calls, f"{session.name} {turn}: returned {returned}, not {calls}")
            else:
                judged.holds(
                    expected.startswith(said), f"{session.name} {turn}: says {said!r} of {expected!r}"
                )
                judged.holds(returned <= calls, f"{session.name} {turn}: returned {returned}, not {calls}")


def _said(log: list[Event], turn: str | None) -> Iterator[str]:
    """Yields what the turn's agent has said, in order, but for what was withdrawn."""
    gone = {event["message_id"] for event in log if event["type"] == "message.superseded"}
    own = [
        event for event in log
        if event["type"] == "message.completed" and event.get("turn_id") == turn
        and event["actor"]["id"] == ASKER and event["message_id"] not in gone
    ]  # fmt: skip
    for event in sorted(own, key=lambda event: event["data"].get("started", event["seq"])):
        yield event["data"]["text"]


def _returned(log: list[Event], turn: str | None) -> Counter[str]:
    """Returns how often each call of a turn has returned well."""
    return Counter(
        event["data"]["name"]
        for event in log
        if event["type"] == "tool.returned" and event.get("turn_id") == turn and "error" not in event["data"]
    )


def _telling(
    log: list[Event], turn: str | None, text: str, results: dict[str, Any]
) -> tuple[str, Counter[str]]:
    """Returns what a turn tells by its script, and how often each of its calls returns."""
    answers = _answers(log, str(turn))
    said: list[str] = []
    calls: Counter[str] = Counter()
    for kind, *arguments in steps_of(text):
        number = arguments[0]
        match kind:
            case "write":  # of what is no script
                said += number
            case "say":
                said += arguments[1]
            case "ask" | "survey":
                said.append(says_answer(number, answers.get(f"{number}: what?")))
                calls[survey_name(number)] += kind == "survey"
            case "both":
                said += [says_answer(number, answers.get(f"{number}{side}: what?")) for side in "ab"]
            case "unanswerable":
                said.append(says_given_up(number))
            case "approve" | "guarded":
                approved, told = _decision(log, turn, number)
                said.append(told)
                calls[arguments[1]] += kind == "guarded" and approved
            case "step":
                said.append(says_step(number, results.get(f"step-{number}")))
                calls[step_title(number)] += arguments[2]
            case "helper":
                said.append(says_helper(number))
    return "".join(said), +calls


def _decision(log: list[Event], turn: str | None, number: int) -> tuple[bool, str]:
    question, arguments = None, None
    for event in log:
        data = event["data"]
        if event["type"] == "input.requested" and event["turn_id"] == turn and "tool" in data:
            if data["arguments"]["n"] == number:
                question, arguments = data["question_id"], data["arguments"]
        elif event["type"] == "input.answered" and data["question_id"] == question:
            value = data["value"]
            if value["decision"] == "approve":
                return True, says_decision(number, value.get("arguments", arguments))
            return False, says_decision(number, None, value.get("reason"))
    return False, NO_DECISION


@promise(
    "An answer counts until the deadline, and then the question expires.",
    "docs/questions.md#what-can-be-asked",
)
def deadlines_hold(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        for question, events in _of_questions(session):
            deadline: float | None = None
            for event in events:
                at, what = evidence.moment(event["time"]), f"{session.name} {question}: {event['type']}"
                if event["type"] == "input.requested":
                    until = event["data"].get("deadline")
                    deadline = evidence.moment(until) if until else None
                elif event["type"] == "input.answered" and deadline is not None:
                    judged.holds(at <= deadline, f"{what} {at - deadline:.3f} s too late")
                elif event["type"] == "input.expired":
                    judged.holds(deadline is not None and at >= deadline, f"{what}, before its deadline")
                    late = at - (deadline or at)
                    judged.holds(late <= patience(evidence, at - late, at), f"{what} {late:.1f} s late")


@promise("Whoever approves has seen what they approve.", "docs/questions.md#approvals")
def approvals_have_the_digest(evidence: Evidence, judged: Judged) -> None:
    for session in evidence.sessions.values():
        for question, events in _of_questions(session):
            asked = events[0]["data"]
            for event in events:
                if (
                    event["type"] != "input.answered"
                    or asked["kind"] != "approval"
                    or "rule" in event["data"]
                ):
                    continue
                if event["data"]["value"]["decision"] == "approve":
                    same = event["data"].get("digest") == asked["digest"]
                    judged.holds(same, f"{session.name} {question}: approved without its digest")


@promise("Rules of the session decide before people do, and as they say.", "docs/questions.md#approvals")
def rules_decide(evidence: Evidence, judged: Judged) -> None:
    rules = {
        line["session"]: {rule["tool"]: rule["policy"] for rule in line["asked"].get("approval_rules", ())}
        for line in evidence.noted("start")
    }
    for session in evidence.sessions.values():
        granted: set[str] = set()
        tools: dict[str, str] = {}
        for event in session.log:
            data = event["data"]
            if event["type"] == "input.requested" and "tool" in data:
                tools[data["question_id"]] = data["tool"]
            elif event["type"] == "input.answered" and data["question_id"] in tools:
                tool, decision = tools[data["question_id"]], data["value"]["decision"]
                policy, by_rule = rules.get(session.name, {}).get(tool), "rule" in data
                match policy:
                    case "allow" | "deny":
                        fine = by_rule and decision == ("approve" if policy == "allow" else "reject")
                    case "ask_once" if by_rule:
                        fine = tool in granted and decision == "approve"
                    case _:
                        fine = not by_rule
                judged.holds(fine, f"{session.name} {data['question_id']}: {policy}, and {event['data']}")
                if policy == "ask_once" and decision == "approve":
                    granted.add(tool)
