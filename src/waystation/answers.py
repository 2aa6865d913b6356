"""Whether an answer fits its question: JSON Schema, bounded in what it may cost.

A schema comes from an agent and is applied in a workflow, where nothing may take long and nothing may be
fetched. So it is small, refers only to itself and never in a circle, and its patterns are of the kind that
takes linear time.
"""

from typing import Final

import jsonschema_rs
from pydantic import JsonValue, TypeAdapter, ValidationError

from waystation.malformed import places_and_faults
from waystation.models.base import JsonObject
from waystation.models.questions import ApprovalAnswer, QuestionAsked, QuestionKind

MAX_SCHEMA_NODES: Final = 2_000
"""Parts of a schema, with each part counted where it is referred to."""
MAX_NAMED_ERRORS = 5

_REFERENCE: Final = "#/$defs/"
_NOT_TAKEN: Final = frozenset(
    {"$id", "$schema", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef", "$vocabulary"}
)
_APPROVAL: TypeAdapter[ApprovalAnswer] = TypeAdapter(ApprovalAnswer)


class SchemaError(ValueError):
    """A schema can't be used; says why."""


class AnswerError(ValueError):
    """An answer doesn't fit its question; names the fields."""

    def __init__(self, *errors: tuple[str, str]) -> None:
        """``errors``: each place in the answer, ``value`` for all of it, and what is wrong there."""
        super().__init__("; ".join(f"{place}: {wrong}" for place, wrong in errors))
        self.errors = errors


def check_schema(schema: JsonObject) -> None:
    """Refuses a schema that can't be applied, or might take long.

    >>> check_schema({"type": "integer", "minimum": 1})

    Raises:
        SchemaError: Says what is wrong.
    """
    _Size(schema).of(schema)
    _validator(schema)


def check_answer(question: QuestionAsked, value: JsonValue) -> JsonValue:
    """Returns an answer as it is recorded.

    >>> question = QuestionAsked(question_id="q", prompt="How many?", schema={"type": "integer"})
    >>> check_answer(question, 3)
    3

    Raises:
        AnswerError: It doesn't fit the question.
    """
    if question.kind is QuestionKind.APPROVAL:
        return _check_approval(question, value)
    if question.choices and value not in [choice.value for choice in question.choices]:
        raise AnswerError(("value", "choose one of " + ", ".join(repr(c.value) for c in question.choices)))
    if question.answer_schema is not None:
        _check(question.answer_schema, value, "value")
    elif not question.choices and not isinstance(value, str):
        raise AnswerError(("value", "a text is asked for"))
    return value


def _check_approval(question: QuestionAsked, value: JsonValue) -> JsonValue:
    if not isinstance(value, dict):
        raise AnswerError(("value", "an approval is answered with an object that has a 'decision'"))
    try:
        answer = _APPROVAL.validate_python(value, strict=True)
    except ValidationError as error:
        wrong = places_and_faults(error)
        raise AnswerError(
            *((f"value.{place}" if place else "value", fault) for place, fault in wrong)
        ) from None
    if answer.arguments is not None:
        if not question.editable:
            raise AnswerError(("value.arguments", "the agent takes only the arguments that it asked for"))
        if question.answer_schema is not None:
            _check(question.answer_schema, answer.arguments, "value.arguments")
    return answer.model_dump(mode="json", exclude_none=True)


def _check(schema: JsonObject, value: JsonValue, where: str) -> None:
    errors = list(_validator(schema).iter_errors(value))[:MAX_NAMED_ERRORS]
    if errors:
        raise AnswerError(*((".".join([where, *map(str, e.instance_path)]), e.message) for e in errors))


def _validator(schema: JsonObject) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            schema, validate_formats=False, offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        message = getattr(error, "message", None) or str(error)
        raise SchemaError(f"it is no JSON Schema that can be used here: {message.splitlines()[0]}") from None


class _Size:
    """Counts the parts of a schema as they are applied, so that references can't multiply without end."""

    def __init__(self, schema: JsonObject) -> None:
        defined = schema.get("$defs")
        self._defined = defined if isinstance(defined, dict) else {}
        self._known: dict[str, int | None] = {}

    def of(self, node: JsonValue) -> int:
        """Returns the size. Raises ``SchemaError`` where it is too much, or refers elsewhere."""
        if isinstance(node, list):
            return self._bounded(1 + sum(map(self.of, node)))
        if not isinstance(node, dict):
            return 1
        if taken := _NOT_TAKEN & node.keys():
            raise SchemaError(f"{min(taken)} can't be used here; leave it out")
        size = 1
        for name, part in node.items():
            size += self._referred(part) if name == "$ref" else self.of(part)
        return self._bounded(size)

    def _referred(self, reference: JsonValue) -> int:
        if not isinstance(reference, str) or not reference.startswith(_REFERENCE):
            raise SchemaError("$ref refers to a part of '$defs', as #/$defs/<name>, and to nothing else")
        name = reference.removeprefix(_REFERENCE)
        if name not in self._known:
            self._known[name] = None
            self._known[name] = self.of(self._defined.get(name))
        size = self._known[name]
        if size is None:
            raise SchemaError(f"'{reference}' refers to itself; nobody could fill in such a form")
        return size

    @staticmethod
    def _bounded(size: int) -> int:
        if size > MAX_SCHEMA_NODES:
            raise SchemaError(f"it has more than {MAX_SCHEMA_NODES:,} parts; ask for less at a time")
        return size
