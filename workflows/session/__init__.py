"""One durable session between agents, people and their devices."""

from workflows.session.state import SessionInput
from workflows.session.workflow import AgentSession

__all__ = [
    "AgentSession",
    "SessionInput",
]
