"""What goes into and comes out of a session's workflow and the HTTP API."""

import operator
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, StrictBool, StringConstraints, model_validator
from pydantic_core import to_json

from waystation.models.base import BoundedJson, BoundedObject, Frozen, FrozenOpen, WorkflowStart
from waystation.models.digests import Digested
from waystation.models.events import (
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    Actor,
    Event,
    Identifier,
    MessageData,
    SessionId,
)
from waystation.models.questions import ApprovalRules, OpenQuestion
from waystation.models.refusals import Receipt
from waystation.models.usage import Usage
from waystation.surrogates import mend_json

MAX_QUEUED_TURNS = 100
PARK_AFTER_SECONDS = 60
# What has its default is left out of what starts workflows: workers of an earlier release know no such field.
MAX_PARTICIPANTS = 200
MAX_REPLAY_EVENTS = 2_000
MAX_METADATA_ENTRIES = 32
MAX_METADATA_CHARACTERS = 1_000
"""Of one value."""
MAX_REASON_CHARACTERS = 1_000
MAX_NOTE_CHARACTERS = 10_000
MAX_RESULT_BYTES = 1_048_576
"""Of a turn's result, as JSON: no more than a message of the longest kind."""


NoteText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NOTE_CHARACTERS)]
"""What staff tell each other of a session, and its agent."""

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=128)],
        Annotated[str, StringConstraints(max_length=MAX_METADATA_CHARACTERS)],
    ],
    Field(max_length=MAX_METADATA_ENTRIES),
]
"""What somebody notes about a session; every snapshot carries it."""


class SessionStatus(StrEnum):
    """What a session is doing now."""

    IDLE = "idle"
    RUNNING = "running"
    WAITING = "waiting"
    """Turns wait for people, and none runs."""
    PAUSED = "paused"
    """A person has taken over; the agent's turns wait."""
    CLOSED = "closed"


class OnBusy(StrEnum):
    """What happens to a message that arrives while a turn is running."""

    QUEUE = "queue"
    INTERRUPT = "interrupt"
    STEER = "steer"
    REJECT = "reject"


class SessionLimits(Frozen):
    """Bounds fixed for a session when it starts, so that its workflow stays deterministic."""

    agent_start_timeout_seconds: int = Field(default=30, ge=1, le=86_400)
    """A turn fails after this long if nobody runs its agent, and nobody has in this session before."""
    agent_return_timeout_seconds: int = Field(default=86_400, ge=1, le=30 * 86_400)
    """How long a turn waits for an agent that has run in the session: while it is deployed, for example."""
    agent_heartbeat_timeout_seconds: int = Field(default=5, ge=1, le=600)
    """A turn whose process has died is retried after this long."""
    turn_timeout_seconds: int = Field(default=86_400, ge=1)
    max_attempts: int = Field(default=3, ge=1, le=20)
    stop_grace_seconds: int = Field(default=2, ge=1, le=60)
    """How long a stopped agent may take to wind down before the turn ends without it."""
    max_log_bytes: int = Field(default=32_000_000, ge=10_000, le=256_000_000)
    """A session that holds more takes no further messages; what runs in it is stopped."""
    park_after_seconds: int = Field(
        default=PARK_AFTER_SECONDS, ge=1, le=86_400, exclude_if=PARK_AFTER_SECONDS.__eq__
    )
    """A turn that does nothing but wait for people holds no process for longer than this."""
    events_per_run: int = Field(default=0, ge=0)
    """Continue-as-new after this many history events; 0 leaves it to the Temporal server."""


class StartSession(Frozen):
    """The input of ``AgentSession`` and the body of ``POST /sessions``."""

    agent: Identifier
    """The agent that answers, by the name it was registered under."""
    title: str | None = Field(default=None, max_length=MAX_NAME_CHARACTERS)
    metadata: Metadata = Field(default_factory=dict)
    started_by: Actor | None = None
    limits: SessionLimits = SessionLimits()
    approval_rules: ApprovalRules = Field(default=(), exclude_if=operator.not_)
    """What happens when the agent wants a tool approved; where none fits, a person is asked."""


SearchKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""As ``waystation.temporal.terms`` derives it from the first encryption key."""


class SessionOwner(Frozen):
    """The workflow that a session belongs to: it is told what its session's people want."""

    workflow_id: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
    takes_turns: bool = False
    """Whether the turns of the session's agent are given to it, and not to an agent's process."""


class SessionOpening(StartSession, WorkflowStart):
    """What starts ``AgentSession``. Only who reaches Temporal can name an owner."""

    owner: SessionOwner | None = Field(default=None, exclude_if=operator.not_)
    search_key: SearchKey | None = Field(default=None, exclude_if=operator.not_, repr=False)
    """The key of its digests in Temporal's search attributes. Only where the namespace has these may it be
    set: a session that sets one that isn't there is stuck."""


class SendMessage(Digested):
    """The argument of the ``send`` update."""

    NOT_DIGESTED = MappingProxyType(
        {
            "message_id": "it is what stands for the rest",
            "on_busy": "how the message is taken; what was taken once isn't taken again, another way either",
        }
    )

    text: str = Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)
    actor: Actor
    on_busy: OnBusy = OnBusy.QUEUE
    message_id: Identifier | None = None
    """Chosen by the client to make sending idempotent."""
    data: MessageData = Field(default_factory=dict)
    """Anything else the agent should get with the message, kept with it."""

    def covered(self) -> JsonValue:
        """Returns what was said, and by whom: how a person is shown may change between two tries."""
        return [self.actor.id, self.text, self.data]


class Sent(FrozenOpen):
    """The answer to a message.

    ``seq`` is the number under which it is recorded. ``turn_id`` is missing when no turn
    answers it: it steers the running one, or a person speaks in the agent's place.
    """

    status: Literal["started", "queued", "steered", "recorded"]
    message_id: str
    seq: int
    turn_id: str | None = None
    digest: str | None = None
    """Of the ``SendMessage`` that was sent under this id first."""


class Withdraw(Frozen):
    """The argument of the ``withdraw`` update: a message that waits for a turn of its own shall have none."""

    message_id: Identifier
    actor: Actor


class Withdrawn(FrozenOpen):
    """The answer to ``withdraw``; the same if it is asked again."""

    message_id: str
    turn_id: str
    seq: int
    """Where it is recorded in the log."""


class Stop(Frozen):
    """The argument of the ``stop`` signal; everything may be left out."""

    turn_id: Identifier | None = None
    """Only this turn (running or queued); by default whatever runs."""
    request_id: Identifier | None = None
    actor: Actor | None = None
    reason: str | None = Field(default=None, max_length=MAX_REASON_CHARACTERS)


class Steer(Frozen):
    """The argument of the ``steer`` signal."""

    text: str = Field(min_length=1, max_length=MAX_MESSAGE_CHARACTERS)
    actor: Actor | None = None
    request_id: Identifier | None = None


class Close(Frozen):
    """The argument of the ``close`` signal."""

    actor: Actor | None = None
    reason: str | None = Field(default=None, max_length=MAX_REASON_CHARACTERS)


class Note(Frozen):
    """The argument of the ``note`` signal: another workflow (a purchase, say) reports to the session.

    ``key`` makes it idempotent.
    """

    key: Identifier
    events: tuple["NoteEvent", ...] = Field(max_length=100)


class NoteEvent(Frozen):
    """One event of a ``note``: its type is one of the money family."""

    type: str
    data: BoundedObject = Field(default_factory=dict)


class Outcome(FrozenOpen):
    """What became of a stop or a steer, found by its ``request_id``."""

    outcome: Literal["pending", "stopped", "already_finished", "consumed", "queued", "refused"]
    seq: int | None = None
    """Where it is recorded in the log; null while pending."""
    turn_id: str | None = None
    detail: str | None = None


class TakeOver(Frozen):
    """The argument of the ``take_over`` update."""

    operator: Actor
    reason: str | None = Field(default=None, max_length=MAX_REASON_CHARACTERS)
    """For staff."""
    instead_of: Identifier | None = None
    """The operator who has taken over, and whose place this one takes; another's than theirs it doesn't."""


class Handover(Frozen):
    """What an operator leaves behind who releases a session."""

    note: NoteText | None = Field(default=None, exclude_if=operator.not_)
    """For staff and the agent, not for people."""
    answer: StrictBool = Field(default=False, exclude_if=operator.not_)
    """Whether the agent begins a turn at once, of which the note is the text."""

    @model_validator(mode="after")
    def _answers_to_something(self) -> Self:
        if self.answer and self.note is None:
            raise ValueError("with 'answer' there must be a 'note' that tells the agent what to do")
        return self


class Release(Handover):
    """The argument of the ``release`` update."""

    operator: Actor
    reason: str | None = Field(default=None, max_length=MAX_REASON_CHARACTERS)


class AddNote(Frozen):
    """The argument of the ``add_note`` update: a note among staff."""

    author: Actor
    text: NoteText
    note_id: Identifier | None = None
    """Makes it idempotent."""


class Assign(Frozen):
    """The argument of the ``assign`` update; without ``operator`` nobody looks after the session any more."""

    by: Actor
    operator: Actor | None = None


class SuggestReply(Frozen):
    """The argument of the ``suggest_reply`` update: the operator who speaks wants a draft by the agent."""

    operator: Actor
    text: NoteText | None = None
    """What the reply should say."""


class SuggestionInput(Frozen):
    """What an agent's process is given to suggest a reply (the ``suggest_reply`` activity's argument)."""

    session_id: SessionId
    agent: Identifier
    operator: Actor
    text: NoteText | None = None


class Suggestion(FrozenOpen):
    """What an agent's process returns: a reply that an operator may send, or not."""

    text: NoteText


class Membership(Frozen):
    """The argument of the ``join`` and ``leave`` updates."""

    participant: Actor


class Spawn(Frozen):
    """The argument of the ``spawn`` update: a running turn asks for a sub-agent.

    ``key`` makes it idempotent within the parent turn: a retried parent that spawns the same
    key gets the same sub-agent, not a second one.
    """

    parent_turn_id: Identifier
    attempt: int = Field(ge=1, strict=True)
    key: Identifier
    agent: Identifier
    text: str = Field(max_length=MAX_MESSAGE_CHARACTERS)


class Spawned(FrozenOpen):
    """The answer to ``spawn``."""

    turn_id: str
    seq: int


class Recorded(FrozenOpen):
    """The answer to an update that records one event."""

    seq: int


class TurnView(FrozenOpen):
    """A turn as the snapshot shows it."""

    turn_id: str
    agent: str
    status: Literal["queued", "running", "waiting", "stopping"]
    attempt: int = 0
    message_id: str | None = None
    parent_turn_id: str | None = None


class OpenMessage(FrozenOpen):
    """A message that is still being written: its text so far, as far as it is durable."""

    message_id: str
    actor: Actor
    turn_id: str | None = None
    characters: int


class Snapshot(FrozenOpen):
    """The answer of the ``snapshot`` query."""

    session_id: str
    agent: str
    status: SessionStatus
    tip: int
    """The newest event's seq."""
    title: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    created: datetime
    running: tuple[TurnView, ...] = ()
    queued: tuple[TurnView, ...] = ()
    participants: tuple[Actor, ...] = ()
    taken_over_by: Actor | None = None
    open_messages: tuple[OpenMessage, ...] = ()
    questions: tuple[OpenQuestion, ...] = ()
    """What waits for an answer."""
    assigned_to: Actor | None = Field(default=None, exclude_if=operator.not_)
    """The operator who looks after the session; for staff."""
    usage: Usage | None = Field(default=None, exclude_if=operator.not_)
    """What its agents have reported, all in all; for staff."""
    runs: int = 1
    """How many times the workflow has continued as new, plus one."""
    refused: int = 0
    """How many written items the workflow has refused (fenced, malformed) in this session."""


class ReplayPage(FrozenOpen):
    """The answer of the ``replay`` query: events after a cursor, oldest first.

    ``next_after`` is the cursor for the next page; ``more`` says whether there is one now.
    """

    events: tuple[Event, ...]
    next_after: int
    tip: int
    more: bool
    closed: bool


class LogPosition(Frozen):
    """The argument of the ``read`` query: where an API process reads on, and whose receipts it wants."""

    after: int = Field(ge=0)
    limit: int = Field(default=MAX_REPLAY_EVENTS, ge=1, le=MAX_REPLAY_EVENTS)
    writers: tuple[str, ...] = ()


class LogReading(FrozenOpen):
    """The answer of the ``read`` query. ``receipts`` are of the writers that were asked about."""

    page: ReplayPage
    receipts: dict[str, Receipt] = Field(default_factory=dict)
    forgotten: int = 0
    """How many writers the session has forgotten so far: of those it can give no receipt."""


class TurnInput(Frozen):
    """What an agent's process is given to run a turn (the ``run_turn`` activity's argument)."""

    session_id: SessionId
    turn_id: Identifier
    attempt: int = Field(ge=1)
    agent: Identifier
    text: str
    message_id: Identifier | None = None
    """The message that this turn answers; null for a sub-agent."""
    actor: Actor | None = None
    """Who sent that message."""
    parent_turn_id: Identifier | None = None
    depth: int = 0
    after: int = 0
    """The session's tip when the turn began."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    waited_for: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """What the turn waited for when it was last parked: ids of questions, and of sub-agents' turns."""
    park_after_seconds: int | None = Field(default=None, exclude_if=operator.not_)
    """A turn may end as ``waiting`` once it has done nothing but wait for so long; ``None``: it may not."""


def _as_recorded(result: JsonValue) -> JsonValue:
    """Returns a result as a log can hold it: halves of surrogate pairs are mended, NaN counts as null."""
    mended = mend_json(result)
    size_bytes = len(to_json(mended, inf_nan_mode="null"))
    if size_bytes > MAX_RESULT_BYTES:
        raise ValueError(
            f"a turn's result has at most {MAX_RESULT_BYTES:,} bytes of JSON, not {size_bytes:,}; "
            "store it and return a link"
        )
    return mended


class TurnResult(FrozenOpen):
    """What an agent's process says of a turn that it has run."""

    outcome: Literal["completed", "stopped", "waiting"]
    """``waiting``: the turn is parked, and tried again once any of ``waiting_for`` is settled."""
    result: Annotated[BoundedJson, AfterValidator(_as_recorded)] = None
    waiting_for: tuple[Identifier, ...] = Field(default=(), max_length=1_000, exclude_if=operator.not_)
    """Ids of questions, and of sub-agents' turns."""


class TurnEnded(Frozen):
    """The ``turn_ended`` signal, from the turn's workflow to the session's."""

    turn_id: Identifier
    outcome: Literal["completed", "stopped", "failed"]
    result: BoundedJson = None
    code: str | None = None
    detail: str | None = None


class TurnWaiting(Frozen):
    """The ``turn_waiting`` signal: an attempt has ended to wait for people."""

    turn_id: Identifier
    attempt: int = Field(ge=1)
    waiting_for: tuple[Identifier, ...]


class TurnResume(Frozen):
    """The ``resume`` signal to a turn's workflow: what it waited for is settled, and this attempt begins."""

    attempt: int = Field(ge=2)


class TurnAttempt(Frozen):
    """The ``turn_attempt`` signal: the turn is about to be tried again."""

    turn_id: Identifier
    attempt: int = Field(ge=2)
    code: str
    detail: str | None = None
