"""What a model's tools need of people: approvals, and answers in the place of results.

A tool with ``requires_approval``, or one that raises ``ApprovalRequired``, is approved by a person. A call
that is deferred (``CallDeferred``, or a tool without code) is a question, and its answer is the result.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import JsonValue, TypeAdapter, WithJsonSchema
from pydantic_ai import messages as ai
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.tools import (
    DeferredToolRequests,
    DeferredToolResults,
    ToolApproved,
    ToolDefinition,
    ToolDenied,
)
from pydantic_core import to_jsonable_python

from waystation.adapters.pydantic_ai.screen import Screen, shown_json
from waystation.agent import (
    Approval,
    ApprovalRejected,
    ApprovalTerms,
    Audience,
    Choice,
    QuestionExpired,
    Turn,
)
from waystation.answers import SchemaError, check_schema
from waystation.models.base import JsonObject
from waystation.models.questions import MAX_PROMPT_CHARACTERS

APPROVAL: Final = "approval"
"""Of a tool's ``metadata``, or of ``ApprovalRequired``'s: ``ApprovalTerms``."""
QUESTION: Final = "question"
"""Of a tool's ``metadata``, or of ``CallDeferred``'s: ``QuestionTerms``."""
_NOT_IN_A_KEY: Final = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True)
class QuestionTerms:
    """How people are asked for a deferred call's result; see ``Turn.ask``."""

    prompt: str | None = None
    """By default the call's own argument ``question``, or else the call."""
    answer: Any = None
    """The type of the answer; by default what the tool returns, or else text."""
    choices: Sequence[str | Choice] = ()
    audience: Audience | None = None
    expires_in: timedelta | None = None


class People:
    """Asks the people of a session about a run's deferred calls."""

    def __init__(self, turn: Turn, screen: Screen, terms: ApprovalTerms) -> None:
        """``terms``: how approvals are asked for, unless a tool says otherwise."""
        self._turn, self._screen, self._terms = turn, screen, terms

    async def settle(
        self, requests: DeferredToolRequests, tools: Mapping[str, ToolDefinition], run_step: int
    ) -> DeferredToolResults:
        """Asks everything at the same time, and returns what came of it."""
        results = DeferredToolResults()

        async def approve(call: ai.ToolCallPart) -> None:
            metadata = requests.metadata.get(call.tool_call_id)
            approval = await self._approve(call, metadata, tools.get(call.tool_name), run_step)
            if isinstance(approval, Approval):
                self._screen.approved(call.tool_call_id, approval.arguments)
                changed = approval.arguments if approval.edited else None
                results.approvals[call.tool_call_id] = ToolApproved(override_args=changed)
            else:
                results.approvals[call.tool_call_id] = approval

        async def ask(call: ai.ToolCallPart) -> None:
            metadata = requests.metadata.get(call.tool_call_id)
            answer = self.answer(call, metadata, tools.get(call.tool_name), run_step)
            try:
                results.calls[call.tool_call_id] = await answer
            except ToolFailed as failed:
                results.calls[call.tool_call_id] = failed

        with ExitStack() as around:
            # Each call ends with the last of them, so all of them wait as long as one does.
            for call in [*requests.approvals, *requests.calls]:
                around.enter_context(self._screen.inside(call.tool_call_id))
            async with asyncio.TaskGroup() as asked:
                for call in requests.approvals:
                    asked.create_task(approve(call))
                for call in requests.calls:
                    asked.create_task(ask(call))
        return results

    async def answer(
        self,
        call: ai.ToolCallPart,
        metadata: Mapping[str, Any] | None,
        tool: ToolDefinition | None,
        run_step: int,
    ) -> JsonValue:
        """Returns what a person gives as a call's result.

        Raises:
            ToolFailed: Nobody has answered in time.
        """
        terms = _told(QUESTION, QuestionTerms, metadata, tool) or QuestionTerms()
        try:
            answer: JsonValue = await self._turn.ask(
                terms.prompt or _prompt(call, tool),
                answer=_type_of_answer(terms, tool),
                choices=terms.choices,
                audience=terms.audience,
                expires_in=terms.expires_in,
                key=f"{key_of(call.tool_name, call.tool_call_id, run_step)}-result",
            )
        except QuestionExpired as expired:
            raise ToolFailed(str(expired)) from expired
        return answer

    async def _approve(
        self,
        call: ai.ToolCallPart,
        metadata: Mapping[str, Any] | None,
        tool: ToolDefinition | None,
        run_step: int,
    ) -> Approval | ToolDenied:
        terms = _told(APPROVAL, ApprovalTerms, metadata, tool) or self._terms
        if terms.editable and terms.schema is None and tool:
            terms = replace(terms, schema=_usable(tool.parameters_json_schema))
        try:
            return await self._turn.approve(
                call.tool_name,
                _arguments(call),
                prompt=terms.prompt,
                editable=terms.editable,
                schema=terms.schema,
                audience=terms.audience,
                expires_in=terms.expires_in,
                key=key_of(call.tool_name, call.tool_call_id, run_step),
            )
        except (ApprovalRejected, QuestionExpired) as error:
            return ToolDenied(str(error))


def key_of(tool: str, tool_call_id: str, run_step: int) -> str:
    """Returns a key for what happens in a call: the same in every attempt of the turn.

    Providers number calls as they like, some from the beginning in each response: hence ``run_step``.

    >>> key_of("delete_file", "call_1", 2)
    'delete_file-2-74196fe72e4c'
    """
    digest = hashlib.sha256(tool_call_id.encode()).hexdigest()[:12]
    return f"{_NOT_IN_A_KEY.sub('_', tool)[:40]}-{run_step}-{digest}"


def _told(name: str, kind: type[Any], metadata: Mapping[str, Any] | None, tool: ToolDefinition | None) -> Any:
    """Returns the terms that the call has brought along, or else those of its tool."""
    told = (metadata or {}).get(name) or ((tool and tool.metadata) or {}).get(name)
    if told is not None and not isinstance(told, kind):
        raise TypeError(f"'{name}' in a tool's metadata must be {kind.__name__}, not {type(told).__name__}")
    return told


def _arguments(call: ai.ToolCallPart) -> JsonObject:
    arguments = to_jsonable_python(call.args_as_dict(), inf_nan_mode="strings", fallback=str)
    return arguments if isinstance(arguments, dict) else {}


def _prompt(call: ai.ToolCallPart, tool: ToolDefinition | None) -> str:
    arguments = _arguments(call)
    asked = arguments.get("question")
    if isinstance(asked, str) and asked.strip():
        return asked[:MAX_PROMPT_CHARACTERS]
    said = json.dumps(shown_json(arguments), ensure_ascii=False)
    about = f"\n\n{tool.description}" if tool and tool.description else ""
    return f"What is the result of {call.tool_name}({said})?{about}"[:MAX_PROMPT_CHARACTERS]


def _type_of_answer(terms: QuestionTerms, tool: ToolDefinition | None) -> TypeAdapter[Any]:
    """Returns what the answer must be. Of what a tool returns, only its JSON Schema is known."""
    if terms.answer is not None:
        return TypeAdapter(terms.answer)
    schema = _usable(tool.return_schema) if tool and not terms.choices else None
    if not schema or schema.get("type") == "null":
        return TypeAdapter(str)
    return TypeAdapter(Annotated[Any, WithJsonSchema(schema)])


def _usable(schema: Mapping[str, Any] | None) -> JsonObject | None:
    """Returns a schema that people can fill in, or ``None``."""
    try:
        check_schema(dict(schema or {}))
    except SchemaError:
        return None
    return dict(schema or {})
