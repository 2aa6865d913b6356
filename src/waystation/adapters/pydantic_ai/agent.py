"""Runs a pydantic-ai agent as the agent of a session."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import pydantic_ai
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
    ModelServerError,
    ModelUnavailableError,
)

from waystation.adapters.pydantic_ai.history import (
    MAX_HISTORY_MESSAGES,
    conversation_for_a_draft,
    conversation_of,
    said_by,
)
from waystation.adapters.pydantic_ai.memory import Memory
from waystation.adapters.pydantic_ai.people import People
from waystation.adapters.pydantic_ai.screen import Screen, shown_json
from waystation.adapters.pydantic_ai.session import InSession
from waystation.agent import Agent, ApprovalTerms, RetryTurn, SuggestionRequest, Turn
from waystation.errors import WaystationError

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
    approval: ApprovalTerms | None = None,
    suggestion_deps: Callable[[SuggestionRequest], Any] | None = None,
    max_history_messages: int = MAX_HISTORY_MESSAGES,
) -> Agent:
    """Returns a session agent that runs a pydantic-ai agent.

    ``deps`` makes a turn's dependencies; by default they are the ``Turn`` itself, so that a
    tool can ``ctx.deps.spawn(…)`` or ``ctx.deps.emit(…)``. ``prompt`` makes the prompt from a turn (to add
    images named in ``turn.data``, for example); by default it is the turn's text. ``approval`` says how
    people are asked to approve tools, unless a tool's ``metadata`` says so itself.

    A turn's result is ``{"model", "usage": {"requests", "input_tokens", "output_tokens",
    "tool_calls"}}``, with ``output`` added if it isn't already on screens: a structured output, or a
    sub-agent's answer to its parent. Each response of the model and what comes of each tool is a step: a
    later attempt of the turn gets it back. A provider's transient failure (rate limit, outage) retries the
    turn, unless a tool has run whose result was no JSON or too large for a step: it would run twice.

    An operator who has taken over may have the model draft a reply. No tool runs for that, and there is no
    turn: ``suggestion_deps`` makes the dependencies, for instructions that need some; by default ``None``.

    >>> agent = llm_agent("helper", pydantic_ai.Agent("test", instructions="Be brief."))
    >>> agent.name
    'helper'
    """
    agent = Agent(name)

    @agent.turn
    async def answer(turn: Turn) -> JsonValue:
        history, steers = conversation_of(turn, limit=max_history_messages)
        screen, memory = Screen(turn), Memory(turn)
        people = People(turn, screen, approval or ApprovalTerms())
        try:
            async with model_agent.iter(
                prompt(turn) if prompt else turn.text,
                message_history=history,
                deps=deps(turn) if deps else turn,
                # The session's log keeps no system prompts: each run adds the agent's own.
                capabilities=[ReinjectSystemPrompt(), InSession(screen, people, memory)],
                infer_name=False,
            ) as run:
                await _drive(run, screen, _Steers(turn, memory, steers))
        except ModelAPIError as error:
            await screen.close(error)
            if _may_pass(error) and not memory.forgets:
                raise RetryTurn(_failure(error)) from error
            raise ModelFailed(_failure(error)) from error
        except Exception as error:
            await screen.close(error)
            raise
        finally:
            await screen.close()
        return _result(run, turn)

    @agent.suggestion
    async def suggest(asked: SuggestionRequest) -> str:
        history = conversation_for_a_draft(name, asked.conversation, limit=max_history_messages)
        try:
            with model_agent.override(tools=[], toolsets=[]):
                drafted = await _without_validators(model_agent).run(
                    _wanted(asked),
                    output_type=str,
                    message_history=history,
                    deps=suggestion_deps(asked) if suggestion_deps else None,
                    capabilities=[ReinjectSystemPrompt()],
                    infer_name=False,
                )
        except ModelAPIError as error:
            raise ModelFailed(_failure(error)) from error
        return drafted.output

    return agent


def _without_validators(model_agent: "pydantic_ai.Agent[Any, Any]") -> "pydantic_ai.Agent[Any, Any]":
    """Returns it without what validates the output of turns: a draft is none, and isn't run beside it."""
    drafting = copy.copy(model_agent)
    # There is no public way; where the name is another one day, the adapter's test of drafts says so.
    drafting._output_validators = []
    return drafting


def _wanted(asked: SuggestionRequest) -> str:
    """Returns what the model is asked for by an operator."""
    who = asked.operator.name or asked.operator.id
    wish = f" It should say: {asked.text}" if asked.text else ""
    return (
        f"[{who}, a person who works here, answers the user in your place, and asks you for a draft of that. "
        f"Write the message to the user and nothing else.{wish}]"
    )


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


async def _drive(run: "AgentRun[Any, Any]", screen: Screen, steers: "_Steers") -> None:
    """Shows every step, and takes up steers before each request and before the run would end."""
    node = run.next_node
    while not pydantic_ai.Agent.is_end_node(node):
        if pydantic_ai.Agent.is_model_request_node(node):
            await steers.take_up(run)
            async with node.stream(run.ctx) as response:
                async for event in response:
                    await screen.show(event)
            await screen.end_response()
        elif pydantic_ai.Agent.is_call_tools_node(node):
            async with node.stream(run.ctx) as steps:
                async for event in steps:
                    await screen.show(event)
            # What arrived during the last request still causes another one.
            await steers.take_up(run)
        node = await run.next(node)


class _Steers:
    """Passes on each steer once, even if it arrives twice (after a reconnect).

    A request that is remembered gets those that it was the first to have; the first that isn't gets what else
    earlier attempts took.
    """

    def __init__(self, turn: Turn, memory: Memory, earlier: Mapping[str, str]) -> None:
        self._turn, self._memory, self._earlier = turn, memory, earlier
        self._known = {message.id for message in turn.conversation if message.turn_id == turn.id}
        self._given: set[str] = set()

    async def take_up(self, run: "AgentRun[Any, Any]") -> None:
        """Gives the run's next request what it is the first to have."""
        remembered = self._memory.steers_of(run.ctx.state.run_step + 1)
        if remembered is not None:
            self._give(run, remembered)
            return
        new = dict(self._earlier)
        taken = await self._turn.take_steers()
        if taken:
            # Recorded before the model's answer to it begins, so that the transcript shows it first.
            await self._turn.flush()
        for steer in taken:
            if steer.id not in self._known:
                self._known.add(steer.id)
                new[steer.id] = said_by(steer.actor.role, steer.actor.name or steer.actor.id, steer.text)
        self._memory.steers |= self._give(run, new)

    def _give(self, run: "AgentRun[Any, Any]", steers: Mapping[str, str]) -> dict[str, str]:
        new = {steer_id: text for steer_id, text in steers.items() if steer_id not in self._given}
        for text in new.values():
            run.enqueue(text)
        self._given.update(new)
        return new


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
