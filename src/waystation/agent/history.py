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
    tools = (use for use in transcript.tools if use.kind != STEP_KIND)
    said: list[Said] = [*_completed(transcript), *tools]
    said.sort(key=lambda one: one.order or 0)
    before, request, own = list[Said](), list[Said](), list[Said]()
    for one in said:
        if isinstance(one, Message) and one.id == turn.message_id:
            request.append(one)
        elif one.turn_id == turn.turn_id:
            own.append(one)
        else:
            before.append(one)
    return [*before, *request, *own]


def _completed(transcript: Transcript) -> Iterator[Message]:
    waiting = transcript.waiting
    for message in transcript:
        if message.status == "completed" and message.kind != "reasoning" and message.id not in waiting:
            yield message
