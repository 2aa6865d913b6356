"""One durable session between agents, people and their devices."""

from workflows.session.workflow import AgentSession, SessionInput

__all__ = [
    "AgentSession",
    "SessionInput",
]
