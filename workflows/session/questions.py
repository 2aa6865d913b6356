"""What agents ask people in a session: who may answer, which answer counts, and when it is too late.

Pure, like the log: no Temporal, no clock of its own, no I/O. Each question is settled once: answered, expired
or withdrawn. What was asked stays in the log, where it is read again.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field, JsonValue, ValidationError

from waystation.answers import AnswerError, SchemaError, check_answer, check_schema
from waystation.models.base import JsonObject
from waystation.models.events import SYSTEM, Actor, Event, EventType, Item, Role, Write
from waystation.models.questions import (
    EVERYBODY,
    MAX_QUESTIONS,
    Answered,
    AnswerQuestion,
    AnswersAs,
    ApprovalRule,
    Audience,
    OpenApprovals,
    OpenQuestion,
    QuestionAsked,
    QuestionKind,
    QuestionOutcome,
    QuestionView,
    as_asked,
    digest_of,
    read_decision,
)
from waystation.models.refusals import RefusalCode
from waystation.temporal import names
from workflows.session.log import SessionLog
from workflows.session.refused import Refused

MAX_LISTED_BYTES = 1_000_000
"""Of the approvals in one answer to a query; Temporal takes at most 4 MB."""
MAX_SETTLED = 1_000
"""Settled questions of ended turns that are remembered, so that a late answer is told what came of them."""

Outcome = Literal["answered", "expired", "withdrawn"]


class Question(BaseModel):
    """A question, and where it is recorded."""

    question_id: str
    turn_id: str | None
    agent: str
    kind: QuestionKind
    tool: str | None
    seq: int
    digest: str
    deadline: datetime | None = None
    reply_to: str | None = None
    outcome: Outcome | None = None
    settled_seq: int = 0


class Reply(BaseModel):
    """What is to be told to a workflow that asked."""

    workflow_id: str
    outcome: QuestionOutcome


class Grant(BaseModel):
    """Somebody has approved under a rule of the policy ``ask_once``."""

    rule: int
    by: Actor
    answers_as: AnswersAs


class QuestionsState(BaseModel):
    """What a session carries of its questions across continue-as-new."""

    questions: dict[str, Question] = Field(default_factory=dict)
    granted_once: list[int] = Field(default_factory=list)
    """Rules of the policy ``ask_once`` under which a person has approved."""
    grants: list[Grant] = Field(default_factory=list)
    """Who approved under them what the rule fits."""
    replies: list[Reply] = Field(default_factory=list)
    marked: str | None = None
    """What the session's memo says that it waits for."""


class Questions:
    """The questions of a session."""

    def __init__(
        self,
        state: QuestionsState,
        session_id: str,
        rules: tuple[ApprovalRule, ...],
        log: SessionLog,
        now: Callable[[], datetime],
        grants_are_personal: Callable[[], bool] = lambda: True,
    ) -> None:
        """``grants_are_personal``: whether it matters who has approved under a rule; asked where it may."""
        self.state = state
        self._id, self._rules, self._log, self._now = session_id, rules, log, now
        self._grants_are_personal = grants_are_personal
        self.settled: Callable[[str], None] = lambda turn_id: None
        """Told of each turn of which a question was settled."""
        self._audiences: dict[str, tuple[int, Audience]] = {}
        """Who may answer, and where that is recorded: a question that was taken back may be asked anew."""

    # Asking

    def take(self, write: Write, item: Item) -> RefusalCode | None:
        """Takes ``input.requested`` or ``input.withdrawn`` of an agent, or returns why it can't be taken."""
        if item.type == EventType.INPUT_WITHDRAWN:
            return self._take_back(write, item)
        try:
            asked = QuestionAsked.model_validate(item.data)
        except ValidationError:
            return RefusalCode.BAD_ITEM
        shown = asked.shown()
        digest = digest_of(self._id, shown)
        if known := self.state.questions.get(asked.question_id):
            same = (known.turn_id, known.agent, known.digest) == (write.turn_id, write.actor.id, digest)
            if not same:
                return RefusalCode.QUESTION_ID_TAKEN
            if known.outcome != "withdrawn":
                return None
            # Its agent took it back, in an attempt that was given up perhaps; now it asks again.
        try:
            check_schema(asked.answer_schema or {})
        except SchemaError:
            return RefusalCode.BAD_QUESTION
        if self._count(write.turn_id) >= MAX_QUESTIONS:
            return RefusalCode.TOO_MANY_QUESTIONS
        self._record(write, asked, shown, digest)
        return None

    def _count(self, turn_id: str | None) -> int:
        return sum(
            question.turn_id == turn_id and (turn_id is not None or question.outcome is None)
            for question in self.state.questions.values()
        )

    def _record(self, write: Write, asked: QuestionAsked, shown: JsonObject, digest: str) -> None:
        now, deadline = self._now(), None
        more: JsonObject = {"digest": digest}
        if asked.expires_in_seconds is not None:
            deadline = now + timedelta(seconds=asked.expires_in_seconds)
            more["deadline"] = (
                deadline.strftime("%Y-%m-%dT%H:%M:%S.") + f"{deadline.microsecond // 1000:03d}Z"
            )
        event = self._log.append(
            EventType.INPUT_REQUESTED, write.actor, now, turn_id=write.turn_id, data={**shown, **more}
        )
        question = Question(
            question_id=asked.question_id,
            turn_id=write.turn_id,
            agent=write.actor.id,
            kind=asked.kind,
            tool=asked.tool,
            seq=event.seq,
            digest=digest,
            deadline=deadline,
            reply_to=asked.reply_to,
        )
        self.state.questions[asked.question_id] = question
        self._decide_by_rule(question, asked)

    def _decide_by_rule(self, question: Question, asked: QuestionAsked) -> None:
        """Answers an approval on which a rule of the session decides."""
        number, rule = self._rule_for(asked.tool, asked.arguments)
        if rule is None or rule.policy == "ask":
            return
        if rule.policy == "ask_once" and not self._is_granted(number, asked):
            return
        denied = rule.policy == "deny"
        value: JsonObject = {"decision": "reject" if denied else "approve"}
        if denied:
            value["reason"] = "A rule of this session forbids it."
        self._settle(question, "answered", SYSTEM, {"value": value, "rule": number})

    def _is_granted(self, number: int, asked: QuestionAsked) -> bool:
        """Whether somebody has approved under this rule who may decide on this, too."""
        if number not in self.state.granted_once:
            return False
        return not self._grants_are_personal() or any(
            grant.rule == number and asked.answerers.has(grant.by, grant.answers_as)
            for grant in self.state.grants
        )

    def _rule_for(self, tool: str | None, arguments: JsonObject | None) -> tuple[int, ApprovalRule | None]:
        """Returns the first rule that fits, with its number from 0."""
        if tool is not None and arguments is not None:
            for number, rule in enumerate(self._rules):
                if rule.fits(tool, arguments):
                    return number, rule
        return -1, None

    def _take_back(self, write: Write, item: Item) -> RefusalCode | None:
        question = self.state.questions.get(str(item.data.get("question_id")))
        if question is None or (question.turn_id, question.agent) != (write.turn_id, write.actor.id):
            return RefusalCode.UNKNOWN_QUESTION
        if question.outcome is None:
            reason = item.data.get("reason")
            self._settle(question, "withdrawn", write.actor, {"reason": reason} if reason else {})
        return None

    # Answering

    def answer(self, answer: AnswerQuestion) -> Answered:
        """Records an answer for which ``why_not_answer`` has nothing to say."""
        question = self.state.questions[answer.question_id]
        if question.outcome is not None:  # the same again: its first answer may have been lost on the way
            return Answered(question_id=question.question_id, seq=question.settled_seq)
        asked = self._asked(question)
        value = check_answer(asked, answer.value)
        seen: JsonObject = {} if answer.digest is None else {"digest": answer.digest}
        seq = self._settle(question, "answered", answer.actor, {"value": value, **seen})
        self._grant_once(asked, value, answer)
        return Answered(question_id=question.question_id, seq=seq)

    def _grant_once(self, asked: QuestionAsked, value: JsonValue, answer: AnswerQuestion) -> None:
        number, rule = self._rule_for(asked.tool, asked.arguments)
        if rule is None or rule.policy != "ask_once" or not _approves(value):
            return
        if number not in self.state.granted_once:
            self.state.granted_once.append(number)
        approved = read_decision(value, asked.arguments or {}).arguments
        grant = Grant(rule=number, by=answer.actor, answers_as=answer.answers_as)
        # Who has changed the arguments to others than the rule is about has approved nothing under it.
        if self._rule_for(asked.tool, approved)[0] == number and grant not in self.state.grants:
            self.state.grants.append(grant)

    def is_approval(self, question_id: str) -> bool:
        """Whether the question is one on which only a proven decision may count."""
        question = self.state.questions.get(question_id)
        return question is not None and question.kind is QuestionKind.APPROVAL

    def why_not_answer(self, answer: AnswerQuestion) -> Refused | None:
        """Returns why this answer doesn't count, or ``None``."""
        question = self.state.questions.get(answer.question_id)
        if question is None:
            return Refused(names.UNKNOWN_QUESTION, f"There is no question '{answer.question_id}' here.")
        if question.outcome is not None:
            if self._is_same_answer(question, answer):
                return None
            return Refused(names.QUESTION_SETTLED, self._how_settled(question))
        if question.deadline is not None and question.deadline <= self._now():
            return Refused(names.QUESTION_SETTLED, "It is too late: the question has expired.")
        asked, who = self._asked(question), answer.actor
        if who.role in (Role.AGENT, Role.SYSTEM) or who.id == question.agent:
            return Refused(names.NOT_ASKED, "Agents can't answer; a person must.")
        if not asked.answerers.has(who, answer.answers_as):
            return Refused(names.NOT_ASKED, f"{who.name or who.id} is not among those who may answer this.")
        if answer.digest is not None and answer.digest != question.digest:
            return Refused(names.STALE_DIGEST, "This digest is of another question; look at it again.")
        try:
            value = check_answer(asked, answer.value)
        except AnswerError as error:
            return Refused(names.INVALID_ANSWER, f"The answer doesn't fit the question: {error}.")
        if answer.digest is None and question.kind is QuestionKind.APPROVAL and _approves(value):
            return Refused(names.STALE_DIGEST, "Give the question's digest: it says what you have seen.")
        return None

    def why_not_edit(self, answer: AnswerQuestion) -> Refused | None:
        """Returns why arguments that a person has changed don't count, though their answer would."""
        question = self.state.questions.get(answer.question_id)
        if question is None or question.outcome is not None or question.tool is None:
            return None
        asked = self._asked(question)
        decided = read_decision(answer.value, asked.arguments or {})
        if not decided.edited:
            return None
        _, rule = self._rule_for(asked.tool, decided.arguments)
        if rule is None or rule.policy != "deny":
            return None
        return Refused(names.INVALID_ANSWER, "A rule of this session forbids these arguments.")

    def _is_same_answer(self, question: Question, answer: AnswerQuestion) -> bool:
        first = self._event(question.settled_seq)
        if question.outcome != "answered" or first is None or first.actor.id != answer.actor.id:
            return False
        try:
            return check_answer(self._asked(question), answer.value) == first.data.get("value")
        except AnswerError:
            return False

    def _how_settled(self, question: Question) -> str:
        event = self._event(question.settled_seq)
        who = (event.actor.name or event.actor.id) if event else "somebody"
        match question.outcome:
            case "answered":
                return f"{who} has answered already."
            case "expired":
                return "It is too late: the question has expired."
            case _:
                return "The question was withdrawn."

    # Ending without an answer

    def next_deadline(self) -> datetime | None:
        """When the next open question expires."""
        return min((q.deadline for q in self._open() if q.deadline is not None), default=None)

    def expire(self) -> None:
        """Settles the questions whose time is over."""
        for question in self._open():
            if question.deadline is not None and question.deadline <= self._now():
                self._settle(question, "expired", SYSTEM, {})

    def withdraw(self, turn_id: str | None, reason: str) -> None:
        """Withdraws what a turn has asked and nobody has answered; without a turn, what was asked outside."""
        for question in self._open():
            if question.turn_id == turn_id:
                self._settle(question, "withdrawn", SYSTEM, {"reason": reason})

    def forget(self) -> None:
        """Remembers only the latest of those that are settled."""
        settled = [q.question_id for q in self.state.questions.values() if q.outcome is not None]
        for question_id in settled[:-MAX_SETTLED]:
            del self.state.questions[question_id]
            self._audiences.pop(question_id, None)

    # Reading

    def is_settled(self, question_id: str) -> bool:
        """Whether nothing is to be waited for: it is settled, or there is no such question."""
        question = self.state.questions.get(question_id)
        return question is None or question.outcome is not None

    def views(self) -> tuple[OpenQuestion, ...]:
        """What waits for an answer, in the order of asking."""
        return tuple(
            OpenQuestion(
                question_id=question.question_id,
                kind=question.kind,
                seq=question.seq,
                digest=question.digest,
                turn_id=question.turn_id,
                tool=question.tool,
                deadline=question.deadline,
            )
            for question in self._open()
        )

    def asking(self) -> set[str | None]:
        """Returns the turns that have asked what nobody has answered; ``None`` is what asks outside turns."""
        return {question.turn_id for question in self._open()}

    def waits_for(self) -> str | None:
        """What the session waits for, as its memo says: an approval, else an answer, else nothing."""
        kinds = {question.kind for question in self._open()}
        if QuestionKind.APPROVAL in kinds:
            return names.WAITS_FOR_APPROVAL
        return names.WAITS_FOR_ANSWER if kinds else None

    @property
    def are_open(self) -> bool:
        """Whether any question waits."""
        return any(question.outcome is None for question in self.state.questions.values())

    def audiences(self) -> list[Audience]:
        """Returns who may answer each question that waits."""
        return [self._audience(question) for question in self._open()]

    def _audience(self, question: Question) -> Audience:
        # What was asked is read once: lists ask each time that anything happens.
        seq, audience = self._audiences.get(question.question_id, (None, EVERYBODY))
        if seq != question.seq:
            audience = self._asked(question).answerers
            self._audiences[question.question_id] = (question.seq, audience)
        return audience

    def approvals(self) -> OpenApprovals:
        """Returns the approvals that wait, newest first, as many as one answer holds."""
        return self.listed({QuestionKind.APPROVAL})

    def listed(self, kinds: Collection[QuestionKind] = frozenset(QuestionKind)) -> OpenApprovals:
        """Returns what waits of these kinds, newest first, as many as one answer holds."""
        waiting = [q.question_id for q in self._open() if q.kind in kinds]
        views: list[QuestionView] = []
        size_bytes = 0
        for question_id in reversed(waiting):
            view = self.view(question_id)
            assert view is not None, "what is asked stays in the log"
            size_bytes += len(view.model_dump_json())
            if size_bytes > MAX_LISTED_BYTES:
                break
            views.append(view)
        return OpenApprovals(questions=tuple(views), count=len(waiting))

    def view(self, question_id: str) -> QuestionView | None:
        """Returns a question with its outcome; ``None`` for one that is unknown, or long forgotten."""
        question = self.state.questions.get(question_id)
        event = self._event(question.seq) if question else None
        if question is None or event is None:
            return None
        return QuestionView(
            session_id=self._id,
            turn_id=question.turn_id,
            agent=question.agent,
            seq=question.seq,
            asked=event.data,
            asked_at=event.time,
            outcome=self._outcome(question),
        )

    def _outcome(self, question: Question) -> QuestionOutcome | None:
        event = self._event(question.settled_seq) if question.outcome else None
        if question.outcome is None or event is None:
            return None
        reason = event.data.get("reason")
        return QuestionOutcome(
            question_id=question.question_id,
            outcome=question.outcome,
            seq=event.seq,
            value=event.data.get("value"),
            actor=event.actor,
            reason=reason if isinstance(reason, str) else None,
        )

    def asked(self) -> Iterator[Event]:
        """Yields where the log has what waits, in the order of asking."""
        for question in self._open():
            event = self._event(question.seq)
            assert event is not None, "what is asked stays in the log"
            yield event

    def _open(self) -> list[Question]:
        return [question for question in self.state.questions.values() if question.outcome is None]

    def _asked(self, question: Question) -> QuestionAsked:
        event = self._event(question.seq)
        assert event is not None, "what is asked stays in the log"
        return as_asked(event.data)

    def _event(self, seq: int) -> Event | None:
        return next((event for event in self._log.after(seq - 1) if event.seq == seq), None)

    def _settle(self, question: Question, outcome: Outcome, actor: Actor, data: JsonObject) -> int:
        assert question.outcome is None, "a question is settled once"
        event = self._log.append(
            f"input.{outcome}",
            actor,
            self._now(),
            turn_id=question.turn_id,
            data={"question_id": question.question_id, **data},
        )
        question.outcome, question.settled_seq = outcome, event.seq
        if question.reply_to is not None:
            told = self._outcome(question)
            assert told is not None, "it was settled just now"
            self.state.replies.append(Reply(workflow_id=question.reply_to, outcome=told))
        if question.turn_id is not None:
            self.settled(question.turn_id)
        return event.seq


def _approves(value: JsonValue) -> bool:
    return isinstance(value, dict) and value.get("decision") == "approve"
