"""What a turn remembers of a run of its model, as steps: each response, and what came of each tool call.

A later attempt of the turn runs the agent again from its top. It gets the responses back that were paid for,
and the results of the tools that have run, so it comes to where the earlier attempt was cut off without doing
anything of that again.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter
from pydantic_ai import messages as ai
from pydantic_ai.exceptions import ModelRetry, ToolFailed
from pydantic_ai.models import (
    CompletedStreamedResponse,
    Model,
    ModelRequestParameters,
    StreamedResponse,
)
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import DeferredToolCallResult, RunContext
from pydantic_core import PydanticSerializationError, from_json, to_json

from waystation.agent import StepRefused, Turn

logger = logging.getLogger(__name__)

Outcome: TypeAlias = ai.ToolReturn[Any] | ToolFailed | ModelRetry
"""What comes of a tool call, in the form in which pydantic-ai takes a deferred one's from outside."""
_OUTCOME: Final[TypeAdapter[Any]] = TypeAdapter(DeferredToolCallResult)
_WHOLE: Final = frozenset({"complete", "suspended"})
"""States of a response that was received to its end."""


@dataclass
class Memory:
    """The steps of a run of a model."""

    turn: Turn
    steers: dict[str, str] = field(default_factory=dict)
    """By their ids: those that the next request is the first to have."""
    forgets: bool = False
    """Whether there is something of which a later attempt won't know, though a tool has run, or may have."""
    _loses_thread: bool = False
    """Whether a response wasn't recorded: a later attempt gets another one, which later ones don't fit."""
    _segments: Counter[int] = field(default_factory=Counter)

    def steers_of(self, run_step: int) -> Mapping[str, str] | None:
        """Returns the steers that a request was the first to have; ``None``: it isn't remembered."""
        known = self._recall(_request_key(run_step, 1))
        return None if known is None else dict(known["steers"])

    def next_response(self, run_step: int) -> ai.ModelResponse | None:
        """Returns the response to the request that comes now, if it is remembered.

        A request may have several responses, of which all but the last are suspended.
        """
        known = self._recall(_request_key(run_step, self._segments[run_step] + 1))
        if known is None:
            return None
        self._segments[run_step] += 1
        (response,) = ai.ModelMessagesTypeAdapter.validate_json(to_json([known["response"]]))
        return response if isinstance(response, ai.ModelResponse) else None

    async def keep_response(self, run_step: int, response: ai.ModelResponse) -> None:
        """Records a response."""
        self._segments[run_step] += 1
        steers, self.steers = self.steers, {}
        (written,) = from_json(ai.ModelMessagesTypeAdapter.dump_json([response]))
        record = {"steers": steers, "response": written}
        if not await self._keep(_request_key(run_step, self._segments[run_step]), record):
            self._loses_thread = True

    def recall_outcome(self, key: str) -> Outcome | None:
        """Returns what came of a tool call, if it is remembered."""
        known = self._recall(_call_key(key))
        if known is None:
            return None
        outcome: Outcome = _OUTCOME.validate_json(to_json(known["outcome"]))
        return outcome

    async def keep_outcome(self, key: str, outcome: Outcome) -> Outcome:
        """Records what came of a tool call, and returns it as a later attempt will get it."""
        try:
            written = from_json(_OUTCOME.dump_json(outcome))
            read: Outcome = _OUTCOME.validate_json(to_json(written))
        except (PydanticSerializationError, ValueError) as error:
            logger.warning("What came of %s isn't remembered, for it is no JSON: %s", key, error)
            self.forgets = True
            return outcome
        await self._keep(_call_key(key), {"outcome": written})
        return read

    def _recall(self, key: str) -> dict[str, Any] | None:
        known = self.turn.recall(key)
        return from_json(known) if isinstance(known, str) else None

    async def _keep(self, key: str, record: dict[str, Any]) -> bool:
        if self._loses_thread:
            return False
        try:
            # As text: what a model or a tool says may be nested more deeply than a step's result.
            await self.turn.step(key, _itself, to_json(record).decode())
        except StepRefused as refused:
            logger.warning("A later attempt won't know of this: %s", refused)
            self.forgets = True
            return False
        return True


def _request_key(run_step: int, segment: int) -> str:
    return f"llm-request-{run_step}-{segment}"


def _call_key(key: str) -> str:
    return f"llm-call-{key}"


async def _itself(record: str) -> str:
    return record


async def _report_usage(turn: Turn, response: ai.ModelResponse) -> None:
    used = response.usage
    await turn.report_usage(
        requests=1,
        input_tokens=used.input_tokens,
        cached_input_tokens=used.cache_read_tokens,
        output_tokens=used.output_tokens,
        cost_micros=_cost_micros(response),
        model=response.model_name,
    )


def _cost_micros(response: ai.ModelResponse) -> dict[str, int]:
    """Returns what a response has cost; nothing for a model whose price isn't known."""
    if response.model_name is None:
        return {}
    try:
        price = response.cost().total_price
    except (LookupError, ValueError):
        return {}
    return {"USD": int((price * 1_000_000).to_integral_value(ROUND_HALF_EVEN))}


class RememberingModel(WrapperModel):
    """A model whose responses are remembered: what an earlier attempt was given isn't asked for again."""

    def __init__(self, wrapped: Model, memory: Memory) -> None:
        super().__init__(wrapped)
        self._memory = memory

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ai.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Streams a response, or gives it back in whole parts."""
        run_step = run_context.run_step if run_context else 0
        if known := self._memory.next_response(run_step):
            yield CompletedStreamedResponse(
                known, model_request_parameters=model_request_parameters, replay_events=True
            )
            return
        async with super().request_stream(
            messages, model_settings, model_request_parameters, run_context
        ) as stream:
            yield stream
        response = stream.get()
        await _report_usage(self._memory.turn, response)
        if response.state in _WHOLE:
            await self._memory.keep_response(run_step, response)
