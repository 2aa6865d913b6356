"""The unruly agent, in a process that gives its turns back soon when the API takes nothing of it."""

from tests.agent.unruly import agent
from waystation.agent import runner

__all__ = ["agent"]

runner.GIVE_BACK_AFTER_SECONDS = 1.0
