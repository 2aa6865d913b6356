"""Who sees what of a session: one rule for events however they are delivered, and for the snapshot."""

from waystation.models.base import replaced
from waystation.models.events import TERMINAL_TURN_TYPES, Event, EventType
from waystation.models.requests import ListedSession
from waystation.models.sessions import ReplayPage, Snapshot

_FOR_STAFF: dict[str, str] = {
    **dict.fromkeys(TERMINAL_TURN_TYPES | {EventType.AGENT_FINISHED}, "usage"),
    EventType.TAKEOVER_STARTED: "reason",
}
"""The key of an event's data that is for staff, in an event that is for everybody."""


def for_people(event: Event) -> Event | None:
    """Returns the event as somebody sees it who isn't staff; ``None``: not at all.

    Its number passes without a word then, so that cursors mean the same to everybody.
    """
    if event.visibility == "staff":
        return None
    kept = _FOR_STAFF.get(event.type)
    if kept is not None and kept in event.data:
        return event.model_copy(
            update={"data": {key: value for key, value in event.data.items() if key != kept}}
        )
    return event


def page_for_people(page: ReplayPage) -> ReplayPage:
    """Returns a page of the log without what is for staff."""
    return page.model_copy(update={"events": tuple(filter(None, map(for_people, page.events)))})


def row_for_people(session: ListedSession) -> ListedSession:
    """Returns what a list says of a session without what is for staff."""
    return replaced(session, assigned_to=None)


def snapshot_for_people(snapshot: Snapshot) -> Snapshot:
    """Returns a snapshot without what is for staff."""
    return replaced(snapshot, usage=None, assigned_to=None)
