"""The trail of one purchase, paid request or allowance, and what a session is told of it."""

from datetime import datetime

from pydantic import Field, JsonValue, StrictInt

from waystation.models.base import Frozen


class AuditEntry(Frozen):
    """One step in the trail. ``hash`` covers all the rest, ``previous`` is the hash of the entry before."""

    seq: StrictInt
    time: datetime
    actor: str
    action: str
    detail: dict[str, JsonValue] = Field(default_factory=dict)
    previous: str
    hash: str


class RepeatedAnswers(Frozen):
    """Answers to one call that say the same as the last entry about it; they become one entry later on."""

    actor: str
    action: str
    detail: dict[str, JsonValue] = Field(default_factory=dict)
    """What the last of them said."""
    count: StrictInt = 0
    first: datetime
    last: datetime


class AuditTrail(Frozen):
    """The whole trail of one purchase, oldest first."""

    purchase_id: str
    entries: tuple[AuditEntry, ...]
    repeated: tuple[RepeatedAnswers, ...] = ()
    """What has been answered again since, and isn't an entry yet."""


class NoteEvents(Frozen):
    """Events for a session's log; the same ``key`` twice is written once."""

    key: str
    events: tuple[dict[str, JsonValue], ...]
