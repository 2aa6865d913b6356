"""Bodies and answers of the HTTP API, except those that workflows define."""

import operator
from datetime import datetime
from typing import Literal

from pydantic import Field, JsonValue, StrictFloat

from waystation.models.base import Frozen, FrozenOpen
from waystation.models.events import (
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    Actor,
    Event,
    Identifier,
    MessageData,
    SessionId,
)
from waystation.models.listing import Awaited, LastLine, ListedStatus
from waystation.models.questions import ApprovalRules
from waystation.models.sessions import Handover, Metadata, NoteText, OnBusy, Sent, Snapshot

DEFAULT_WAIT_SECONDS = 10.0
MAX_WAIT_SECONDS = 60.0
MAX_LISTED_SESSIONS = 100


class StartRequest(Frozen):
    """The body of ``POST /sessions``."""

    agent: Identifier
    session_id: SessionId | None = None
    """Chosen by the client to make starting idempotent."""
    title: str | None = Field(default=None, max_length=MAX_NAME_CHARACTERS)
    metadata: Metadata = Field(default_factory=dict)
    message: str | None = Field(default=None, min_length=1, max_length=MAX_MESSAGE_CHARACTERS)
    """The first message, sent in the same request."""
    approval_rules: ApprovalRules = ()
    """What happens when the agent wants a tool approved; only services and operators may give rules."""


class Started(FrozenOpen):
    """The answer: the session as it is, and whether this request made it."""

    session_id: str
    created: bool
    session: Snapshot
    sent: Sent | None = None


class MessageRequest(Frozen):
    """The body of ``POST /sessions/{id}/messages``."""

    text: str = Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)
    message_id: Identifier | None = None
    """Chosen by the client to make sending idempotent."""
    on_busy: OnBusy = OnBusy.QUEUE
    data: MessageData = Field(default_factory=dict)
    actor: Actor | None = None
    """Who says it; only for the role ``service``, which speaks for its users."""


class WithdrawRequest(Frozen):
    """The body of ``POST /sessions/{id}/withdraw``."""

    message_id: Identifier
    actor: Actor | None = None
    """Who withdraws it; only for the role ``service``, otherwise the caller."""


class StopRequest(Frozen):
    """The body of ``POST /sessions/{id}/stop``."""

    turn_id: Identifier | None = None
    request_id: Identifier | None = None
    reason: str | None = Field(default=None, max_length=1_000)
    wait_seconds: StrictFloat = Field(default=DEFAULT_WAIT_SECONDS, ge=0, le=MAX_WAIT_SECONDS)


class SteerRequest(Frozen):
    """The body of ``POST /sessions/{id}/steer``."""

    text: str = Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)
    request_id: Identifier | None = None
    wait_seconds: StrictFloat = Field(default=DEFAULT_WAIT_SECONDS, ge=0, le=MAX_WAIT_SECONDS)


class ControlAnswer(FrozenOpen):
    """What became of a stop or steer; ``pending`` if the wait was too short to tell."""

    request_id: str
    outcome: Literal["pending", "stopped", "already_finished", "consumed", "queued", "refused"]
    seq: int | None = None
    turn_id: str | None = None
    detail: str | None = None


class ReasonRequest(Frozen):
    """The body of takeover and close."""

    reason: str | None = Field(default=None, max_length=1_000)


class TakeOverRequest(ReasonRequest):
    """The body of takeover. The reason is for staff."""

    instead_of: Identifier | None = None
    """The operator who has taken over, and whose place the caller takes."""


class ReleaseRequest(ReasonRequest, Handover):
    """The body of release."""


class SuggestRequest(Frozen):
    """The body of ``POST /sessions/{id}/suggestions``."""

    text: NoteText | None = None
    """What the reply should say; without it, the agent decides."""
    actor: Actor | None = None
    """The operator who wants it; only for the role ``service``, otherwise the caller."""


class NoteRequest(Frozen):
    """The body of ``POST /sessions/{id}/notes``."""

    text: NoteText
    note_id: Identifier | None = None
    """Makes it idempotent."""
    actor: Actor | None = None
    """Whose note it is; only for the role ``service``, otherwise the caller's."""


class AssignRequest(Frozen):
    """The body of ``PUT /sessions/{id}/assignee``."""

    operator: Actor | None = None
    """Who looks after the session; without it, nobody."""
    actor: Actor | None = None
    """Who says so; only for the role ``service``, otherwise the caller."""


class JoinRequest(Frozen):
    """The body of ``POST /sessions/{id}/participants``."""

    actor: Actor | None = None
    """Who joins; only for the role ``service``, otherwise the caller."""


class SessionFilters(Frozen):
    """The query of ``GET /sessions``; everything that is given must fit."""

    limit: int = Field(default=50, ge=1, le=MAX_LISTED_SESSIONS)
    cursor: str | None = None
    only_open: bool = False
    status: tuple[ListedStatus, ...] = Field(default=(), max_length=len(ListedStatus))
    """One of these; it may be repeated."""
    agent: Identifier | None = None
    person: Identifier | None = None
    """Somebody who has written, taken part, or is asked."""
    mine: bool = False
    """Whether it waits for an answer of the caller's, by their id or role."""
    assignee: Identifier | None = None
    """The operator who looks after it, by their id; only for staff."""
    unassigned: bool = False
    """Whether nobody looks after it; only for staff."""
    waiting_for: Identifier | None = None
    """Somebody by whose id it waits for an answer."""
    q: str = Field(default="", max_length=MAX_NAME_CHARACTERS)
    """Words of the title and people's names, or their beginnings; the beginning of the id or the agent's."""
    live: bool = False
    """Also asks each open session for its snapshot."""


class ListedSession(FrozenOpen):
    """A session in a list: what Temporal's visibility store knows of it."""

    session_id: str
    agent: str | None = None
    title: str | None = None
    open: bool
    started: datetime
    waits_for: str | None = None
    """What of people it waits for: ``approval`` of a tool, or an ``answer``."""
    turns_taken_by: str | None = None
    """The workflow that takes its turns; ``None`` if the agent's processes do."""
    status: ListedStatus | None = None
    """Null of one that is open and has no search attributes."""
    awaited: Awaited | None = None
    """Of one that is ``waiting``: who may answer."""
    people: tuple[Actor, ...] = ()
    """Who has taken part or written, the latest first; the first few of ``people_count``."""
    people_count: int = 0
    taken_over_by: Actor | None = None
    assigned_to: Actor | None = Field(default=None, exclude_if=operator.not_)
    """The operator who looks after it; for staff."""
    last_line: LastLine | None = None
    last_activity: datetime | None = None
    """When something last happened; exact to a minute while a person speaks in the agent's place."""
    snapshot: Snapshot | None = None


class SessionList(FrozenOpen):
    """A page of sessions, those in which something happened last first."""

    sessions: tuple[ListedSession, ...]
    next_cursor: str | None = None
    count: int | None = None
    """How many there are on all pages."""


class AgentView(FrozenOpen):
    """An agent by its name, and what runs it: processes, or workflows that take turns themselves."""

    name: str
    processes: int
    """How many ask Temporal for its turns; one that was killed counts for up to a minute longer."""
    last_seen: datetime | None = None
    """When one has last asked; Temporal forgets it after five minutes."""
    workflows: int = 0
    """How many workflows take its turns, of those whose sessions are open and among the newest."""
    starters: tuple[str, ...] = ()
    """What people may begin a session with, as its processes that are connected offer it."""


class AgentList(FrozenOpen):
    """Agents, those of the newest sessions first."""

    agents: tuple[AgentView, ...]


class MessageView(FrozenOpen):
    """A message as the transcript shows it."""

    id: str
    seq: int | None = None
    """Where it began: its place among the other messages and the events."""
    by: Actor
    text: str
    turn: str | None = None
    status: Literal["streaming", "superseded", "withdrawn"] | None = None
    """Missing once completed."""
    data: dict[str, JsonValue] | None = None


class TranscriptView(FrozenOpen):
    """Everything up to ``cursor``, from which the stream of events continues: the cheapest resume."""

    session_id: str
    cursor: int
    closed: bool
    messages: tuple[MessageView, ...]
    events: tuple[Event, ...] = ()
    """What else was recorded, in order: turns and how they ended, tools, approvals, people, agents' own."""


class PresentPerson(FrozenOpen):
    """Someone connected now."""

    id: str
    role: str
    name: str | None = None
    connections: int


class People(FrozenOpen):
    """Who takes part, and who is connected now."""

    participants: tuple[Actor, ...]
    present: tuple[PresentPerson, ...]
    taken_over_by: Actor | None = None


class WorkflowPlace(FrozenOpen):
    """Where Temporal has a session."""

    workflow_id: str
    """The session's; the workflow of its turn ``t1`` has ``/t1`` behind it."""
    namespace: str
    workflows_url: str | None = None
    """Where Temporal's web page shows workflows, if the deployment says so: ``/`` and an id lead to one."""
