"""A turn's questions to people: what is asked, what comes back, and the same question after a restart."""

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from temporalio import activity

from waystation.agent.retelling import Retelling, canonical
from waystation.agent.steps import place_of_counting
from waystation.agent.waits import Waits
from waystation.agent.writer import Writer
from waystation.answers import AnswerError, SchemaError, check_answer, check_schema
from waystation.errors import WaystationError, is_raised
from waystation.malformed import what_is_wrong
from waystation.models.base import JsonObject
from waystation.models.events import Actor, EventType, Role
from waystation.models.ingest import AnsweredFrame
from waystation.models.questions import (
    Audience,
    Choice,
    QuestionAsked,
    QuestionKind,
    as_asked,
    read_decision,
)

T = TypeVar("T")

RAISE: Final = object()
"""``on_expiry`` by default: ``QuestionExpired`` is raised."""


class QuestionExpired(WaystationError):
    """Nobody has answered in time."""


class QuestionWithdrawn(WaystationError):
    """The question was withdrawn: its turn was stopped, or the session closed."""


class AnswerNotUsable(WaystationError):
    """The answer fits the question's JSON Schema, but not the type: a validator of its own refuses it."""


class ApprovalRejected(WaystationError):
    """A person, or a rule of the session, has said no."""

    def __init__(self, tool: str, reason: str | None, by: Actor | None) -> None:
        who = "A rule" if by is None else by.name or by.id
        super().__init__(f"{who} rejected {tool}" + (f": {reason}" if reason else "."))
        self.tool, self.reason, self.by = tool, reason, by


@dataclass(frozen=True)
class Approval:
    """A tool may run, with these arguments."""

    arguments: dict[str, JsonValue]
    edited: bool
    """Whether whoever approved has changed them."""
    by: Actor | None
    """Who approved; ``None`` where a rule of the session did."""


@dataclass(frozen=True)
class ApprovalTerms:
    """How a tool's approval is asked for; see ``Turn.approve``."""

    prompt: str | None = None
    schema: JsonObject | None = None
    editable: bool = False
    audience: Audience | None = None
    expires_in: timedelta | None = None
    key: str | None = None


class Questions:
    """The questions of one attempt of a turn."""

    def __init__(
        self,
        turn_id: str,
        writer: Writer,
        waits: Waits,
        retelling: Retelling,
        told: Mapping[str, JsonObject],
    ) -> None:
        """``told``: what earlier attempts have asked, by id."""
        self._turn_id, self._writer, self._waits, self._retelling = turn_id, writer, waits, retelling
        self._told, self._now = told, dict[str, str]()
        self._counted: Counter[str] = Counter()
        self._answers: dict[str, asyncio.Future[AnsweredFrame]] = {}

    async def ask(
        self,
        prompt: str,
        *,
        answer: type[T] | TypeAdapter[T],
        choices: Sequence[str | Choice] = (),
        audience: Audience | None = None,
        expires_in: timedelta | None = None,
        on_expiry: object = RAISE,
        key: str | None = None,
    ) -> T:
        """See ``Turn.ask``."""
        adapter: TypeAdapter[T] = answer if isinstance(answer, TypeAdapter) else TypeAdapter(answer)
        schema = adapter.json_schema()
        is_form = schema.get("type") == "object" or "$ref" in schema
        kind = QuestionKind.FORM if is_form else QuestionKind.QUESTION
        offered = [Choice(value=one) if isinstance(one, str) else one for one in choices]
        details: dict[str, Any] = {
            "kind": QuestionKind.CHOICE if offered else kind,
            "prompt": prompt,
            "choices": offered,
            "audience": audience,
            "expires_in_seconds": _seconds(expires_in),
        }
        if not offered:
            details["schema"] = schema
        asked = self._question(details, key)
        frame = await self._settled(asked)
        if frame.outcome == "expired" and on_expiry is not RAISE:
            if is_raised(on_expiry):
                raise on_expiry
            return on_expiry  # type: ignore[return-value]
        value = _value_of(frame, asked)
        try:
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            raise AnswerNotUsable("The answer can't be used: " + "; ".join(what_is_wrong(error))) from error

    async def approve(self, tool: str, arguments: JsonObject, terms: ApprovalTerms) -> Approval:
        """See ``Turn.approve``."""
        details: dict[str, Any] = {
            "kind": QuestionKind.APPROVAL,
            "prompt": terms.prompt or f"Allow {tool}?",
            "tool": tool,
            "arguments": arguments,
            "schema": terms.schema,
            "editable": terms.editable,
            "audience": terms.audience,
            "expires_in_seconds": _seconds(terms.expires_in),
        }
        asked = self._question(details, terms.key)
        frame = await self._settled(asked)
        decided = read_decision(_value_of(frame, asked), arguments)
        by = None if frame.actor.role == Role.SYSTEM else frame.actor
        if not decided.approved:
            raise ApprovalRejected(tool, decided.reason, by)
        return Approval(arguments=decided.arguments, edited=decided.edited, by=by)

    async def _settled(self, asked: QuestionAsked) -> AnsweredFrame:
        """Asks, and returns what becomes of it. A later attempt that asks the same finds its answer."""
        self._retelling.asks(asked.question_id, asked.prompt)
        asked = self._as_first_asked(asked)
        settled = self._answer_of(asked.question_id)
        try:
            if not settled.done():
                # Of its refusal it hears itself: nobody ever answers what was not asked.
                data = asked.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                await self._writer.record(EventType.INPUT_REQUESTED, data)
            return await self._waits.wait(asked.question_id, settled)
        except asyncio.CancelledError:
            self._withdraw(asked.question_id)
            raise

    def _as_first_asked(self, asked: QuestionAsked) -> QuestionAsked:
        """Returns a question in the words in which people see it: those of the attempt that asked first.

        Raises:
            ValueError: Its key names another question, whose answer says nothing about this one.
        """
        question_id = asked.question_id
        words = canonical(
            {name: said for name, said in asked.shown().items() if name != "expires_in_seconds"}
        )
        if self._now.setdefault(question_id, words) != words:
            raise _key_taken(asked, "this attempt has asked something else under it")
        if question_id not in self._told:
            return asked
        first = as_asked(self._told[question_id])
        if differs := _what_differs(asked, first):
            raise _key_taken(asked, f"an earlier attempt has asked with other {differs} under it")
        return first

    def _question(self, details: dict[str, Any], key: str | None) -> QuestionAsked:
        try:
            asked = QuestionAsked.model_validate({**details, "question_id": self._id(details, key)})
            check_schema(asked.answer_schema or {})
        except ValidationError as error:
            raise ValueError("This can't be asked: " + "; ".join(what_is_wrong(error))) from error
        except SchemaError as error:
            raise ValueError(f"People can't be asked for this type: {error}") from error
        return asked

    def _id(self, details: dict[str, Any], key: str | None) -> str:
        """Returns the same id for the same question in every attempt; equal ones count up."""
        if key is not None:
            return f"{self._turn_id}:{key}"
        said = json.dumps(details, sort_keys=True, default=repr) + place_of_counting()
        same = hashlib.sha256(said.encode()).hexdigest()[:16]
        self._counted[same] += 1
        count = self._counted[same]
        return f"{self._turn_id}:{same}" + ("" if count == 1 else f"-{count}")

    def _withdraw(self, question_id: str) -> None:
        """Takes a question back that the turn no longer waits for, while the turn itself goes on."""
        if activity.in_activity() and (activity.is_cancelled() or activity.is_worker_shutdown()):
            return
        with contextlib.suppress(WaystationError):
            self._writer.put(EventType.INPUT_WITHDRAWN, {"question_id": question_id}, flush=True)

    def hear(self, frame: AnsweredFrame) -> None:
        """Takes what has become of a question."""
        if frame.outcome == "withdrawn" and frame.actor.role == Role.AGENT:
            return  # by an earlier attempt, which has given up; this one asks again
        settled = self._answer_of(frame.question_id)
        if not settled.done():
            settled.set_result(frame)

    def _answer_of(self, question_id: str) -> "asyncio.Future[AnsweredFrame]":
        if question_id not in self._answers:
            self._answers[question_id] = asyncio.get_running_loop().create_future()
        return self._answers[question_id]


def _seconds(duration: timedelta | None) -> int | None:
    return None if duration is None else max(round(duration.total_seconds()), 1)


def _what_differs(asked: QuestionAsked, first: QuestionAsked) -> str | None:
    """Returns why the answer to what was asked first says nothing about what is asked now, or ``None``.

    Words may differ, and what may be answered: the answer is checked against that. Not what a tool would run
    with, nor who may answer, for nobody has seen, or was asked, the other.
    """
    if canonical([asked.tool, asked.arguments]) != canonical([first.tool, first.arguments]):
        return "arguments"
    mine, told = asked.answerers, first.answerers
    same = set(mine.roles) == set(told.roles) and set(mine.ids) == set(told.ids)
    return None if same else "people"


def _key_taken(asked: QuestionAsked, why: str) -> ValueError:
    key = asked.question_id.partition(":")[2]
    return ValueError(f"This can't be asked: the key {key!r} is taken: {why}. Give each question its own.")


def _value_of(frame: AnsweredFrame, asked: QuestionAsked) -> JsonValue:
    """Returns the answer, if there is one that fits what is asked now: a release may have changed that."""
    match frame.outcome:
        case "answered":
            try:
                return check_answer(asked, frame.value)
            except AnswerError as error:
                raise AnswerNotUsable(f"The answer can't be used: {error}") from None
        case "expired":
            raise QuestionExpired("Nobody has answered in time.")
        case _:
            raise QuestionWithdrawn(f"The question was withdrawn: {frame.reason or 'no reason given'}.")
