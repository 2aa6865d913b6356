"""What people see of a run: one message for each part of a response, and tools as they run."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from typing import Any, Final

from pydantic import JsonValue
from pydantic_ai import messages as ai
from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.tools import ToolDefinition
from pydantic_core import to_json

from waystation.agent import MessageWriter, ToolCall, Turn
from waystation.models.base import JsonObject
from waystation.models.events import MAX_MESSAGE_CHARACTERS

MAX_SHOWN_BYTES: Final = 32_768
"""The most JSON of a tool's arguments or result that a session shows; the model gets all of it."""
PREVIEW_CHARACTERS: Final = 4_000


class Screen:
    """Writes a run's events to the session: one message per part, tools as they are called."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._part: tuple[int, str] | None = None
        self._message: AbstractAsyncContextManager[MessageWriter] | None = None
        self._writer: MessageWriter | None = None
        self._said: list[AbstractAsyncContextManager[MessageWriter]] = []
        """Messages with all their text, completed once the response is recorded: a later attempt that
        remembers no response withdraws all that it said, and asks again."""
        self._calls: dict[str, tuple[AbstractAsyncContextManager[ToolCall], ToolCall]] = {}
        self._unapproved: dict[str, ai.ToolCallPart] = {}
        """Calls that aren't shown, since people have not approved them, or not yet."""
        self.tools: dict[str, ToolDefinition] = {}
        """The tools of the run, by name."""

    async def show(self, event: object) -> None:
        match event:
            case ai.PartStartEvent(index=index, part=ai.TextPart() as part):
                await self._begin(index, "text")
                await self._write(part.content)
            case ai.PartStartEvent(index=index, part=ai.ThinkingPart() as part):
                await self._begin(index, "reasoning")
                await self._write(part.content)
            case ai.PartDeltaEvent(index=index, delta=ai.TextPartDelta() as delta):
                await self._continue(index, "text")
                await self._write(delta.content_delta)
            case ai.PartDeltaEvent(index=index, delta=ai.ThinkingPartDelta() as delta):
                await self._continue(index, "reasoning")
                await self._write(delta.content_delta or "")
            case ai.PartEndEvent(part=ai.NativeToolCallPart() as part):
                await self._called(part)
            # It comes whole, so no event says that it has ended.
            case ai.PartStartEvent(part=ai.NativeToolReturnPart() as part):
                await self._returned(part)
            case ai.PartEndEvent(index=index) if self._part and self._part[0] == index:
                await self.end_part()
            case ai.FunctionToolCallEvent(part=part):
                await self._called(part)
            case ai.FunctionToolResultEvent(part=part):
                await self._returned(part)
            case _:
                pass

    async def _begin(self, index: int, kind: str) -> None:
        await self.end_part()
        self._part = (index, kind)

    async def _continue(self, index: int, kind: str) -> None:
        if self._part != (index, kind):
            await self._begin(index, kind)

    async def _write(self, text: str) -> None:
        while text:
            # Started with its first character, so that an empty part leaves no empty message.
            is_reasoning = bool(self._part and self._part[1] == "reasoning")
            if self._writer is None:
                kind = "reasoning" if is_reasoning else None
                self._message = self._turn.message(kind=kind)
                self._writer = await self._message.__aenter__()
            room = MAX_MESSAGE_CHARACTERS - self._writer.length
            if room <= 0:
                await self._end_message(is_reasoning)
                continue
            await self._writer.write(text[:room])
            text = text[room:]

    async def end_part(self) -> None:
        """Ends the message of the part being written."""
        is_reasoning = bool(self._part and self._part[1] == "reasoning")
        self._part = None
        await self._end_message(is_reasoning)

    async def end_response(self) -> None:
        """Completes what the response has said: it is recorded."""
        await self.end_part()
        while self._said:
            await self._said.pop(0).__aexit__(None, None, None)

    async def _end_message(self, is_reasoning: bool) -> None:
        if self._message:
            message, self._message, self._writer = self._message, None, None
            if is_reasoning:  # people see at once that it has thought; it is part of no conversation
                await message.__aexit__(None, None, None)
            else:
                self._said.append(message)

    async def _called(self, part: ai.ToolCallPart | ai.NativeToolCallPart) -> None:
        await self.end_part()
        if isinstance(part, ai.ToolCallPart):
            tool = self.tools.get(part.tool_name)
            if tool and tool.kind == "unapproved":
                self._unapproved[part.tool_call_id] = part
                return
        await self._show_call(part)

    async def _show_call(self, part: ai.ToolCallPart | ai.NativeToolCallPart) -> None:
        kind = "native" if isinstance(part, ai.NativeToolCallPart) else None
        shown = self._turn.show_tool(part.tool_name, shown_json(part.args_as_dict()), kind=kind)
        self._calls[part.tool_call_id] = (shown, await shown.__aenter__())

    def approved(self, tool_call_id: str, arguments: JsonObject) -> None:
        """Notes the arguments with which a call may run: it is shown with them once it does."""
        if part := self._unapproved.get(tool_call_id):
            self._unapproved[tool_call_id] = replace(part, args=dict(arguments))

    async def running(self, tool_call_id: str) -> None:
        """Shows a call that runs, unless it is shown already."""
        if part := self._unapproved.pop(tool_call_id, None):
            await self._show_call(part)

    def inside(self, tool_call_id: str, *, key: str | None = None) -> AbstractContextManager[None]:
        """Says that the block's code is that of a call, which is remembered under ``key``."""
        entry = self._calls.get(tool_call_id)
        return self._turn.inside(entry[1] if entry else None, key=key)

    async def _returned(self, part: ai.ToolReturnPart | ai.NativeToolReturnPart) -> None:
        call_part = self._unapproved.pop(part.tool_call_id, None)
        if call_part and part.outcome != "denied":
            await self._show_call(call_part)  # it never came to be decided: its arguments are wrong, say
        entry = self._calls.pop(part.tool_call_id, None)
        if entry is None:
            return
        shown, call = entry
        if part.outcome == "success":
            call.result = shown_json(part.content)
            await shown.__aexit__(None, None, None)
        else:
            kind = ModelRetry if part.outcome == "retried" else ToolFailed
            error = kind(str(part.content)[:PREVIEW_CHARACTERS])
            await shown.__aexit__(type(error), error, None)

    async def close(self, error: Exception | None = None) -> None:
        """Releases what a stop or a failure left open; tools that were running show the error.

        A message left open ends with its turn and keeps its text.
        """
        why = error or asyncio.CancelledError()
        blocks = [self._message, *self._said, *(shown for shown, _ in self._calls.values())]
        self._message, self._writer = None, None
        self._said.clear()
        self._calls.clear()
        for block in blocks:
            if block:
                await block.__aexit__(type(why), why, None)


def shown_json(value: Any) -> JsonValue:
    """Returns a tool's arguments or result as a session shows them: JSON, and no more than fits in an event.

    >>> shown_json({"when": __import__("datetime").date(2026, 1, 2)})
    {'when': '2026-01-02'}
    """
    encoded = to_json(value, fallback=str, inf_nan_mode="strings", bytes_mode="base64")
    if len(encoded) <= MAX_SHOWN_BYTES:
        shown: JsonValue = json.loads(encoded)
        return shown
    preview = encoded.decode()[:PREVIEW_CHARACTERS]
    return {"truncated": True, "bytes": len(encoded), "preview": preview}
