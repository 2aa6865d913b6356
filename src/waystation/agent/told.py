"""What a turn's agent has told the session in earlier attempts. Pure: read from the transcript."""

from dataclasses import dataclass, field

from pydantic import JsonValue

from waystation.client.transcript import Transcript
from waystation.models.events import EventType
from waystation.models.sessions import TurnInput


@dataclass
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

    calls: dict[str, ToldCall] = field(default_factory=dict)
    """By their ids: of several under one id, the last."""


def told_of(transcript: Transcript, turn: TurnInput) -> Told:
    """Returns what earlier attempts of a turn have told."""
    told = Told()
    for event in transcript.events:
        if event.turn_id != turn.turn_id or event.actor.id != turn.agent:
            continue
        data, call_id = event.data, str(event.data.get("call_id"))
        if event.type == EventType.TOOL_CALLED:
            kind = data.get("kind")
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
    return told
