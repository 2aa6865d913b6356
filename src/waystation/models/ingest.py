"""The frames on an agent's WebSocket: one frame per message up, a JSON list of frames down.

docs/ingest.md describes the conversation.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from waystation.models.base import Frozen, FrozenOpen
from waystation.models.events import Actor, Identifier, OrderedItems, SessionId
from waystation.models.sessions import Spawn


class OpenFrame(Frozen):
    """Opens a writer: from now on the agent hears of this turn. Sent again after a reconnect."""

    op: Literal["open"] = "open"
    session_id: SessionId
    writer: Identifier
    actor: Actor
    turn_id: Identifier | None = None
    attempt: int = Field(default=0, ge=0, strict=True)
    after: int | None = Field(default=None, ge=0, strict=True)
    """Where in the session the turn began: later events that concern the turn are sent first."""


class WriteFrame(Frozen):
    """Writes items; ``flush`` makes them durable without waiting for more."""

    op: Literal["write"] = "write"
    writer: Identifier
    items: OrderedItems = Field(default=(), max_length=20_000)
    flush: bool = Field(default=False, strict=True)


class SpawnFrame(Frozen):
    """Asks for a sub-agent; answered by ``spawned`` or ``problem`` with the same ``request``."""

    op: Literal["spawn"] = "spawn"
    writer: Identifier
    session_id: SessionId
    request: Identifier
    spawn: Spawn


MAX_AGENTS_PER_CONNECTION = 50
MAX_STARTERS = 6
MAX_STARTER_CHARACTERS = 200

Starters = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=MAX_STARTER_CHARACTERS)], ...],
    Field(max_length=MAX_STARTERS),
]
"""What people may begin a session with, as an agent offers it."""


class DescribeFrame(Frozen):
    """Says what the agents of this process offer, by their names."""

    op: Literal["describe"] = "describe"
    starters: dict[Identifier, Starters] = Field(default_factory=dict, max_length=MAX_AGENTS_PER_CONNECTION)


class CloseFrame(Frozen):
    """The writer is done."""

    op: Literal["close"] = "close"
    writer: Identifier


AgentFrame = Annotated[
    OpenFrame | WriteFrame | SpawnFrame | DescribeFrame | CloseFrame, Field(discriminator="op")
]


class OpenedFrame(FrozenOpen):
    """The writer may write."""

    op: Literal["opened"] = "opened"
    writer: str


class AckFrame(FrozenOpen):
    """Everything the writer has written up to ``n`` is recorded, but for what was ``refused`` before."""

    op: Literal["ack"] = "ack"
    writer: str
    n: int


class RefusedFrame(FrozenOpen):
    """The items from ``first`` to ``last`` were refused and won't be recorded; ``detail`` says what to do."""

    op: Literal["refused"] = "refused"
    writer: str
    first: int
    last: int
    code: str
    detail: str


class StopFrame(FrozenOpen):
    """Someone has stopped the turn: wind down. What viewers see is flushed; nothing more is shown."""

    op: Literal["stop"] = "stop"
    writer: str
    turn_id: str
    reason: str | None = None


class SteerFrame(FrozenOpen):
    """Someone steers the turn: take it up by writing ``steer.consumed``, or ignore it."""

    op: Literal["steer"] = "steer"
    writer: str
    steer_id: str
    text: str
    actor: Actor


class AnsweredFrame(FrozenOpen):
    """A question of the turn is settled; told again when the writer is opened again."""

    op: Literal["answered"] = "answered"
    writer: str
    question_id: str
    outcome: Literal["answered", "expired", "withdrawn"]
    value: JsonValue = None
    actor: Actor
    reason: str | None = None


class FencedFrame(FrozenOpen):
    """The turn is over for this attempt: nothing it writes counts any more."""

    op: Literal["fenced"] = "fenced"
    writer: str
    code: str


class SpawnedFrame(FrozenOpen):
    """The sub-agent runs as this turn."""

    op: Literal["spawned"] = "spawned"
    writer: str
    request: str
    turn_id: str


class FinishedFrame(FrozenOpen):
    """A sub-agent of this turn has ended."""

    op: Literal["finished"] = "finished"
    writer: str
    turn_id: str
    outcome: JsonValue = None
    result: JsonValue = None
    detail: JsonValue = None


class ProblemFrame(FrozenOpen):
    """A frame was refused; ``retry`` says whether the same frame may work later."""

    op: Literal["problem"] = "problem"
    writer: str | None = None
    request: str | None = None
    code: str
    detail: str
    retry: bool = False


ServerFrame = Annotated[
    OpenedFrame
    | AckFrame
    | RefusedFrame
    | StopFrame
    | SteerFrame
    | AnsweredFrame
    | FencedFrame
    | SpawnedFrame
    | FinishedFrame
    | ProblemFrame,
    Field(discriminator="op"),
]
