"""What an agent is given to suggest a reply to the operator who speaks in its place."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from waystation.agent.history import Said
from waystation.errors import WaystationError
from waystation.models.events import Actor


class NoSuggestions(WaystationError):
    """The agent suggests no replies."""


@dataclass(frozen=True)
class SuggestionRequest:
    """An operator wants a draft; whether it is sent is theirs to decide."""

    session_id: str
    operator: Actor
    """Who has taken over, and wants it."""
    text: str | None
    """What the reply should say, in the operator's words; ``None``: the agent decides."""
    conversation: tuple[Said, ...]
    """What was said and done so far: messages, also those that no turn has answered, and tool calls."""


@runtime_checkable
class SuggestsReplies(Protocol):
    """What a runner needs of an agent that suggests replies."""

    async def suggest(self, asked: SuggestionRequest) -> str:
        """Returns a draft."""
        ...
