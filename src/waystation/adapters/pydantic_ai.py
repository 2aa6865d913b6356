"""Language models as session agents, over pydantic-ai (extra ``llm``).

Wrap your own agent, with tools and instructions, with ``llm_agent``:

    agent = llm_agent("shopper", pydantic_ai.Agent("anthropic:claude-sonnet-4-5", tools=[...]))

Everything a session offers works: text and reasoning are streamed, tool calls are shown, what people say in
the meantime reaches the model with its next request, and a stop ends the request immediately.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

try:
    import pydantic_ai
except ImportError as error:
    raise ImportError("The model agents need pydantic-ai: pip install 'waystation[llm]'") from error

from pydantic import JsonValue
from pydantic_ai import messages as ai
from pydantic_ai.agent import AgentRun
from pydantic_ai.capabilities import ReinjectSystemPrompt
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelRetry,
    ModelServerError,
    ModelUnavailableError,
    ToolFailed,
)
from pydantic_core import to_json

from waystation.agent import Agent, MessageWriter, RetryTurn, ToolCall, Turn
from waystation.client.transcript import Message, ToolUse
from waystation.errors import WaystationError
from waystation.models.events import MAX_MESSAGE_CHARACTERS, Role

MAX_HISTORY_MESSAGES = 200
"""How many of a session's newest messages the model is given; older ones are left out."""
MAX_SHOWN_BYTES = 32_768
"""The most JSON of a tool's arguments or result that a session shows; the model gets all of it."""
_PREVIEW_CHARACTERS = 4_000

Prompt: TypeAlias = str | Sequence[ai.UserContent]
"""What a model is asked: text, or text with images and files."""


class ModelFailed(WaystationError):
    """The model's provider refused or failed; its own words stay in the agent's log."""


_TRANSIENT = (
    ModelConnectionError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
)
"""Provider failures that may not recur for the same request."""


def llm_agent(
    name: str,
    model_agent: "pydantic_ai.Agent[Any, Any]",
    *,
    deps: Callable[[Turn], Any] | None = None,
    prompt: Callable[[Turn], Prompt] | None = None,
    max_history_messages: int = MAX_HISTORY_MESSAGES,
) -> Agent:
    """Returns a session agent that runs a pydantic-ai agent.

    ``deps`` makes a turn's dependencies; by default they are the ``Turn`` itself, so that a
    tool can ``ctx.deps.spawn(…)`` or ``ctx.deps.emit(…)``. ``prompt`` makes the prompt from a turn (to add
    images named in ``turn.data``, for example); by default it is the turn's text.

    A turn's result is ``{"model", "usage": {"requests", "input_tokens", "output_tokens",
    "tool_calls"}}``, with ``output`` added if it isn't already on screens: a structured output, or a
    sub-agent's answer to its parent. A provider's transient failure (rate limit, outage) retries the turn,
    unless a tool has run: it would run twice.

    >>> agent = llm_agent("helper", pydantic_ai.Agent("test", instructions="Be brief."))
    >>> agent.name
    'helper'
    """
    agent = Agent(name)

    @agent.turn
    async def answer(turn: Turn) -> JsonValue:
        history, steers = conversation_of(turn, limit=max_history_messages)
        screen = _Screen(turn)
        try:
            async with model_agent.iter(
                prompt(turn) if prompt else turn.text,
                message_history=history,
                deps=deps(turn) if deps else turn,
                # The session's log keeps no system prompts: each run adds the agent's own.
                capabilities=[ReinjectSystemPrompt()],
                infer_name=False,
            ) as run:
                for text in steers:
                    run.enqueue(text)
                await _drive(run, turn, screen)
            # A run may end with calls that nothing has run: deferred ones, which wait for an approval.
            await screen.close(ToolFailed("It was not run: it is deferred."))
        except ModelAPIError as error:
            await screen.close(error)
            if _may_pass(error) and not screen.tools_run:
                raise RetryTurn(_failure(error)) from error
            raise ModelFailed(_failure(error)) from error
        except Exception as error:
            await screen.close(error)
            raise
        finally:
            await screen.close()
        return _result(run, turn)

    return agent


def _may_pass(error: ModelAPIError) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ModelQuotaExceededError):
        return False
    status = error.status_code if isinstance(error, ModelHTTPError) else 0
    return isinstance(error, _TRANSIENT) or status in (408, 429) or status >= 500


def _failure(error: ModelAPIError) -> str:
    """Says what happened without the provider's own words, which may quote a key or a prompt."""
    status = f" (status {error.status_code})" if isinstance(error, ModelHTTPError) else ""
    return f"{error.model_name} failed: {type(error).__name__.lstrip('_')}{status}"


async def _drive(run: "AgentRun[Any, Any]", turn: Turn, screen: "_Screen") -> None:
    """Shows every step, and takes up steers before each request and before the run would end."""
    steering = _Steers(turn)
    node = run.next_node
    while not pydantic_ai.Agent.is_end_node(node):
        if pydantic_ai.Agent.is_model_request_node(node):
            await steering.take_up(run)
            async with node.stream(run.ctx) as response:
                async for event in response:
                    await screen.show(event)
            await screen.end_part()
        elif pydantic_ai.Agent.is_call_tools_node(node):
            async with node.stream(run.ctx) as steps:
                async for event in steps:
                    await screen.show(event)
            # What arrived during the last request still causes another one.
            await steering.take_up(run)
        node = await run.next(node)


class _Steers:
    """Passes on each steer once, even if it arrives twice (after a reconnect)."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._known = {message.id for message in turn.conversation if message.turn_id == turn.id}

    async def take_up(self, run: "AgentRun[Any, Any]") -> None:
        taken = await self._turn.take_steers()
        if taken:
            # Recorded before the model's answer to it begins, so that the transcript shows it first.
            await self._turn.flush()
        for steer in taken:
            if steer.id not in self._known:
                self._known.add(steer.id)
                run.enqueue(_said_by(steer.actor.role, steer.actor.name or steer.actor.id, steer.text))


class _Screen:
    """Writes a run's events to the session: one message per part, tools as they are called."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._part: tuple[int, str] | None = None
        self._message: AbstractAsyncContextManager[MessageWriter] | None = None
        self._writer: MessageWriter | None = None
        self._calls: dict[str, tuple[AbstractAsyncContextManager[ToolCall], ToolCall]] = {}
        self.tools_run = False

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
            case ai.PartEndEvent(part=ai.NativeToolReturnPart() as part):
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
            if self._writer is None:
                kind = "reasoning" if self._part and self._part[1] == "reasoning" else None
                self._message = self._turn.message(kind=kind)
                self._writer = await self._message.__aenter__()
            room = MAX_MESSAGE_CHARACTERS - self._writer.length
            if room <= 0:
                await self._end_message()
                continue
            await self._writer.write(text[:room])
            text = text[room:]

    async def end_part(self) -> None:
        """Completes the message of the part being written."""
        self._part = None
        await self._end_message()

    async def _end_message(self) -> None:
        if self._message:
            message, self._message, self._writer = self._message, None, None
            await message.__aexit__(None, None, None)

    async def _called(self, part: ai.ToolCallPart | ai.NativeToolCallPart) -> None:
        await self.end_part()
        self.tools_run |= isinstance(part, ai.ToolCallPart)
        kind = "native" if isinstance(part, ai.NativeToolCallPart) else None
        shown = self._turn.tool(part.tool_name, shown_json(part.args_as_dict()), kind=kind)
        self._calls[part.tool_call_id] = (shown, await shown.__aenter__())

    async def _returned(self, part: ai.ToolReturnPart | ai.NativeToolReturnPart) -> None:
        entry = self._calls.pop(part.tool_call_id, None)
        if entry is None:
            return
        shown, call = entry
        if part.outcome == "success":
            call.result = shown_json(part.content)
            await shown.__aexit__(None, None, None)
        else:
            kind = ModelRetry if part.outcome == "retried" else ToolFailed
            error = kind(str(part.content)[:_PREVIEW_CHARACTERS])
            await shown.__aexit__(type(error), error, None)

    async def close(self, error: Exception | None = None) -> None:
        """Releases what a stop or a failure left open; tools that were running show the error.

        A message left open ends with its turn and keeps its text.
        """
        why = error or asyncio.CancelledError()
        blocks = [self._message, *(shown for shown, _ in self._calls.values())]
        self._message, self._writer = None, None
        self._calls.clear()
        for block in blocks:
            if block:
                await block.__aexit__(type(why), why, None)


def conversation_of(
    turn: Turn, *, limit: int = MAX_HISTORY_MESSAGES
) -> tuple[list[ai.ModelMessage], list[str]]:
    """Returns the session so far as pydantic-ai's history, and the steers that an earlier attempt took.

    A sub-agent gets its task and nothing else. The agent's own messages and tool calls are the model's;
    messages from people, operators and other agents are the user's, with the speaker's name where it isn't
    obvious. What an earlier attempt of this turn answered is left out: the answer is given again.
    """
    if turn.parent_turn_id:
        return [], []
    earlier: list[Message | ToolUse] = []
    steers: list[str] = []
    many = len({m.actor.id for m in turn.conversation if m.actor.role == Role.USER}) > 1
    for said in turn.history:
        if said.turn_id == turn.id:
            if isinstance(said, Message) and said.kind == "steer":
                steers.append(_spoken(said, many=many))
        elif said.id != turn.message_id:
            earlier.append(said)
    history: list[ai.ModelMessage] = []
    for said in earlier[-limit:] if limit else []:
        own = said.actor.role == Role.AGENT and said.actor.id == turn.agent
        if isinstance(said, ToolUse):
            history += _tool_messages(said) if own else []
        elif own:
            history.append(ai.ModelResponse(parts=[ai.TextPart(said.text)]))
        else:
            history.append(ai.ModelRequest(parts=[ai.UserPromptPart(_spoken(said, many=many))]))
    return history, steers


def _tool_messages(use: ToolUse) -> list[ai.ModelMessage]:
    """Returns a tool call and its result. What the provider ran by itself is part of its own answers."""
    if use.kind == "native" or not use.returned:
        return []
    arguments = use.arguments if isinstance(use.arguments, dict) else {}
    call = ai.ToolCallPart(use.name, arguments, use.id)
    came_of_it = use.result if use.error is None else f"failed: {use.error}"
    return [
        ai.ModelResponse(parts=[call]),
        ai.ModelRequest(parts=[ai.ToolReturnPart(use.name, came_of_it, use.id)]),
    ]


def _spoken(message: Message, *, many: bool) -> str:
    actor = message.actor
    if actor.role == Role.USER and not many:
        return message.text
    return _said_by(actor.role, actor.name or actor.id, message.text, always=True)


def _said_by(role: Role, name: str, text: str, *, always: bool = False) -> str:
    match role:
        case Role.OPERATOR:
            return f"[{name}, a person who works here, told the user:] {text}"
        case Role.AGENT:
            return f"[The agent {name} told the user:] {text}"
        case _:
            return f"[{name}:] {text}" if always else text


def shown_json(value: Any) -> JsonValue:
    """Returns a tool's arguments or result as a session shows them: JSON, and no more than fits in an event.

    >>> shown_json({"when": __import__("datetime").date(2026, 1, 2)})
    {'when': '2026-01-02'}
    """
    encoded = to_json(value, fallback=str, inf_nan_mode="strings", bytes_mode="base64")
    if len(encoded) <= MAX_SHOWN_BYTES:
        shown: JsonValue = json.loads(encoded)
        return shown
    preview = encoded.decode()[:_PREVIEW_CHARACTERS]
    return {"truncated": True, "bytes": len(encoded), "preview": preview}


def _result(run: "AgentRun[Any, Any]", turn: Turn) -> JsonValue:
    if run.result is None:
        return None
    usage = run.result.usage
    result: dict[str, JsonValue] = {
        "model": run.result.response.model_name,
        "usage": {
            "requests": usage.requests,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "tool_calls": usage.tool_calls,
        },
    }
    if turn.parent_turn_id or not isinstance(run.result.output, str):
        result["output"] = shown_json(run.result.output)
    return result
