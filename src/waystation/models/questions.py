"""Questions that an agent asks people, how they are answered, and which tools need an approval.

An agent writes ``input.requested`` as it writes anything else; its session records it, takes the first valid
answer, and reports that as ``input.answered``. docs/questions.md has the whole course.
"""

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, JsonValue, StrictBool, StringConstraints, model_validator

from waystation.models.base import BoundedJson, BoundedObject, ExactObject, Frozen, FrozenOpen, JsonObject
from waystation.models.decisions import Digest
from waystation.models.events import Actor, Identifier
from waystation.models.proofs import Proof

MAX_QUESTIONS = 200
"""Of one turn, answered or not; outside turns, of those that are open."""
MAX_PROMPT_CHARACTERS = 8_000
MAX_CHOICES = 100
MAX_REASON_CHARACTERS = 1_000
MAX_EXPIRY_SECONDS = 90 * 86_400
MAX_ANSWER_BYTES = 49_152
"""Of an answer's value as JSON: with what else is recorded of it, it fits in an event."""
MAX_RULES = 100

AnswersAs = Literal["user", "operator", "approver"]
"""What somebody is who answers. ``approver`` is a credential's role; in the log an approver is a user."""


class QuestionKind(StrEnum):
    """What is asked for, so that clients know what to show."""

    QUESTION = "question"
    """One value: text, a number, yes or no."""
    CHOICE = "choice"
    FORM = "form"
    """An object with several fields."""
    APPROVAL = "approval"
    """Whether a tool may run with exactly these arguments."""


class Audience(Frozen):
    """Who may answer: whoever has one of the roles, or one of the ids."""

    roles: tuple[AnswersAs, ...] = Field(default=(), max_length=3)
    ids: tuple[Identifier, ...] = Field(default=(), max_length=50)

    def has(self, who: Actor, answers_as: AnswersAs) -> bool:
        """Returns whether this person may answer."""
        return answers_as in self.roles or who.id in self.ids


EVERYBODY: Final = Audience(roles=("user", "operator"))
APPROVERS: Final = Audience(roles=("user", "operator", "approver"))


class Choice(Frozen):
    """One of several answers."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    label: Annotated[str, StringConstraints(max_length=200)] | None = None


class QuestionAsked(Frozen):
    """The data of an item ``input.requested``: what an agent asks.

    An answer's value fits ``schema`` (JSON Schema, 2020-12). Of a ``choice`` it is one of ``choices``; of an
    ``approval`` it is an ``ApprovalAnswer``, and the schema is that of the arguments, if they may be edited.
    """

    question_id: Identifier
    kind: QuestionKind = QuestionKind.QUESTION
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]
    answer_schema: BoundedObject | None = Field(default=None, alias="schema")
    choices: tuple[Choice, ...] = Field(default=(), max_length=MAX_CHOICES)
    audience: Audience | None = None
    """``None``: users and operators, and approvers of an approval."""
    expires_in_seconds: int | None = Field(default=None, ge=1, le=MAX_EXPIRY_SECONDS, strict=True)
    tool: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    arguments: ExactObject | None = None
    editable: StrictBool = False
    """Whether whoever approves may change the arguments."""
    reply_to: Annotated[str, StringConstraints(min_length=1, max_length=1_000)] | None = None
    """A workflow that gets the signal ``waystation_answer`` with what became of the question."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.audience is not None and not (self.audience.roles or self.audience.ids):
            raise ValueError("nobody may answer: name roles or ids in 'audience', or leave it out")
        if (self.kind is QuestionKind.CHOICE) != bool(self.choices):
            raise ValueError("'choices' are of a choice, and a choice has some")
        if len({choice.value for choice in self.choices}) < len(self.choices):
            raise ValueError("each of 'choices' has a value of its own")
        is_approval = self.kind is QuestionKind.APPROVAL
        if is_approval != (self.tool is not None) or is_approval != (self.arguments is not None):
            raise ValueError("'tool' and 'arguments' are of an approval, and an approval has both")
        if self.editable and not is_approval:
            raise ValueError("only arguments of an approval are 'editable'")
        return self

    @property
    def answerers(self) -> Audience:
        """Who may answer."""
        return self.audience or (APPROVERS if self.kind is QuestionKind.APPROVAL else EVERYBODY)

    def shown(self) -> JsonObject:
        """Returns what the event says of it, and what the digest covers: everything but ``reply_to``."""
        return self.model_dump(
            mode="json", by_alias=True, exclude={"reply_to"}, exclude_defaults=True, exclude_none=True
        ) | {
            "kind": str(self.kind),
            "audience": self.answerers.model_dump(mode="json", exclude_defaults=True),
        }


def digest_of(session_id: str, shown: JsonObject) -> str:
    """Returns the digest of a question as it is shown in a session: whoever decides has seen exactly this.

    >>> digest_of("s-1", {"question_id": "t1:size", "prompt": "Which size?"})[:11]
    'sha256:8c17'
    """
    text = json.dumps([session_id, shown], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


_ADDED_BY_THE_SESSION: Final = frozenset({"digest", "deadline"})


def as_asked(data: JsonObject) -> QuestionAsked:
    """Returns what an agent asked, of the data of the event."""
    return QuestionAsked.model_validate(
        {name: value for name, value in data.items() if name not in _ADDED_BY_THE_SESSION}
    )


class QuestionWithdrawn(Frozen):
    """The data of an item ``input.withdrawn``: an agent no longer wants to know."""

    question_id: Identifier
    reason: str | None = Field(default=None, max_length=MAX_REASON_CHARACTERS)


class ApprovalAnswer(Frozen):
    """The value that answers an ``approval``."""

    decision: Literal["approve", "reject"]
    reason: str | None = Field(default=None, max_length=MAX_REASON_CHARACTERS)
    arguments: ExactObject | None = None
    """Other arguments with which the tool may run; only where they are editable, and with ``approve``."""

    @model_validator(mode="after")
    def _rejects_without_arguments(self) -> Self:
        if self.arguments is not None and self.decision == "reject":
            raise ValueError("who rejects gives no arguments")
        return self


class Decided(NamedTuple):
    """What the value that answers an approval says of the arguments that were asked for."""

    approved: bool
    arguments: JsonObject
    """Those with which the tool may run."""
    edited: bool
    reason: str | None


def read_decision(value: JsonValue, arguments: JsonObject) -> Decided:
    """Returns what was decided; anything but an approval is a rejection.

    >>> read_decision({"decision": "approve", "arguments": {"path": "b"}}, {"path": "a"}).arguments
    {'path': 'b'}
    """
    said = value if isinstance(value, dict) else {}
    approved, edited, reason = said.get("decision") == "approve", said.get("arguments"), said.get("reason")
    allowed = edited if approved and isinstance(edited, dict) else arguments
    return Decided(approved, allowed, allowed != arguments, reason if isinstance(reason, str) else None)


def _check_size(value: JsonValue) -> JsonValue:
    size_bytes = len(json.dumps(value))
    if size_bytes > MAX_ANSWER_BYTES:
        raise ValueError(f"an answer has at most {MAX_ANSWER_BYTES:,} bytes of JSON, not {size_bytes:,}")
    return value


AnswerValue = Annotated[BoundedJson, AfterValidator(_check_size)]


class AnswerQuestion(Frozen):
    """The argument of the signal ``answer`` and the update ``answer_question``."""

    question_id: Identifier
    value: AnswerValue
    actor: Actor
    answers_as: AnswersAs = "user"
    digest: Digest | None = None
    """Of the question as it was shown; whoever approves must give it."""
    proof: Proof | None = None
    """Of a decision on an approval, where workers take only proven ones."""


class Answered(FrozenOpen):
    """The answer to ``answer_question``: what counts, and where it is recorded."""

    question_id: str
    seq: int


class QuestionOutcome(FrozenOpen):
    """What became of a question: the argument of ``waystation_answer``."""

    question_id: str
    outcome: Literal["answered", "expired", "withdrawn"]
    seq: int
    value: JsonValue = None
    actor: Actor | None = None
    """Who answered; Waystation itself where a rule decided."""
    reason: str | None = None


class OpenQuestion(FrozenOpen):
    """A question that waits for its answer; ``seq`` is where the log has all of it."""

    question_id: str
    kind: QuestionKind
    seq: int
    digest: str
    turn_id: str | None = None
    tool: str | None = None
    deadline: datetime | None = None


class QuestionView(FrozenOpen):
    """A question with all that was asked, and what has become of it."""

    session_id: str
    turn_id: str | None = None
    agent: str
    seq: int
    asked: JsonObject
    """The data of ``input.requested``: what the agent asked, ``digest`` and ``deadline``."""
    asked_at: datetime
    outcome: QuestionOutcome | None = None

    @property
    def kind(self) -> QuestionKind:
        """What is asked for."""
        return QuestionKind(str(self.asked["kind"]))

    @property
    def digest(self) -> str:
        """What says that somebody has seen exactly this."""
        return str(self.asked["digest"])

    @property
    def deadline(self) -> datetime | None:
        """When the question expires."""
        at = self.asked.get("deadline")
        return datetime.fromisoformat(at) if isinstance(at, str) else None


class OpenApprovals(FrozenOpen):
    """What a session waits for (approvals of tools, or all questions), newest first, as many as fit."""

    questions: tuple[QuestionView, ...]
    count: int


class AnswerRequest(Frozen):
    """The body of ``POST /sessions/{id}/questions/{question_id}/answer``."""

    value: AnswerValue
    digest: Digest | None = None
    """Of the question as it was shown; needed to approve."""
    actor: Actor | None = None
    """Who answers; only for the role ``service``, which speaks for its users, and not on approvals."""


class ApprovalRule(Frozen):
    """What happens when an agent wants approval of a tool; the first rule that fits decides.

    ``tool`` and the values of ``arguments`` are patterns with ``*``, ``?`` and ``[…]``. An argument that is
    no string is compared as JSON; one that is missing doesn't fit.
    """

    tool: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    arguments: dict[str, Annotated[str, StringConstraints(max_length=1_000)]] = Field(
        default_factory=dict, max_length=20
    )
    policy: Literal["allow", "deny", "ask", "ask_once"]
    """``ask_once``: once a person has approved under this rule, it allows for the rest of the session."""

    def fits(self, tool: str, arguments: JsonObject) -> bool:
        """Returns whether the rule is about this call.

        >>> rule = ApprovalRule(tool="files.*", arguments={"path": "/tmp/*"}, policy="allow")
        >>> rule.fits("files.delete", {"path": "/tmp/a"}), rule.fits("files.delete", {"path": "/etc/a"})
        (True, False)
        """
        return fnmatchcase(tool, self.tool) and all(
            name in arguments and fnmatchcase(_as_text(arguments[name]), pattern)
            for name, pattern in self.arguments.items()
        )


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


ApprovalRules = Annotated[tuple[ApprovalRule, ...], Field(max_length=MAX_RULES)]
