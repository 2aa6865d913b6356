"""What agent code is written against: an ``Agent``, its turns, and how its process runs."""

from waystation.agent.turn import (
    Agent,
    MessageWriter,
    RetryTurn,
    SubAgent,
    ToolCall,
    Turn,
    serve,
)

__all__ = [
    "Agent",
    "MessageWriter",
    "RetryTurn",
    "SubAgent",
    "ToolCall",
    "Turn",
    "serve",
]
