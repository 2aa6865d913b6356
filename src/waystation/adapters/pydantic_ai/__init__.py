"""Language models as session agents, over pydantic-ai (extra ``llm``).

Wrap your own agent, with tools and instructions, with ``llm_agent``:

    agent = llm_agent("shopper", pydantic_ai.Agent("anthropic:claude-sonnet-4-5", tools=[...]))

Everything a session offers works: text and reasoning are streamed, tool calls are shown, what people say in
the meantime reaches the model with its next request, a stop ends the request immediately, and tools ask for
approvals and answers.
"""

try:
    import pydantic_ai  # noqa: F401
except ImportError as error:
    raise ImportError("The model agents need pydantic-ai: pip install 'waystation[llm]'") from error

from waystation.adapters.pydantic_ai.agent import ModelFailed, Prompt, llm_agent
from waystation.adapters.pydantic_ai.history import MAX_HISTORY_MESSAGES, conversation_of
from waystation.adapters.pydantic_ai.people import QuestionTerms
from waystation.adapters.pydantic_ai.screen import MAX_SHOWN_BYTES, shown_json

__all__ = [
    "MAX_HISTORY_MESSAGES",
    "MAX_SHOWN_BYTES",
    "ModelFailed",
    "Prompt",
    "QuestionTerms",
    "conversation_of",
    "llm_agent",
    "shown_json",
]
