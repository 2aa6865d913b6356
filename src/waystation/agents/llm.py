"""The language model that the environment names, as a session agent (extra ``llm``).

    WAYSTATION_LLM_MODEL=openai:gpt-5.2 OPENAI_API_KEY=… waystation agent waystation.agents.llm:agent

Any model that pydantic-ai supports, with the user's own key. To use your own agent, with tools and
instructions, wrap it with ``llm_agent``.
"""

import os

from waystation.adapters.pydantic_ai import llm_agent  # isort: skip  (says what to install)

import pydantic_ai  # isort: skip
from pydantic_ai.exceptions import UserError  # isort: skip
from waystation.agent import Agent

__all__ = ["default_agent", "llm_agent"]

MODEL_VARIABLE = "WAYSTATION_LLM_MODEL"
INSTRUCTIONS_VARIABLE = "WAYSTATION_LLM_INSTRUCTIONS"
NAME_VARIABLE = "WAYSTATION_LLM_NAME"
DEFAULT_NAME = "assistant"
DEFAULT_INSTRUCTIONS = "You are a helpful assistant. Answer briefly and say so when you don't know."


def default_agent() -> Agent:
    """Returns the agent that the environment describes; raises ``AttributeError`` saying what is missing.

    ``WAYSTATION_LLM_MODEL`` names the model, ``WAYSTATION_LLM_NAME`` the agent (``assistant``),
    ``WAYSTATION_LLM_INSTRUCTIONS`` the model's instructions. The provider's key comes from the provider's own
    variable, such as ``OPENAI_API_KEY``.

    >>> default_agent().name  # doctest: +SKIP
    'assistant'
    """
    model = os.environ.get(MODEL_VARIABLE)
    if not model:
        raise AttributeError(
            f"{MODEL_VARIABLE} is not set; name a model that pydantic-ai supports, e.g. openai:gpt-5.2"
        )
    instructions = os.environ.get(INSTRUCTIONS_VARIABLE) or DEFAULT_INSTRUCTIONS
    try:
        model_agent = pydantic_ai.Agent(model, instructions=instructions)
    except UserError as error:
        raise AttributeError(f"{MODEL_VARIABLE}={model} can't be used: {error}") from error
    return llm_agent(os.environ.get(NAME_VARIABLE) or DEFAULT_NAME, model_agent)


def __getattr__(name: str) -> Agent:
    """Builds ``agent`` on first access, so that importing this module needs no model."""
    if name != "agent":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["agent"] = built = default_agent()
    return built
