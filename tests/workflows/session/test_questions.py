"""The rules of questions, under random messages and hostile schemas: what must hold, whatever comes."""

import json
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import JsonValue

from waystation.answers import MAX_SCHEMA_NODES, AnswerError, SchemaError, check_answer, check_schema
from waystation.models.attention import MAX_ASKED, MAX_AWAITED, Waiting
from waystation.models.events import Actor, Event, EventType, Item, Role, Write
from waystation.models.listing import ListedStatus
from waystation.models.questions import (
    MAX_ANSWER_BYTES,
    MAX_QUESTIONS,
    AnswerQuestion,
    AnswersAs,
    ApprovalRule,
    Audience,
    QuestionAsked,
)
from waystation.models.refusals import RefusalCode
from waystation.temporal import names
from workflows.session.listing import Listing
from workflows.session.log import SessionLog
from workflows.session.people import PeopleState
from workflows.session.purchases import Purchases, PurchasesState
from workflows.session.questions import MAX_LISTED_BYTES, MAX_SETTLED, Question, Questions, QuestionsState
from workflows.session.waiting import waiting_of

BOT = Actor(id="bot", role=Role.AGENT)
ANN = Actor(id="ann", role=Role.USER)
OLGA = Actor(id="olga", role=Role.OPERATOR)
GRACE = Actor(id="grace", role=Role.USER)
PEOPLE: list[tuple[Actor, AnswersAs]] = [
    (ANN, "user"), (OLGA, "operator"), (GRACE, "approver"), (BOT, "user"),
    (Actor(id="bot", role=Role.USER), "user"), (Actor(id="waystation", role=Role.SYSTEM), "user"),
]  # fmt: skip
QUESTIONS: dict[str, dict[str, Any]] = {
    "text": {"kind": "question", "prompt": "Who?"},
    "number": {"kind": "question", "prompt": "How many?", "schema": {"type": "integer", "minimum": 1}},
    "choice": {"kind": "choice", "prompt": "Which?", "choices": [{"value": "a"}, {"value": "b"}]},
    "staff": {"kind": "question", "prompt": "Who?", "audience": {"roles": ["operator"], "ids": ["ann"]}},
    "tool": {"kind": "approval", "prompt": "May I?", "tool": "rm", "arguments": {"path": "a"}},
    "edit": {
        "kind": "approval", "prompt": "May I?", "tool": "mv", "arguments": {"to": "a"}, "editable": True,
        "schema": {"type": "object", "required": ["to"]},
    },
}  # fmt: skip
VALUES: list[JsonValue] = [
    "a", "b", "", 1, 0, True, None, {}, {"decision": "approve"}, {"decision": "reject", "reason": "no"},
    {"decision": "approve", "arguments": {"to": "b"}}, {"decision": "approve", "arguments": {}},
]  # fmt: skip
SETTLED = {EventType.INPUT_ANSWERED, EventType.INPUT_EXPIRED, EventType.INPUT_WITHDRAWN}
START = datetime(2026, 1, 1, tzinfo=UTC)


class Asking:
    """A log with its questions and a clock."""

    def __init__(self, rules: tuple[ApprovalRule, ...] = ()) -> None:
        self.clock, self.count = START, 0
        self.log = SessionLog()
        self.rules = rules
        self.settled: list[str] = []
        self.bind(QuestionsState())
        for turn_id in ("t1", "t2"):
            self.log.open_fence(turn_id, 1)

    def bind(self, state: QuestionsState) -> None:
        self.questions = Questions(state, "s", self.rules, self.log, lambda: self.clock)
        self.questions.settled = self.settled.append

    def write(self, kind: str, data: dict[str, Any], turn_id: str | None = "t1") -> list[RefusalCode]:
        self.count += 1
        item = Item(n=self.count, type=kind, data=data)
        write = Write(writer="w", actor=BOT, turn_id=turn_id, attempt=1 if turn_id else 0, items=(item,))
        return self.log.accept(write, self.clock, take_input=self.questions.take).codes

    def ask(self, question_id: str, turn_id: str | None = "t1", **asked: Any) -> list[RefusalCode]:
        return self.write(EventType.INPUT_REQUESTED, {"question_id": question_id, **asked}, turn_id)

    def of(self, question_id: str) -> list[Event]:
        return [e for e in self.log.state.events if e.data.get("question_id") == question_id]

    def question(self, question_id: str) -> Question:
        return self.questions.state.questions[question_id]


class QuestionsMachine(RuleBasedStateMachine):
    """An agent asks, takes back and asks again; people, and those who may not, answer; time passes."""

    @initialize(policy=st.sampled_from([None, "allow", "deny", "ask_once"]))
    def begin(self, policy: Any) -> None:
        self.asking = Asking((ApprovalRule(tool="rm", policy=policy),) if policy else ())

    @rule(
        name=st.sampled_from(sorted(QUESTIONS)),
        expires=st.sampled_from([None, 1, 60]),
        turn=st.sampled_from(["t1", "t2"]),
    )
    def ask(self, name: str, expires: int | None, turn: str) -> None:
        known = name in self.asking.questions.state.questions
        events = len(self.asking.log.state.events)
        timed = {} if expires is None else {"expires_in_seconds": expires}
        refused = self.asking.ask(name, turn, **QUESTIONS[name], **timed)
        if refused:
            assert known
            assert refused == [RefusalCode.QUESTION_ID_TAKEN]
            assert len(self.asking.log.state.events) == events

    @rule(name=st.sampled_from(sorted(QUESTIONS)), turn=st.sampled_from(["t1", "t2"]))
    def take_back(self, name: str, turn: str) -> None:
        known = self.asking.questions.state.questions.get(name)
        refused = self.asking.write(EventType.INPUT_WITHDRAWN, {"question_id": name}, turn)
        assert bool(refused) == (known is None or known.turn_id != turn)

    @rule(
        name=st.sampled_from([*sorted(QUESTIONS), "unknown"]),
        who=st.sampled_from(PEOPLE),
        value=st.sampled_from(VALUES),
        digest=st.sampled_from(["right", "stale", "none"]),
    )
    def answer(self, name: str, who: tuple[Actor, AnswersAs], value: JsonValue, digest: str) -> None:
        actor, answers_as = who
        known = self.asking.questions.state.questions.get(name)
        given = {"right": known.digest if known else "sha256:" + "1" * 64, "stale": "sha256:" + "0" * 64}.get(
            digest
        )
        answer = AnswerQuestion(
            question_id=name, value=value, actor=actor, answers_as=answers_as, digest=given
        )
        before = self.asking.questions.state.model_copy(deep=True), len(self.asking.log.state.events)
        if refused := self.asking.questions.why_not_answer(answer):
            assert (self.asking.questions.state, len(self.asking.log.state.events)) == before
            if known is not None and known.outcome is not None:
                assert refused.kind == names.QUESTION_SETTLED
            return
        assert known is not None, "nobody answers what was not asked"
        was_settled = known.outcome is not None
        answered = self.asking.questions.answer(answer)
        again = self.asking.questions.answer(answer)
        assert answered == again, "the same again is the same"
        event = self.asking.of(name)[-1] if not was_settled else None
        if event is None:
            assert len(self.asking.log.state.events) == before[1], "the first counts"
            return
        assert (event.seq, event.actor) == (answered.seq, actor)
        asked = QuestionAsked.model_validate({"question_id": name, **QUESTIONS[name]})
        assert actor.role in (Role.USER, Role.OPERATOR), "an agent never answers"
        assert actor.id != "bot"
        assert asked.answerers.has(actor, answers_as), "nobody answers who is not asked"
        assert digest != "stale"
        assert check_answer(asked, event.data["value"]) == event.data["value"]
        if asked.tool and isinstance(value, dict) and value.get("decision") == "approve":
            assert event.data["digest"] == known.digest, "who approves has seen it"

    @rule(seconds=st.sampled_from([0.5, 1, 30, 60]), timer=st.booleans())
    def wait(self, seconds: float, timer: bool) -> None:
        """Time passes; the timer may be late."""
        self.asking.clock += timedelta(seconds=seconds)
        if timer:
            self.asking.questions.expire()
            deadline = self.asking.questions.next_deadline()
            assert deadline is None or deadline > self.asking.clock

    @rule(turn=st.sampled_from(["t1", "t2"]))
    def end_turn(self, turn: str) -> None:
        self.asking.questions.withdraw(turn, "turn_completed")
        self.asking.questions.forget()
        assert all(
            q.outcome is not None for q in self.asking.questions.state.questions.values() if q.turn_id == turn
        )

    @rule()
    def carry_over(self) -> None:
        state = QuestionsState.model_validate_json(self.asking.questions.state.model_dump_json())
        assert state == self.asking.questions.state
        self.asking.bind(state)

    @invariant()
    def each_is_asked_and_settled_in_turn(self) -> None:
        for name in QUESTIONS:
            kinds = [event.type for event in self.asking.of(name)]
            assert all(kind == EventType.INPUT_REQUESTED for kind in kinds[::2])
            assert all(kind in SETTLED for kind in kinds[1::2])
            assert all(kind == EventType.INPUT_WITHDRAWN for kind in kinds[1:-1:2]), (
                "only then it is asked again"
            )
            known = self.asking.questions.state.questions.get(name)
            assert (known is not None and known.outcome is None) == bool(len(kinds) % 2)

    @invariant()
    def nothing_is_answered_too_late_nor_expires_too_soon(self) -> None:
        for name in QUESTIONS:
            events = self.asking.of(name)
            for asked, settled in zip(events[::2], events[1::2], strict=False):
                seconds = asked.data.get("expires_in_seconds")
                assert isinstance(seconds, int | None)
                over = seconds is not None and settled.time >= asked.time + timedelta(seconds=seconds)
                if settled.type == EventType.INPUT_ANSWERED and settled.actor.role != Role.SYSTEM:
                    assert not over
                if settled.type == EventType.INPUT_EXPIRED:
                    assert over

    @invariant()
    def the_memo_says_what_is_open(self) -> None:
        views = self.asking.questions.views()
        kinds = {str(view.kind) for view in views}
        wanted = "approval" if "approval" in kinds else "answer" if kinds else None
        assert self.asking.questions.waits_for() == wanted
        assert self.asking.questions.approvals().count == sum(view.kind == "approval" for view in views)

    @invariant()
    def a_turn_is_told_of_each_that_is_settled(self) -> None:
        settled = [e for e in self.asking.log.state.events if e.type in SETTLED]
        assert self.asking.settled == [event.turn_id for event in settled]


TestQuestions = QuestionsMachine.TestCase
TestQuestions.settings = settings(max_examples=60, stateful_step_count=40)


# Schemas and answers

KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "anyOf", "allOf", "not", "enum", "const", "pattern", "minimum",
     "required", "maxLength", "uniqueItems", "$ref", "$defs", "format", "additionalProperties",
     "patternProperties", "contains", "if", "then", "else", "dependentSchemas", "$id",
     "$dynamicRef", "multipleOf", "a"]
)  # fmt: skip
LEAVES = st.sampled_from(
    [None, True, False, 0, -1, 1.5, 10**400, 1e308, "", "string", "integer", "object", "array", "#",
     "#/$defs/a", "#/$defs/b", "https://example.com/schema", "(a+)+$", "(?=a)", "[", "^\\w+$", "date-time",
     "\ud800"]
)  # fmt: skip
ODD_JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYWORDS, inner, max_size=5),
    max_leaves=25,
)
QUICK_SECONDS = 2.0
"""Bounded work takes milliseconds; this much only says that something grows without end."""


@given(schema=st.dictionaries(KEYWORDS, ODD_JSON, max_size=6), value=ODD_JSON)
def test_any_schema_is_refused_or_applied_and_nothing_else_happens(schema: Any, value: Any) -> None:
    began = time.process_time()
    try:
        check_schema(schema)
        check_answer(QuestionAsked(question_id="q", prompt="?", schema=schema), value)
    except (SchemaError, AnswerError):
        pass
    assert time.process_time() - began < QUICK_SECONDS


def doubling(levels: int) -> dict[str, Any]:
    """A schema of which each part refers twice to the next: small to write down, 2^levels to apply."""
    defined: dict[str, Any] = {
        f"n{level}": {"allOf": [{"$ref": f"#/$defs/n{level + 1}"}] * 2} for level in range(levels)
    }
    defined[f"n{levels}"] = {"type": "integer"}
    return {"$defs": defined, "$ref": "#/$defs/n0"}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"anyOf": [schema, schema]}
    return schema


BOMBS: dict[str, dict[str, Any]] = {
    "references multiply": doubling(40),
    "alternatives multiply": nested(14),
    "a circle": {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    "the whole": {"properties": {"a": {"$ref": "#"}}},
    "elsewhere": {"$ref": "https://example.com/schema.json"},
    "another dialect": {"$schema": "http://json-schema.org/draft-04/schema#"},
    "a name of its own": {"$id": "https://example.com/a", "$defs": {}},
    "dynamic": {"$dynamicRef": "#a"},
    "many": {"properties": {f"p{number}": {"type": "string"} for number in range(MAX_SCHEMA_NODES)}},
    "no schema": {"type": 3},
    "backtracking": {"pattern": r"(a)\1"},
    "looking ahead": {"pattern": "(?=a)b"},
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_schemas_that_might_take_long_are_refused_at_once(name: str) -> None:
    began = time.process_time()
    with pytest.raises(SchemaError):
        check_schema(BOMBS[name])
    assert time.process_time() - began < QUICK_SECONDS
    (code,) = Asking().ask("q", prompt="?", schema=BOMBS[name])
    assert code in (RefusalCode.BAD_QUESTION, RefusalCode.DATA_TOO_LARGE)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 40_000 + "b"),
        ({"pattern": "(x+x+)+y"}, "x" * 40_000),
        ({"pattern": "^(\\w{1,200}){1,40}$"}, "a" * 9_000 + "!"),
        ({"uniqueItems": True}, [[number] for number in range(9_000)]),
        ({"items": doubling(8)}, ["a"] * 9_000),
        ({"multipleOf": 1e-300}, 1e308),
    ],
)
def test_a_hostile_answer_takes_no_time_either(schema: dict[str, Any], value: JsonValue) -> None:
    began = time.process_time()
    try:
        check_schema(schema)
        check_answer(QuestionAsked(question_id="q", prompt="?", schema=schema), value)
    except (SchemaError, AnswerError):
        pass
    assert time.process_time() - began < QUICK_SECONDS


def test_an_answer_is_bounded() -> None:
    with pytest.raises(ValueError, match="bytes of JSON"):
        AnswerQuestion(question_id="q", value="a" * MAX_ANSWER_BYTES, actor=ANN)


# Bounds


def test_a_turn_asks_so_much_and_no_more() -> None:
    asking = Asking()
    refused = [asking.ask(f"q{number}", prompt="?") for number in range(1_000)]
    assert refused == [[]] * MAX_QUESTIONS + [[RefusalCode.TOO_MANY_QUESTIONS]] * (1_000 - MAX_QUESTIONS)
    assert len(asking.questions.views()) == MAX_QUESTIONS
    assert asking.ask("q0", prompt="?") == [], "the same again is no further one"
    asking.questions.answer(AnswerQuestion(question_id="q0", value="a", actor=ANN))
    assert asking.ask("another", prompt="?") == [RefusalCode.TOO_MANY_QUESTIONS]
    assert asking.ask("another", "t2", prompt="?") == []


def test_only_so_many_of_the_settled_are_remembered() -> None:
    asking = Asking()
    for number in range(MAX_SETTLED + 10):
        turn_id = f"u{number}"
        asking.log.open_fence(turn_id, 1)
        asking.ask(f"{turn_id}:q", turn_id, prompt="?")
        asking.questions.withdraw(turn_id, "turn_completed")
        asking.questions.forget()
    assert len(asking.questions.state.questions) == MAX_SETTLED
    late = AnswerQuestion(question_id="u0:q", value="a", actor=ANN)
    refused = asking.questions.why_not_answer(late)
    assert refused is not None
    assert refused.kind == names.UNKNOWN_QUESTION


def test_a_list_of_approvals_is_no_longer_than_an_answer_may_be() -> None:
    asking = Asking()
    arguments = {"text": "a" * 40_000}
    for number in range(60):
        codes = asking.ask(f"q{number}", kind="approval", prompt="?", tool="write", arguments=arguments)
        assert codes == []
    listed = asking.questions.approvals()
    assert listed.count == 60
    assert listed.questions[0].asked["question_id"] == "q59", "newest first"
    assert 0 < len(listed.questions) < 60
    assert len(listed.model_dump_json()) <= MAX_LISTED_BYTES + 1_000


@given(st.lists(st.sampled_from(["rm", "rm.all", "mv"]), max_size=6), st.sampled_from(["rm", "r*", "*"]))
def test_asking_once_grants_for_what_its_rule_fits(tools: list[str], pattern: str) -> None:
    asking = Asking((ApprovalRule(tool=pattern, policy="ask_once"),))
    granted = False
    for number, tool in enumerate(tools):
        fits = ApprovalRule(tool=pattern, policy="ask").fits(tool, {})
        asking.ask(f"q{number}", kind="approval", prompt="?", tool=tool, arguments={})
        question = asking.question(f"q{number}")
        assert (question.outcome == "answered") == (granted and fits)
        if question.outcome is None:
            yes: JsonValue = {"decision": "approve"}
            answer = AnswerQuestion(question_id=f"q{number}", value=yes, actor=ANN, digest=question.digest)
            assert asking.questions.why_not_answer(answer) is None
            asking.questions.answer(answer)
            granted = granted or fits


def decide(asking: Asking, question_id: str, who: Actor, role: AnswersAs, **value: JsonValue) -> str | None:
    """Answers as a session does; returns why it doesn't count."""
    answer = AnswerQuestion(
        question_id=question_id, value={"decision": "approve", **value}, actor=who, answers_as=role,
        digest=asking.question(question_id).digest,
    )  # fmt: skip
    refused = asking.questions.why_not_answer(answer) or asking.questions.why_not_edit(answer)
    if refused:
        return refused.message
    asking.questions.answer(answer)
    return None


def test_an_approval_under_a_rule_decides_only_what_its_giver_may_decide() -> None:
    asking = Asking((ApprovalRule(tool="rm", policy="ask_once"),))
    rm: dict[str, Any] = {"kind": "approval", "prompt": "?", "tool": "rm", "arguments": {}}
    staff = {"roles": ["approver"], "ids": []}
    asking.ask("all-1", **rm)
    assert decide(asking, "all-1", ANN, "user") is None
    asking.ask("all-2", **rm)
    assert asking.question("all-2").outcome == "answered"
    for number in range(2):
        asking.ask(f"approvers-{number}", **rm, audience=staff)
    assert asking.question("approvers-0").outcome is None, "a user's word decides nothing for approvers"
    assert decide(asking, "approvers-0", GRACE, "approver") is None
    assert asking.question("approvers-1").outcome is None, "what was asked before waits for its own answer"
    asking.bind(QuestionsState.model_validate_json(asking.questions.state.model_dump_json()))
    asking.ask("approvers-2", **rm, audience=staff)
    assert asking.question("approvers-2").outcome == "answered"
    asking.ask("olga", **rm, audience={"roles": [], "ids": ["olga"]})
    assert asking.question("olga").outcome is None


def test_a_person_edits_nothing_into_what_a_rule_denies_or_has_not_asked_about() -> None:
    asking = Asking((
        ApprovalRule(tool="mv", arguments={"to": "/etc/*"}, policy="deny"),
        ApprovalRule(tool="mv", arguments={"to": "/tmp/*"}, policy="ask_once"),
    ))  # fmt: skip
    mv: dict[str, Any] = {"kind": "approval", "prompt": "?", "tool": "mv", "editable": True}
    asking.ask("q0", **mv, arguments={"to": "/tmp/a"})
    assert decide(asking, "q0", OLGA, "operator", arguments={"to": "/etc/a"}) == (
        "A rule of this session forbids these arguments."
    )
    assert asking.question("q0").outcome is None, "it stays open"
    assert decide(asking, "q0", OLGA, "operator", arguments={"to": "/home/a"}) is None
    asking.ask("q1", **mv, arguments={"to": "/tmp/a"})
    assert asking.question("q1").outcome is None, "nothing in /tmp was approved"
    assert decide(asking, "q1", OLGA, "operator", arguments={"to": "/tmp/b"}) is None
    asking.ask("q2", **mv, arguments={"to": "/tmp/c"})
    assert asking.question("q2").outcome == "answered"


def test_nobody_is_asked_in_vain() -> None:
    with pytest.raises(ValueError, match="nobody may answer"):
        QuestionAsked(question_id="q", prompt="?", audience=Audience())
    assert Asking().ask("q", prompt="?", audience={"roles": [], "ids": []}) == [RefusalCode.BAD_ITEM]


@given(ODD_JSON)
def test_whatever_an_agent_asks_is_taken_or_refused(asked: Any) -> None:
    data = (
        asked if isinstance(asked, dict) else {"question_id": "q", "prompt": "?", "schema": {"const": asked}}
    )
    try:
        Item.model_validate_json(json.dumps({"n": 1, "type": EventType.INPUT_REQUESTED, "data": data}))
    except ValueError:
        return  # the API's door refuses it before
    asking = Asking()
    codes = asking.write(EventType.INPUT_REQUESTED, data)
    assert bool(codes) == (not asking.log.state.events)


def test_of_what_waits_in_a_session_the_newest_is_told_and_all_that_is_asked_is_counted() -> None:
    asking = Asking()
    for number in range(MAX_ASKED + 1):
        assert asking.ask(f"q{number}", prompt="Who?") == []
    purchases = Purchases(PurchasesState(awaiting=[f"p{number}" for number in range(MAX_AWAITED + 1)]))
    listing = cast(Listing, SimpleNamespace(status=ListedStatus.WAITING))
    said = Waiting(session_id="s", agent="bot")
    waiting = waiting_of(said, asking.log, listing, PeopleState(), purchases, asking.questions)
    assert waiting.asked_count == MAX_ASKED + 1
    assert [one.question_id for one in waiting.asked] == [f"q{number}" for number in range(MAX_ASKED, 0, -1)]
    assert waiting.payments == tuple(f"p{number}" for number in range(1, MAX_AWAITED + 1))
