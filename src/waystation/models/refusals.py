"""What became of what an agent wrote: how far a session has decided, and what it has refused."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from waystation.models.base import FrozenOpen
from waystation.models.events import MAX_DATA_BYTES, MAX_MESSAGE_CHARACTERS
from waystation.models.questions import MAX_QUESTIONS

MAX_OPEN_TOOLS = 200
"""Per turn: tool calls whose end has not been reported."""
MAX_OPEN_MESSAGES = 200
"""Per turn, or per agent outside turns: messages that one leaves open must not keep others from writing."""
MAX_REFUSALS_PER_WRITER = 1_000
"""Runs of refused items that a session remembers of one writer. Beyond it, it takes nothing more of it."""

MAX_REFUSALS = 5_000
"""Of all writers together. Beyond it, a writer of whom anything was refused writes nothing more."""


class RefusalCode(StrEnum):
    """Why a session records an item not."""

    BAD_TYPE = "bad-type"
    BAD_DELTA = "bad-delta"
    BAD_ITEM = "bad-item"
    BAD_QUESTION = "bad-question"
    CALL_ID_TAKEN = "call-id-taken"
    DATA_TOO_LARGE = "data-too-large"
    GAP = "gap"
    MESSAGE_ID_TAKEN = "message-id-taken"
    MESSAGE_OVER = "message-over"
    MESSAGE_TOO_LONG = "message-too-long"
    NOT_RECORDED = "not-recorded"
    QUESTION_ID_TAKEN = "question-id-taken"
    SESSION_CLOSED = "session-closed"
    SESSION_FULL = "session-full"
    TOO_MANY_MESSAGES = "too-many-messages"
    TOO_MANY_QUESTIONS = "too-many-questions"
    TOO_MANY_REFUSALS = "too-many-refusals"
    TOO_MANY_TOOLS = "too-many-tools"
    TURN_OVER = "turn-over"
    TURN_STOPPED = "turn-stopped"
    UNKNOWN_CALL = "unknown-call"
    UNKNOWN_MESSAGE = "unknown-message"
    UNKNOWN_QUESTION = "unknown-question"
    UNKNOWN_STEER = "unknown-steer"


REASONS: Final[dict[RefusalCode, str]] = {
    RefusalCode.BAD_TYPE: (
        "Agents write message.*, tool.*, steer.consumed, input.requested, input.withdrawn and data.<name>."
    ),
    RefusalCode.BAD_DELTA: "A message.delta needs message_id and data {offset: int >= 0, text: str}.",
    RefusalCode.BAD_ITEM: (
        "It lacks what its type needs: message.* a message_id, tool.* call_id and name, "
        "steer.consumed a steer_id; text is a string."
    ),
    RefusalCode.BAD_QUESTION: (
        "The question's schema can't be used: it is no JSON Schema, too large, or refers elsewhere."
    ),
    RefusalCode.CALL_ID_TAKEN: (
        "Another call with this id is open in this turn; report its end first, or choose another id."
    ),
    RefusalCode.DATA_TOO_LARGE: (
        f"One event carries at most {MAX_DATA_BYTES} bytes of data; store it and write a link."
    ),
    RefusalCode.GAP: "The text before it is missing; write that first.",
    RefusalCode.MESSAGE_ID_TAKEN: "A message has this id already; choose another.",
    RefusalCode.MESSAGE_OVER: "The message is complete; start another one.",
    RefusalCode.MESSAGE_TOO_LONG: (
        f"A message has at most {MAX_MESSAGE_CHARACTERS} characters; complete it and start another."
    ),
    RefusalCode.NOT_RECORDED: "The session did not understand it.",
    RefusalCode.QUESTION_ID_TAKEN: (
        "Another question was asked under this id; ask the same again, or choose another id."
    ),
    RefusalCode.SESSION_CLOSED: "The session is closed; start another one.",
    RefusalCode.SESSION_FULL: "The session holds all it may; go on in a new one.",
    RefusalCode.TOO_MANY_MESSAGES: (
        f"{MAX_OPEN_MESSAGES} messages are open already; complete some before starting more."
    ),
    RefusalCode.TOO_MANY_QUESTIONS: (
        f"A turn asks at most {MAX_QUESTIONS} questions; put several into one form."
    ),
    RefusalCode.TOO_MANY_REFUSALS: "Too much of this writer was refused; correct it, and use another writer.",
    RefusalCode.TOO_MANY_TOOLS: (
        f"{MAX_OPEN_TOOLS} tool calls are open already; report the end of some before calling more."
    ),
    RefusalCode.TURN_OVER: "The turn isn't running, or a later attempt runs.",
    RefusalCode.TURN_STOPPED: "The turn has been stopped; only text of its open messages still counts.",
    RefusalCode.UNKNOWN_CALL: "No such tool call is open in this turn; call first, and return once.",
    RefusalCode.UNKNOWN_MESSAGE: "This writer has no such message; start it, or complete it with text.",
    RefusalCode.UNKNOWN_QUESTION: "No such question of this turn is open.",
    RefusalCode.UNKNOWN_STEER: "No such steer waits for this turn.",
}


class Refusal(FrozenOpen):
    """A run of items of one writer that was refused: those numbered ``first`` to ``last``, both included."""

    first: int
    last: int
    code: RefusalCode

    @property
    def detail(self) -> str:
        """The reason, in a sentence that says what to do."""
        return REASONS[self.code]


class Receipt(FrozenOpen):
    """What a session did with a writer's items: all up to ``n`` are recorded, or named in ``refused``."""

    n: int = 0
    refused: tuple[Refusal, ...] = Field(default=())
