"""What a session carries of its turns across continue-as-new."""

from datetime import datetime
from typing import Literal, NamedTuple, TypeVar

from pydantic import BaseModel, Field

from waystation.models.events import Actor
from waystation.models.owners import News
from waystation.models.sessions import (
    Close,
    Outcome,
    Sent,
    SessionLimits,
    SessionOwner,
    TurnInput,
    TurnView,
    Withdrawn,
)

MAX_REMEMBERED_REQUESTS = 1_000
"""Answers kept so that a repeated request gets the first answer again."""

T = TypeVar("T")


class TurnState(BaseModel):
    """A turn that is queued or running."""

    input: TurnInput
    status: Literal["queued", "running", "waiting", "stopping"] = "queued"
    waiting_for: tuple[str, ...] = ()
    """What a waiting turn waits for: ids of questions, and of sub-agents' turns."""
    stop_requests: list[str] = Field(default_factory=list)
    stop_reason: str | None = None
    interrupts: bool = False
    """Whether it was sent to interrupt what runs: such turns go first, in the order in which they came."""
    ends_by: datetime | None = None
    """When a stopped turn has ended, whether its workflow has reported it or not; of a turn that the
    session's owner runs, also when it has taken too long."""
    check_by: datetime | None = None
    """When to see whether the owner that runs it is still there."""
    spawned: dict[str, str] = Field(default_factory=dict)

    def view(self) -> TurnView:
        return TurnView(
            turn_id=self.input.turn_id,
            agent=self.input.agent,
            status=self.status,
            attempt=self.input.attempt if self.status != "queued" else 0,
            message_id=self.input.message_id,
            parent_turn_id=self.input.parent_turn_id,
        )


class PendingSteer(BaseModel):
    """A steer that the running turn has not taken up yet."""

    steer_id: str
    turn_id: str
    text: str
    actor: Actor


class TurnsState(BaseModel):
    """What a session carries of its turns across continue-as-new."""

    turns: dict[str, TurnState] = Field(default_factory=dict)
    queue: list[str] = Field(default_factory=list)
    last_failed: bool = False
    """Whether the turn of the agent itself that ended last has failed."""
    steers: dict[str, PendingSteer] = Field(default_factory=dict)
    outcomes: dict[str, Outcome] = Field(default_factory=dict)
    sent: dict[str, Sent] = Field(default_factory=dict)
    withdrawn: dict[str, Withdrawn] = Field(default_factory=dict)
    launch: list[str] = Field(default_factory=list)
    """Turns whose workflows are to be started."""
    cancel: list[str] = Field(default_factory=list)
    """Turns whose workflows are to be cancelled."""
    news: list[News] = Field(default_factory=list)
    """What the session's owner is to be told, beside turns that begin and turns that are stopped."""
    resume: list[str] = Field(default_factory=list)
    """Turns whose workflows are to be told that they may go on."""
    agents_seen: list[str] = Field(default_factory=list)
    """Agents that have run a turn in this session."""
    turn_count: int = 0
    request_count: int = 0
    last_terminal: Outcome | None = None
    closing: Close | None = None
    closed: bool = False


class Identity(NamedTuple):
    """What turns need to know of their session and never change."""

    session_id: str
    agent: str
    limits: SessionLimits
    owner: SessionOwner | None = None


def remember(store: dict[str, T], key: str, value: T) -> None:
    """Keeps an answer, and forgets the oldest of too many."""
    store[key] = value
    while len(store) > MAX_REMEMBERED_REQUESTS:
        del store[next(iter(store))]
