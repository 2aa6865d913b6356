"""What a turn's agent has told the session in earlier attempts. Pure: read from the transcript."""

from dataclasses import dataclass, field

from pydantic import JsonValue

from waystation.client.transcript import Transcript
from waystation.models.base import JsonObject
from waystation.models.events import DATA_PREFIX, Event, EventType
from waystation.models.sessions import TurnInput


@dataclass(eq=False)
class ToldMessage:
    """A message that was completed: its text, and what else is said of it."""

    text: str
    data: dict[str, JsonValue]


@dataclass(eq=False)
class ToldCall:
    """A tool call that is in the log, and its end, if that is there too."""

    id: str
    name: str
    arguments: JsonValue = None
    kind: str | None = None
    ended: bool = False
    result: JsonValue = None
    error: str | None = None


@dataclass
class Told:
    """What is in the log already of what a turn's agent writes."""

    messages: list[ToldMessage] = field(default_factory=list)
    calls: dict[str, ToldCall] = field(default_factory=dict)
    """By their ids, in order: of several under one id, the last."""
    events: list[tuple[str, dict[str, JsonValue]]] = field(default_factory=list)
    """The agent's own events: types and data."""
    asked: dict[str, JsonObject] = field(default_factory=dict)
    """Its questions by their ids, as they were asked last."""
    spawned: set[str] = field(default_factory=set)
    """The keys of its sub-agents."""


def told_of(transcript: Transcript, turn: TurnInput) -> Told:
    """Returns what earlier attempts of a turn have told."""
    told = Told(
        messages=[
            ToldMessage(message.text, dict(message.data))
            for message in transcript
            if message.status == "completed"
            and message.turn_id == turn.turn_id
            and message.actor.id == turn.agent
        ]
    )
    for event in transcript.events:
        if event.actor.id != turn.agent:
            continue
        if event.turn_id == turn.turn_id:
            _add(told, event)
        elif event.type == EventType.AGENT_SPAWNED and event.data.get("parent_turn_id") == turn.turn_id:
            told.spawned.add(str(event.data.get("key")))
    return told


def _add(told: Told, event: Event) -> None:
    data, call_id = event.data, str(event.data.get("call_id"))
    if event.type == EventType.TOOL_CALLED:
        kind = data.get("kind")
        told.calls.pop(call_id, None)
        told.calls[call_id] = ToldCall(
            id=call_id,
            name=str(data.get("name")),
            arguments=data.get("arguments"),
            kind=kind if isinstance(kind, str) else None,
        )
    elif event.type == EventType.TOOL_RETURNED and (call := told.calls.get(call_id)):
        error = data.get("error")
        call.ended, call.result = True, data.get("result")
        call.error = None if error is None else str(error)
    elif event.type == EventType.INPUT_REQUESTED:
        told.asked[str(data.get("question_id"))] = data
    elif event.type.startswith(DATA_PREFIX):
        told.events.append((event.type, data))
