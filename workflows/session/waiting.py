"""What in a session may wait for a person, put together for whoever tells people. Pure, like the log."""

from datetime import datetime

from waystation.models.attention import MAX_ASKED, MAX_AWAITED, Asked, FailedTurn, Waiting
from waystation.models.events import Actor, Event, EventType
from waystation.models.listing import ListedStatus, one_line
from waystation.models.questions import as_asked
from workflows.session.listing import Listing
from workflows.session.log import SessionLog
from workflows.session.people import PeopleState
from workflows.session.purchases import Purchases
from workflows.session.questions import Questions


def waiting_of(
    said: Waiting,
    log: SessionLog,
    listing: Listing,
    people: PeopleState,
    purchases: Purchases,
    questions: Questions,
) -> Waiting:
    """Returns ``said``, which names the session, with all that waits in it; of a closed one, nothing does."""
    status = listing.status
    if status is ListedStatus.CLOSED:
        return said
    asked = list(questions.asked())
    awaited = purchases.awaited()
    return said.model_copy(
        update={
            "asked": tuple(_asked(event) for event in reversed(asked[-MAX_ASKED:])),
            "asked_count": len(asked),
            "purchases": tuple(awaited.purchases[-MAX_AWAITED:]),
            "payments": tuple(awaited.payments[-MAX_AWAITED:]),
            "taken_over_by": people.taken_over_by,
            "taken_over_at": _since(log, EventType.TAKEOVER_STARTED, people.taken_over_by),
            "assigned_to": people.assigned_to,
            "assigned_at": _since(log, EventType.SESSION_ASSIGNED, people.assigned_to),
            "failed": _failed(_last(log, EventType.TURN_FAILED)) if status is ListedStatus.FAILED else None,
        }
    )


def _asked(event: Event) -> Asked:
    asked = as_asked(event.data)
    deadline = event.data.get("deadline")
    return Asked(
        question_id=asked.question_id,
        kind=asked.kind,
        line=one_line(asked.prompt),
        agent=event.actor.id,
        tool=asked.tool,
        audience=asked.answerers,
        since=event.time,
        deadline=datetime.fromisoformat(deadline) if isinstance(deadline, str) else None,
    )


def _failed(event: Event | None) -> FailedTurn | None:
    if event is None:
        return None
    code = event.data.get("code")
    return FailedTurn(turn_id=event.turn_id, code=code if isinstance(code, str) else None, since=event.time)


def _last(log: SessionLog, event_type: EventType) -> Event | None:
    return next((event for event in reversed(log.state.events) if event.type == event_type), None)


def _since(log: SessionLog, event_type: EventType, who: Actor | None) -> datetime | None:
    # The log is read through to its beginning only for what it has.
    event = _last(log, event_type) if who else None
    return event.time if event else None
