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


class AuditTrail(Frozen):
    """The whole trail of one purchase, oldest first."""

    purchase_id: str
    entries: tuple[AuditEntry, ...]


class NoteEvents(Frozen):
    """Events for a session's log; the same ``key`` twice is written once."""

    key: str
    events: tuple[dict[str, JsonValue], ...]
