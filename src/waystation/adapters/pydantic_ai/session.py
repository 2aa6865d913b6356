"""What a session adds to a run of pydantic-ai: what is remembered of it, and whom its tools ask."""

from dataclasses import dataclass
from typing import Any

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ToolCallPart, ToolReturn
from pydantic_ai.models import Model
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, RunContext
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from waystation.adapters.pydantic_ai.memory import Memory, Outcome, RememberingModel
from waystation.adapters.pydantic_ai.people import People, key_of
from waystation.adapters.pydantic_ai.screen import Screen


@dataclass
class InSession(AbstractCapability[Any]):
    """Runs an agent within a turn of a session."""

    screen: Screen
    people: People
    memory: Memory

    def get_ordering(self) -> CapabilityOrdering:
        """Next to the model and the tools: what the agent's own capabilities do, they do around it.

        A handler of deferred calls that the agent has is asked before people are.
        """
        return CapabilityOrdering(position="innermost")

    @classmethod
    def get_serialization_name(cls) -> str | None:
        """It belongs to a turn, and is part of no specification."""
        return None

    def get_wrapper_model(self, model: Model) -> Model:
        """Has the model's responses remembered."""
        return RememberingModel(model, self.memory)

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        """Has the tools run within the session, and remembered."""
        return _ToolsInSession(toolset, self.screen, self.people, self.memory)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults:
        """Asks people."""
        return await self.people.settle(requests, self.screen.tools, ctx.run_step)


@dataclass
class _ToolsInSession(WrapperToolset[Any]):
    screen: Screen
    people: People
    memory: Memory

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        tools = await super().get_tools(ctx)
        self.screen.tools.update((name, tool.tool_def) for name, tool in tools.items())
        return tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        call_id = ctx.tool_call_id
        if call_id is None:
            self.memory.forgets = True
            return await super().call_tool(name, tool_args, ctx, tool)
        await self.screen.running(call_id)
        key = key_of(name, call_id, ctx.run_step)
        outcome = self.memory.recall_outcome(key)
        if outcome is None:
            with self.screen.inside(call_id, key=key):
                outcome = await self._run(name, tool_args, ctx, tool)
            outcome = await self.memory.keep_outcome(key, outcome)
        if isinstance(outcome, Exception):
            raise outcome
        is_bare = outcome.content is None and outcome.metadata is None and outcome.tools is None
        return outcome.return_value if is_bare else outcome

    async def _run(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Outcome:
        try:
            result = await super().call_tool(name, tool_args, ctx, tool)
        except (ModelRetry, ToolFailed) as said:
            return said
        except CallDeferred as deferred:
            if not ctx.tool_call_approved:
                raise
            # pydantic-ai settles deferred calls once in a step: this one was approved, and asks on.
            call = ToolCallPart(name, tool_args, str(ctx.tool_call_id))
            result = await self.people.answer(call, deferred.metadata, tool.tool_def, ctx.run_step)
        return result if isinstance(result, ToolReturn) else ToolReturn(result)
