"""Session events: what a session is made of, and what its clients receive.

A session is one ordered list of events. Only its workflow numbers them: ``seq`` is
1, 2, 3, … and never repeats or goes back. Numbers may be missing in a replay, since
a completed message replaces the deltas it was made of.
"""

import json
import operator
import re
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, field_serializer

from waystation.foreign_json import check_nesting
from waystation.models.base import BoundedObject, Frozen, FrozenOpen

MAX_ID_CHARACTERS = 128
MAX_NAME_CHARACTERS = 200
MAX_MESSAGE_CHARACTERS = 262_144
"""The longest message. A longer answer is several messages."""
MAX_DATA_BYTES = 65_536
"""The most JSON that one event may carry besides its text."""
MAX_WRITES_PER_PUBLISH = 1_000

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/|+-]{0,127}$")]
"""An id chosen by a client, an agent, an identity provider (``auth0|5f7c``) or the workflow."""

SessionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""A session's id is its Temporal workflow id: 1 to 100 letters, digits, ``.``, ``_``, ``-``."""


class Role(StrEnum):
    """Who an actor is to the session."""

    USER = "user"
    AGENT = "agent"
    OPERATOR = "operator"
    SYSTEM = "system"


class Actor(Frozen):
    """Who did it.

    >>> Actor(id="ada", role="user", name="Ada").role
    <Role.USER: 'user'>
    """

    id: Identifier
    role: Role
    name: str | None = Field(default=None, max_length=MAX_NAME_CHARACTERS)


SYSTEM = Actor(id="waystation", role=Role.SYSTEM)


class EventType(StrEnum):
    """Every type the session itself knows; agents add their own as ``data.<name>``."""

    SESSION_STARTED = "session.started"
    SESSION_CLOSED = "session.closed"
    TURN_QUEUED = "turn.queued"
    TURN_STARTED = "turn.started"
    TURN_COMPLETED = "turn.completed"
    TURN_STOPPED = "turn.stopped"
    TURN_FAILED = "turn.failed"
    TURN_RETRIED = "turn.retried"
    TURN_WAITING = "turn.waiting"
    TURN_RESUMED = "turn.resumed"
    MESSAGE_STARTED = "message.started"
    MESSAGE_DELTA = "message.delta"
    MESSAGE_COMPLETED = "message.completed"
    MESSAGE_SUPERSEDED = "message.superseded"
    MESSAGE_WITHDRAWN = "message.withdrawn"
    TOOL_CALLED = "tool.called"
    TOOL_RETURNED = "tool.returned"
    STOP_REQUESTED = "stop.requested"
    STEER_RECEIVED = "steer.received"
    STEER_CONSUMED = "steer.consumed"
    STEER_EXPIRED = "steer.expired"
    INPUT_REQUESTED = "input.requested"
    INPUT_ANSWERED = "input.answered"
    INPUT_EXPIRED = "input.expired"
    INPUT_WITHDRAWN = "input.withdrawn"
    PARTICIPANT_JOINED = "participant.joined"
    PARTICIPANT_LEFT = "participant.left"
    TAKEOVER_STARTED = "takeover.started"
    TAKEOVER_RELEASED = "takeover.released"
    AGENT_SPAWNED = "agent.spawned"
    AGENT_FINISHED = "agent.finished"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_DENIED = "approval.denied"
    APPROVAL_EXPIRED = "approval.expired"
    PURCHASE_UPDATED = "purchase.updated"
    PAYMENT_UPDATED = "payment.updated"
    USAGE_REPORTED = "usage.reported"
    NOTE_ADDED = "note.added"
    SESSION_ASSIGNED = "session.assigned"
    SUGGESTION_REQUESTED = "suggestion.requested"
    SUGGESTION_MADE = "suggestion.made"
    SUGGESTION_FAILED = "suggestion.failed"


Visibility = Literal["staff"]
"""Who alone sees an event: operators, agents and services. Without it, everybody in the session does."""

DATA_PREFIX = "data."
DATA_TYPE = re.compile(r"data\.[a-z0-9][a-z0-9_.-]{0,63}")

TERMINAL_TURN_TYPES = frozenset({EventType.TURN_COMPLETED, EventType.TURN_STOPPED, EventType.TURN_FAILED})
"""Every turn ends with exactly one of these."""

SETTLED_QUESTION_TYPES = frozenset(
    {EventType.INPUT_ANSWERED, EventType.INPUT_EXPIRED, EventType.INPUT_WITHDRAWN}
)
"""Every question ends with exactly one of these."""

FOLDED_TYPES = frozenset({EventType.MESSAGE_STARTED, EventType.MESSAGE_DELTA})
"""A message's parts: once it is complete, the log holds the whole in their place."""

AGENT_WRITABLE_TYPES = frozenset(
    {
        EventType.MESSAGE_STARTED,
        EventType.MESSAGE_DELTA,
        EventType.MESSAGE_COMPLETED,
        EventType.TOOL_CALLED,
        EventType.TOOL_RETURNED,
        EventType.STEER_CONSUMED,
        EventType.INPUT_REQUESTED,
        EventType.INPUT_WITHDRAWN,
        EventType.USAGE_REPORTED,
    }
)
"""What agents may write, besides ``data.<name>``. Only the workflow writes anything else."""

_FOR_STAFF_TYPES = frozenset({EventType.TOOL_CALLED, EventType.TOOL_RETURNED, EventType.USAGE_REPORTED})

MONEY_TYPES = frozenset(
    {
        EventType.APPROVAL_REQUESTED,
        EventType.APPROVAL_GRANTED,
        EventType.APPROVAL_DENIED,
        EventType.APPROVAL_EXPIRED,
        EventType.PURCHASE_UPDATED,
        EventType.PAYMENT_UPDATED,
    }
)


RESERVED_MESSAGE_KEYS = frozenset({"text", "started", "kind", "finish"})
"""Keys with which the session itself describes a message; senders' data can't use them."""


def is_encodable(value: object) -> bool:
    """Returns whether JSON made of this can be sent: half a surrogate pair (``"\\ud83d"``) can't be."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_message_data(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    check_nesting(data)
    if taken := RESERVED_MESSAGE_KEYS & data.keys():
        raise ValueError(f"data can't have the keys {', '.join(sorted(taken))}; choose others")
    if data and len(json.dumps(data)) > MAX_DATA_BYTES:
        raise ValueError(f"data has at most {MAX_DATA_BYTES} bytes as JSON; store it and send a link")
    if not is_encodable(data):
        raise ValueError("data contains half a surrogate pair, which is not a character; leave it out")
    return data


MessageData = Annotated[dict[str, JsonValue], AfterValidator(_check_message_data)]
"""What a sender adds to a message: anything but the reserved keys, within MAX_DATA_BYTES."""


def may_be_for_staff(event_type: str) -> bool:
    """Returns whether an agent may keep an event of this type from the people it works for."""
    return event_type in _FOR_STAFF_TYPES or DATA_TYPE.fullmatch(event_type) is not None


def is_agent_writable(event_type: str) -> bool:
    """Returns whether an agent may write an event of this type."""
    return event_type in AGENT_WRITABLE_TYPES or DATA_TYPE.fullmatch(event_type) is not None


class Event(FrozenOpen):
    """One durable event.

    ``time`` is when the workflow recorded it. ``data`` depends on ``type``; docs/events.md
    lists it for each. A ``message.delta`` carries ``{"offset": int, "text": str}``, the
    offset in characters (Unicode code points) at which its text belongs in the message.
    """

    seq: int = Field(ge=1)
    time: datetime
    type: str
    actor: Actor
    turn_id: str | None = None
    message_id: str | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict, exclude_if=operator.not_)
    visibility: Visibility | None = Field(default=None, exclude_if=operator.not_)

    @field_serializer("time", when_used="json")
    def _milliseconds(self, time: datetime) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"

    def to_wire(self) -> str:
        """Returns the JSON that clients receive: no nulls, no empty objects.

        >>> Event(seq=1, time=datetime(2026, 1, 1), type="session.started", actor=SYSTEM).to_wire()
        '{"seq":1,"time":"2026-01-01T00:00:00.000Z","type":"session.started","actor":{"id":"waystation","role":"system"}}'
        """
        return self.model_dump_json(exclude_none=True)


class LiveDelta(FrozenOpen):
    """A delta sent to viewers ahead of the durable log: no number, no guarantee.

    It may be lost, doubled or reordered: ``offset`` says where its text belongs.
    """

    type: Literal["message.delta"] = "message.delta"
    actor: Actor
    turn_id: str | None = None
    message_id: str
    data: dict[str, Any]
    attempt: int = 0


class Item(Frozen):
    """One thing an agent writes, before the workflow has numbered it.

    ``n`` is the writer's own number: 1, 2, 3, …; an item that stands for several coalesced deltas has the
    last one's. The workflow drops numbers it has seen, so sending again is harmless.
    """

    n: int = Field(ge=1, strict=True)
    type: str = Field(max_length=80)
    message_id: Identifier | None = None
    data: BoundedObject = Field(default_factory=dict)
    visibility: Visibility | None = Field(default=None, exclude_if=operator.not_)


def _check_order(items: tuple[Item, ...]) -> tuple[Item, ...]:
    for before, item in pairwise(items):
        if item.n <= before.n:
            raise ValueError(f"n must grow from item to item, but {item.n} follows {before.n}")
    return items


OrderedItems = Annotated[tuple[Item, ...], AfterValidator(_check_order)]
"""Items as a writer sends them. Out of order, the lower numbers would be taken for repeats and dropped."""


class Write(Frozen):
    """A run of items by one writer, in order.

    ``turn_id`` and ``attempt`` fence it: writes by an older attempt, or by anyone after the turn's end, are
    refused.
    """

    writer: Identifier
    actor: Actor
    turn_id: Identifier | None = None
    attempt: int = Field(default=0, ge=0)
    items: tuple[Item, ...] = Field(max_length=20_000)


class Publish(Frozen):
    """What a ``publish`` signal carries: writes by one or several writers."""

    writes: tuple[Write, ...] = Field(max_length=MAX_WRITES_PER_PUBLISH)
