"""What waits for people: what a session says of itself, and what a person is told of all that they see."""

import operator
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from waystation.models.base import Frozen, FrozenOpen
from waystation.models.events import SETTLED_QUESTION_TYPES, TERMINAL_TURN_TYPES, Actor, EventType
from waystation.models.money import Money
from waystation.models.questions import Audience, QuestionKind

MAX_ASKED: Final = 20
"""Of one session; the newest. The count has all of them."""
MAX_AWAITED: Final = 50
"""Purchases and paid requests of one session that are named."""
MAX_ITEMS: Final = 20
"""What a person is told in full; the counts have the rest."""

_RAISES: Final = frozenset(
    {
        EventType.INPUT_REQUESTED,
        EventType.TAKEOVER_STARTED,
        EventType.SESSION_ASSIGNED,
        EventType.TURN_FAILED,
        EventType.APPROVAL_REQUESTED,
        EventType.PURCHASE_UPDATED,
        EventType.PAYMENT_UPDATED,
    }
)
_SETTLES: Final = (
    (TERMINAL_TURN_TYPES - {EventType.TURN_FAILED})
    | SETTLED_QUESTION_TYPES
    | {
        EventType.TAKEOVER_RELEASED,
        EventType.TURN_STARTED,
        EventType.SESSION_CLOSED,
        EventType.APPROVAL_GRANTED,
        EventType.APPROVAL_DENIED,
        EventType.APPROVAL_EXPIRED,
    }
)


def attention_of(event_type: str) -> bool | None:
    """Returns whether after such an event more may wait for people, or only less; ``None``: no difference.

    >>> attention_of("input.requested"), attention_of("turn.started"), attention_of("message.delta")
    (True, False, None)
    """
    if event_type in _RAISES:
        return True
    return False if event_type in _SETTLES else None


# What a session says


class Asked(FrozenOpen):
    """A question that waits for its answer, with who may give it."""

    question_id: str
    kind: QuestionKind
    line: str
    """The beginning of what is asked, in one line."""
    agent: str
    tool: str | None = None
    audience: Audience
    since: datetime
    deadline: datetime | None = None


class FailedTurn(FrozenOpen):
    """The last turn of a session, which has failed."""

    turn_id: str | None = None
    code: str | None = None
    since: datetime


class Waiting(FrozenOpen):
    """The answer of the query ``waiting``: everything in a session that may wait for a person."""

    session_id: str
    agent: str
    title: str | None = None
    asked: tuple[Asked, ...] = ()
    """Newest first, the first few of ``asked_count``."""
    asked_count: int = 0
    purchases: tuple[str, ...] = ()
    """Those that wait for an approver, as far as they have told the session."""
    payments: tuple[str, ...] = ()
    taken_over_by: Actor | None = None
    taken_over_at: datetime | None = None
    """When they took over."""
    assigned_to: Actor | None = None
    assigned_at: datetime | None = None
    """When it was assigned to them."""
    failed: FailedTurn | None = None
    """If nothing has happened since."""


# What a person is told


class AttentionKind(StrEnum):
    """What waits."""

    PURCHASE = "purchase"
    PAYMENT = "payment"
    TOOL = "tool"
    """A tool that an agent wants to run."""
    QUESTION = "question"
    HANDOVER = "handover"
    """A session that you have taken over, or that is assigned to you."""
    FAILURE = "failure"
    """A session whose last turn has failed; for operators."""


class AttentionItem(Frozen):
    """Something that waits for whoever reads this."""

    kind: AttentionKind
    id: str
    """Of the purchase, the paid request or the question; else of the session."""
    session_id: str | None = None
    agent: str | None = None
    line: str
    """What it is, in one line of words."""
    amount: Money | None = Field(default=None, exclude_if=operator.not_)
    """What is to be paid, of a purchase or a paid request."""
    since: datetime
    deadline: datetime | None = None


class Attention(Frozen):
    """What waits for one person at one moment."""

    count: int
    """How many there are."""
    counts: dict[AttentionKind, int]
    """The same by kind; those of which there are any."""
    items: tuple[AttentionItem, ...]
    """The newest first, the first few of them."""
    more: bool = False
    """Whether there is so much that not all was looked at; the counts are then the least."""
