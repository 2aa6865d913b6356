"""What lists say of a session, and when that is worth writing down.

Pure, like the log: no Temporal, no clock of its own, no I/O. Each time that something is written down costs
an event of the history. So it is written where the status, the people or what is waited for change, and
besides once a minute at most while messages come and go.
"""

from datetime import datetime

from pydantic import BaseModel, Field

from waystation.models.events import Actor, Event, EventType, Role
from waystation.models.listing import (
    MAX_LISTED_PEOPLE,
    Awaited,
    LastLine,
    ListedStatus,
    SessionRow,
    as_person,
    in_odd_milliseconds,
    one_line,
)
from waystation.temporal.terms import ASSIGNED, MAX_TERMS, OTHERS, Terms, role_term
from workflows.policies import ACTIVITY_STEP
from workflows.session.log import SessionLog
from workflows.session.people import PeopleState
from workflows.session.purchases import Purchases
from workflows.session.questions import Questions
from workflows.session.turns import Turns

MAX_KNOWN_PEOPLE = 60
_COMING_AND_GOING = frozenset({EventType.PARTICIPANT_JOINED, EventType.PARTICIPANT_LEFT})
"""Who only looks on doesn't move a session to the top of the list."""


class Marked(BaseModel):
    """What a session's search attributes say."""

    status: ListedStatus
    waits_for: list[str]
    terms: list[str]
    last_activity: datetime


class ListingState(BaseModel):
    """What a session carries of it across continue-as-new."""

    key: str | None = Field(default=None, repr=False)
    """The key of its digests, where a worker has told it and not whoever started it."""
    people: dict[str, Actor] = Field(default_factory=dict)
    """Who has taken part or written, the latest last."""
    last_line: LastLine | None = None
    last_activity: datetime | None = None
    marked: Marked | None = None
    assigned_to: Actor | None = None
    """Who looks after the session. Not from ``PeopleState``: earlier runs said nothing of it here."""
    says_assigned: bool = False
    """Whether the attributes say that somebody does: earlier runs named them only."""


class Listing:
    """Knows what is to be written down. Without a key, the namespace has no place for it."""

    def __init__(
        self,
        state: ListingState,
        title: str | None,
        log: SessionLog,
        turns: Turns,
        people: PeopleState,
        purchases: Purchases,
        questions: Questions,
    ) -> None:
        self.state = state
        self._title, self._turns, self._people = title, turns, people
        self._purchases, self._questions = purchases, questions
        self._terms: Terms | None = None
        self._digested: list[str] | None = None
        log.observers.append(self._note)

    def use_key(self, key: str | None) -> None:
        """From now on there is a place for it, if this is a key."""
        self._terms = Terms(key) if key else None

    @property
    def enabled(self) -> bool:
        """Whether there is a place for it."""
        return self._terms is not None

    def _note(self, event: Event) -> None:
        """Learns from an event of the log who took part, what was said last, and when."""
        state = self.state
        if event.visibility is not None:  # what is among staff shows in no list: people have lists too
            return
        if event.type not in _COMING_AND_GOING or state.last_activity is None:
            state.last_activity = in_odd_milliseconds(event.time)
        if event.actor.role in (Role.USER, Role.OPERATOR):
            self._note_person(event.actor)
        if line := _line_of(event):
            state.last_line = LastLine(text=line, actor=event.actor)

    def _note_person(self, actor: Actor) -> None:
        people = self.state.people
        if known := people.pop(actor.id, None):
            actor = actor if actor.name else known
        else:
            self._digested = None
        people[actor.id] = actor
        if known != actor:
            self._digested = None
        while len(people) > MAX_KNOWN_PEOPLE:
            del people[next(iter(people))]

    def assign(self, operator: Actor | None, *, says_so: bool) -> None:
        """Learns who looks after the session, and whether the attributes may say that somebody does."""
        self.state.assigned_to = operator
        self.state.says_assigned = says_so

    # What is so now

    @property
    def status(self) -> ListedStatus:
        """What the session is doing."""
        if self._turns.state.closing:
            return ListedStatus.CLOSED
        if self._people.taken_over_by is not None:
            return ListedStatus.PAUSED
        if self._questions.are_open or self._purchases.awaiting or self._turns.waiting:
            return ListedStatus.WAITING
        if self._turns.busy:
            return ListedStatus.RUNNING
        return ListedStatus.FAILED if self._turns.state.last_failed else ListedStatus.IDLE

    def awaited(self) -> Awaited | None:
        """Returns whose answer is waited for; nobody's where a person speaks, or all is over."""
        if self.status is not ListedStatus.WAITING:
            return None
        audiences = self._questions.audiences()
        roles = [role for audience in audiences for role in audience.roles]
        if self._purchases.awaiting:
            roles.append("approver")
        ids = dict.fromkeys(one for audience in audiences for one in audience.ids)
        people = tuple(as_person(one, self._known(one)) for one in ids)
        return Awaited(roles=tuple(dict.fromkeys(roles)), people=people)

    def row(self) -> SessionRow:
        """Returns what the memo is to say."""
        people = [*reversed(self.state.people.values())]
        awaited = self.awaited()
        if awaited is not None:
            awaited = awaited.model_copy(update={"people": awaited.people[:MAX_LISTED_PEOPLE]})
        return SessionRow(
            awaited=awaited,
            people=tuple(people[:MAX_LISTED_PEOPLE]),
            people_count=len(people),
            taken_over_by=self._people.taken_over_by,
            last_line=self.state.last_line,
            assigned_to=self.state.assigned_to,
        )

    # When to write

    def due(self) -> Marked | None:
        """Returns what the attributes are to say, if it is worth an event; else ``None``."""
        terms, last_activity = self._terms, self.state.last_activity
        if terms is None or last_activity is None:
            return None
        now = Marked(
            status=self.status,
            waits_for=self._waiting_terms(terms),
            terms=self._session_terms(terms),
            last_activity=last_activity,
        )
        before = self.state.marked
        if before is None or _said(now) != _said(before):
            return now
        return now if last_activity - before.last_activity >= ACTIVITY_STEP else None

    def is_row_due(self) -> bool:
        """Whether the memo is worth an event too: not while a turn runs, for its end will be."""
        return self.status is not ListedStatus.RUNNING or self.state.marked is None

    def _waiting_terms(self, terms: Terms) -> list[str]:
        awaited = self.awaited()
        if awaited is None:
            return []
        found = [*map(role_term, awaited.roles), *(terms.person(one.id) for one in awaited.people)]
        # With more people than one attribute holds, everybody is shown it rather than somebody not.
        return found if len(found) <= MAX_TERMS else [*found[: MAX_TERMS - 1], OTHERS]

    def _session_terms(self, terms: Terms) -> list[str]:
        if self._digested is None:
            people = [(one.id, one.name) for one in reversed(self.state.people.values())]
            self._digested = terms.of_session(self._title, people)
        if operator := self.state.assigned_to:
            said = [ASSIGNED] if self.state.says_assigned else []
            return [terms.assignee(operator.id), *said, *self._digested][:MAX_TERMS]
        return self._digested

    def _known(self, person_id: str) -> Actor | None:
        return self._people.participants.get(person_id) or self.state.people.get(person_id)


def _line_of(event: Event) -> str:
    """Returns what was said in one line; reasoning and what sub-agents say is said to nobody."""
    text = event.data.get("text")
    to_nobody = "." in (event.turn_id or "") or event.data.get("kind") == "reasoning"
    said = event.type == EventType.MESSAGE_COMPLETED and not to_nobody and isinstance(text, str)
    return one_line(str(text)) if said else ""


def _said(marked: Marked) -> tuple[ListedStatus, list[str], list[str]]:
    return marked.status, marked.waits_for, sorted(marked.terms)
