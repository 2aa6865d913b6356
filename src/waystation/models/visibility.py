"""Who sees what of a session: one rule for events however they are delivered, and for the snapshot."""

from waystation.models.base import replaced
from waystation.models.events import TERMINAL_TURN_TYPES, Event, EventType
from waystation.models.sessions import ReplayPage, Snapshot

_ENDS = TERMINAL_TURN_TYPES | {EventType.AGENT_FINISHED}
_FOR_STAFF = "usage"
"""The key of an event's data that is for staff, in an event that is for everybody."""


def for_people(event: Event) -> Event | None:
    """Returns the event as somebody sees it who isn't staff; ``None``: not at all.

    Its number passes without a word then, so that cursors mean the same to everybody.
    """
    if event.visibility == "staff":
        return None
    if _FOR_STAFF in event.data and event.type in _ENDS:
        return event.model_copy(
            update={"data": {key: value for key, value in event.data.items() if key != _FOR_STAFF}}
        )
    return event


def page_for_people(page: ReplayPage) -> ReplayPage:
    """Returns a page of the log without what is for staff."""
    return page.model_copy(update={"events": tuple(filter(None, map(for_people, page.events)))})


def snapshot_for_people(snapshot: Snapshot) -> Snapshot:
    """Returns a snapshot without what is for staff."""
    return replaced(snapshot, usage=None, assigned_to=None)
