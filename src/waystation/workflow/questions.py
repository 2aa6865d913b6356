"""What a workflow asks people, and what comes back: the session signals what has become of each question."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from temporalio.exceptions import ApplicationError

from waystation.malformed import what_is_wrong
from waystation.models.base import JsonObject
from waystation.models.events import Actor, Role
from waystation.models.questions import (
    Audience,
    Choice,
    QuestionAsked,
    QuestionKind,
    QuestionOutcome,
    read_decision,
)
from waystation.models.refusals import RefusalCode
from waystation.workflow.errors import SessionError

T = TypeVar("T")

RAISE: Final = object()
"""``on_expiry`` by default: ``QuestionExpired`` is raised."""


class QuestionExpired(ApplicationError):
    """Nobody has answered in time."""

    def __init__(self) -> None:
        super().__init__("Nobody has answered in time.", type="QuestionExpired", non_retryable=True)


class QuestionWithdrawn(ApplicationError):
    """The question was withdrawn: its turn was stopped, or the session closed."""

    def __init__(self, reason: str | None) -> None:
        why = f"The question was withdrawn: {reason or 'no reason given'}."
        super().__init__(why, type="QuestionWithdrawn", non_retryable=True)


class AnswerNotUsable(ApplicationError):
    """The answer fits the question's JSON Schema, but not the type: a validator of its own refuses it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The answer can't be used: {why}", type="AnswerNotUsable", non_retryable=True)


class ApprovalRejected(ApplicationError):
    """A person, or a rule of the session, has said no."""

    def __init__(self, tool: str, reason: str | None, by: Actor | None) -> None:
        who = "A rule" if by is None else by.name or by.id
        said = f"{who} rejected {tool}" + (f": {reason}" if reason else ".")
        super().__init__(said, type="ApprovalRejected", non_retryable=True)
        self.tool, self.reason, self.by = tool, reason, by


@dataclass(frozen=True)
class Approval:
    """A tool may run, with these arguments."""

    arguments: JsonObject
    edited: bool
    """Whether whoever approved has changed them."""
    by: Actor | None
    """Who approved; ``None`` where a rule of the session did."""


def adapter_of(answer: type[T] | TypeAdapter[T]) -> TypeAdapter[T]:
    """Returns what reads answers of this type."""
    return answer if isinstance(answer, TypeAdapter) else TypeAdapter(answer)


def what_is_asked(
    adapter: TypeAdapter[T],
    prompt: str,
    *,
    choices: Sequence[str | Choice],
    audience: Audience | None,
    expires_in: timedelta | None,
) -> dict[str, Any]:
    """Returns a question for an answer of this type, without its id."""
    schema = adapter.json_schema()
    is_form = schema.get("type") == "object" or "$ref" in schema
    offered = [Choice(value=one) if isinstance(one, str) else one for one in choices]
    asked: dict[str, Any] = {
        "kind": QuestionKind.FORM if is_form else QuestionKind.QUESTION,
        "prompt": prompt,
        "schema": schema,
        "audience": audience,
        "expires_in_seconds": seconds(expires_in),
    }
    if offered:
        asked |= {"kind": QuestionKind.CHOICE, "choices": offered, "schema": None}
    return asked


def checked(details: dict[str, Any]) -> JsonObject:
    """Returns a question as it is written.

    Raises:
        SessionError: It can't be asked.
    """
    try:
        asked = QuestionAsked.model_validate(details)
    except ValidationError as error:
        raise SessionError(RefusalCode.BAD_QUESTION, "; ".join(what_is_wrong(error))) from None
    return asked.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def seconds(duration: timedelta | None) -> int | None:
    """Returns a duration as a question states it."""
    return None if duration is None else max(round(duration.total_seconds()), 1)


def value_of(outcome: QuestionOutcome) -> JsonValue:
    """Returns the answer, or raises what became of the question instead."""
    match outcome.outcome:
        case "answered":
            return outcome.value
        case "expired":
            raise QuestionExpired
        case _:
            raise QuestionWithdrawn(outcome.reason)


def answer_of(adapter: TypeAdapter[T], value: JsonValue) -> T:
    """Returns an answer as the type that was asked for."""
    try:
        return adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        raise AnswerNotUsable("; ".join(what_is_wrong(error))) from None


def approval_of(tool: str, arguments: JsonObject, outcome: QuestionOutcome) -> Approval:
    """Returns the approval, or raises why there is none."""
    decided = read_decision(value_of(outcome), arguments)
    by = None if outcome.actor is None or outcome.actor.role == Role.SYSTEM else outcome.actor
    if not decided.approved:
        raise ApprovalRejected(tool, decided.reason, by)
    return Approval(arguments=decided.arguments, edited=decided.edited, by=by)
