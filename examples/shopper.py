"""A language model as an agent, with a tool that asks a sub-agent.

pip install 'waystation[llm]' 'pydantic-ai-slim[openai]'
SHOPPER_MODEL=openai:gpt-5.2 OPENAI_API_KEY=… waystation dev --agent shopper:agent
"""

import os

import pydantic_ai
from pydantic_ai import RunContext

from waystation.adapters.pydantic_ai import llm_agent
from waystation.agent import Turn

model_agent = pydantic_ai.Agent(
    os.environ.get("SHOPPER_MODEL", "test"),
    deps_type=Turn,
    instructions="You help people find tea. Ask the researcher about prices; never make one up.",
)


@model_agent.tool
async def research(context: RunContext[Turn], question: str) -> str:
    """Asks the researcher, who works in the same session."""
    researcher = await context.deps.spawn("researcher", question)
    return str(await researcher.result())


agent = llm_agent("shopper", model_agent)
