"""What a model is given of the session so far."""

from collections.abc import Sequence
from typing import Final

from pydantic_ai import messages as ai

from waystation.agent import Turn
from waystation.client.transcript import Message, ToolUse
from waystation.models.events import Role

MAX_HISTORY_MESSAGES: Final = 200
"""How many of a session's newest messages the model is given; older ones are left out."""


def conversation_of(
    turn: Turn, *, limit: int = MAX_HISTORY_MESSAGES
) -> tuple[list[ai.ModelMessage], dict[str, str]]:
    """Returns the session so far as pydantic-ai's history, and the steers that earlier attempts took, by id.

    A sub-agent gets its task and nothing else. The agent's own messages and tool calls are the model's;
    messages from people, operators and other agents are the user's, with the speaker's name where it isn't
    obvious. What an earlier attempt of this turn has said is left out: its steps say it again.
    """
    if turn.parent_turn_id:
        return [], {}
    earlier: list[Message | ToolUse] = []
    steers: dict[str, str] = {}
    many = len({m.actor.id for m in turn.conversation if m.actor.role == Role.USER}) > 1
    for said in turn.history:
        if said.turn_id == turn.id:
            if isinstance(said, Message) and said.kind == "steer":
                steers[said.id] = _spoken(said, many=many)
        elif said.id != turn.message_id:
            earlier.append(said)
    return _history(earlier[-limit:] if limit else [], turn.agent, many=many), steers


def conversation_for_a_draft(
    agent: str, conversation: Sequence[Message | ToolUse], *, limit: int = MAX_HISTORY_MESSAGES
) -> list[ai.ModelMessage]:
    """Returns what was said and done as pydantic-ai's history, for a draft that an operator wants."""
    users = {one.actor.id for one in conversation if isinstance(one, Message) and one.actor.role == Role.USER}
    return _history(conversation[-limit:] if limit else [], agent, many=len(users) > 1)


def _history(conversation: Sequence[Message | ToolUse], agent: str, *, many: bool) -> list[ai.ModelMessage]:
    history: list[ai.ModelMessage] = []
    for said in conversation:
        own = said.actor.role == Role.AGENT and said.actor.id == agent
        if isinstance(said, ToolUse):
            history += _tool_messages(said) if own else []
        elif own:
            history.append(ai.ModelResponse(parts=[ai.TextPart(said.text)]))
        else:
            history.append(ai.ModelRequest(parts=[ai.UserPromptPart(_spoken(said, many=many))]))
    return history


def _tool_messages(use: ToolUse) -> list[ai.ModelMessage]:
    """Returns a tool call and its result. What the provider ran by itself is part of its own answers."""
    if use.kind == "native" or not use.returned:
        return []
    arguments = use.arguments if isinstance(use.arguments, dict) else {}
    call = ai.ToolCallPart(use.name, arguments, use.id)
    came_of_it = use.result if use.error is None else f"failed: {use.error}"
    return [
        ai.ModelResponse(parts=[call]),
        ai.ModelRequest(parts=[ai.ToolReturnPart(use.name, came_of_it, use.id)]),
    ]


def _spoken(message: Message, *, many: bool) -> str:
    actor = message.actor
    if actor.role == Role.USER and not many:
        return message.text
    return said_by(actor.role, actor.name or actor.id, message.text, always=True)


def said_by(role: Role, name: str, text: str, *, always: bool = False) -> str:
    """Returns what somebody has said as a model should read it; users are named if there are several."""
    match role:
        case Role.OPERATOR:
            return f"[{name}, a person who works here, told the user:] {text}"
        case Role.AGENT:
            return f"[The agent {name} told the user:] {text}"
        case _:
            return f"[{name}:] {text}" if always else text
