"""``waystation session questions``, ``… session answer``, ``… approvals``: what people are asked."""

import json
from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue

from waystation.cli.statements import approval_lines, question_lines
from waystation.client import Client, Session
from waystation.errors import StartError
from waystation.models.questions import QuestionKind, QuestionView
from waystation.terminal import confirm, say, say_model

_READ_AS_JSON: Final = frozenset({"integer", "number", "boolean", "array", "object", "null"})
"""Types of a schema; to a question for one of these a bare value is no text."""


class Wanted:
    """An answer as it was given at the command line."""

    def __init__(self, text: str | None, as_json: str | None, *, approve: bool, reject: str | None) -> None:
        given = [text is not None, as_json is not None, approve, reject is not None]
        if sum(given) != 1:
            raise StartError("give one answer: a value, --json JSON, --approve or --reject REASON.")
        self._text, self._json, self._reject = text, as_json, reject
        self._decides, self._approves = approve or reject is not None, approve

    def value_for(self, view: QuestionView) -> JsonValue:
        """Returns the value that is sent."""
        if (view.kind is QuestionKind.APPROVAL) != self._decides and self._json is None:
            how = "--approve or --reject REASON" if not self._decides else "a value"
            raise StartError(f"{view.asked['question_id']} is answered with {how}.")
        if self._approves:
            return {"decision": "approve"}
        if self._reject is not None:
            return {"decision": "reject", **({"reason": self._reject} if self._reject else {})}
        if self._json is not None:
            return _read_json(self._json)
        assert self._text is not None, "one answer was given"
        schema = view.asked.get("schema")
        wanted = schema.get("type") if isinstance(schema, dict) else None
        return _read_json(self._text) if wanted in _READ_AS_JSON else self._text


async def print_questions(session: Session, *, as_json: bool) -> None:
    """Prints what waits for an answer, in the order of asking."""
    views = [await session.question(one.question_id) for one in (await session.snapshot()).questions]
    if as_json:
        for view in views:
            say_model(view, indent=None)
        return
    if not views:
        say("No question is open.")
    for view in views:
        _say_all(question_lines(view))


async def answer(session: Session, view: QuestionView, wanted: Wanted, digest: str | None) -> None:
    """Shows what is asked, asks for confirmation of an approval, and answers."""
    value = wanted.value_for(view)
    if view.outcome is None and digest is None:
        _say_all(question_lines(view))
        rejects = isinstance(value, dict) and value.get("decision") == "reject"
        if view.kind is QuestionKind.APPROVAL and not rejects:
            confirm("Approve exactly this?")
    question_id = str(view.asked["question_id"])
    say_model(await session.answer(question_id, value, digest=digest or view.digest), indent=None)


async def print_approvals(client: Client, session_id: str | None, *, as_json: bool) -> None:
    """Prints everything that waits for a person's approval."""
    waiting = await client.approvals(session_id=session_id, limit=100)
    if as_json:
        say_model(waiting)
        return
    for one in waiting.approvals:
        _say_all(approval_lines(one))
    at_least = "at least " if waiting.more else ""
    say(f"{at_least}{waiting.count} {'waits' if waiting.count == 1 else 'wait'} for approval.")


def _say_all(lines: Iterator[str]) -> None:
    for line in lines:
        say(line)


def _read_json(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        raise StartError(f"{text!r} is not JSON.") from None
    return value
