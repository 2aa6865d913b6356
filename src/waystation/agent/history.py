"""What was said and done before a turn, in the order in which a model should read it."""

from collections.abc import Iterator

from waystation.agent.tool_calls import STEP_KIND
from waystation.client.transcript import Message, ToolUse, Transcript
from waystation.models.sessions import TurnInput

Said = Message | ToolUse


def history_of(transcript: Transcript, turn: TurnInput) -> list[Said]:
    """Returns completed messages and tool calls: earlier turns', then the request, then this turn's own.

    What waits for a turn of its own is left out, and so are reasoning and steps. The request comes after
    everything that was said before its turn, though it may have been sent earlier and waited.
    """
    waiting = transcript.waiting
    said = [one for one in all_said(transcript) if not (isinstance(one, Message) and one.id in waiting)]
    before, request, own = list[Said](), list[Said](), list[Said]()
    for one in said:
        if isinstance(one, Message) and one.id == turn.message_id:
            request.append(one)
        elif one.turn_id == turn.turn_id:
            own.append(one)
        else:
            before.append(one)
    return [*before, *request, *own]


def all_said(transcript: Transcript) -> list[Said]:
    """Returns completed messages and tool calls in order, also what waits; neither reasoning nor steps."""
    tools = (use for use in transcript.tools if use.kind != STEP_KIND)
    said: list[Said] = [*_completed(transcript), *tools]
    return sorted(said, key=lambda one: one.order or 0)


def _completed(transcript: Transcript) -> Iterator[Message]:
    for message in transcript:
        if message.status == "completed" and message.kind != "reasoning":
            yield message
