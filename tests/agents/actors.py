"""An agent over a scripted model in a process of its own: ``waystation agent tests.agents.actors:agent``."""

import asyncio
from collections.abc import AsyncIterator

import pydantic_ai
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel

from waystation.adapters.pydantic_ai import llm_agent

WORD_PAUSE_SECONDS = 0.02


async def answer(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[object]:
    """Thinks, asks the clock once, then repeats what it was asked, forever if it is to go on."""
    prompts = [
        str(part.content)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if part.part_kind == "user-prompt"
    ]
    asked_clock = any(part.part_kind == "tool-return" for message in messages for part in message.parts)
    if "clock" in prompts[-1] and not asked_clock:
        yield {0: DeltaThinkingPart(content="I need the time.")}
        yield {1: DeltaToolCall(name="clock", json_args="{}", tool_call_id="c1")}
        return
    yield f"{len(prompts)} said: "
    for word in " then ".join(prompts).split():
        await asyncio.sleep(WORD_PAUSE_SECONDS)
        yield word + " "
    count = 0
    while prompts[-1] == "go on forever":
        count += 1
        await asyncio.sleep(WORD_PAUSE_SECONDS)
        yield f"{count} "


model_agent = pydantic_ai.Agent(FunctionModel(stream_function=answer))  # type: ignore[arg-type]


@model_agent.tool_plain
def clock() -> str:
    """The time."""
    return "20:15"


agent = llm_agent("scripted", model_agent)
