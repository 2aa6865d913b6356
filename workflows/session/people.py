"""Who takes part in a session, and who has taken it over from the agent.

Pure, like the log: no Temporal, no clock of its own, no I/O. While an operator has taken over, the session is
paused: no turn starts until the operator releases it or leaves.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, Field, JsonValue

from waystation.models.events import Actor, Event, EventType, Role
from waystation.models.sessions import MAX_PARTICIPANTS, AddNote, Assign, TakeOver
from waystation.temporal import names
from workflows.session.log import SessionLog
from workflows.session.refused import Refused
from workflows.session.turn_state import remember


class PeopleState(BaseModel):
    """What a session carries of its people across continue-as-new."""

    participants: dict[str, Actor] = Field(default_factory=dict)
    taken_over_by: Actor | None = None
    assigned_to: Actor | None = None
    notes: dict[str, int] = Field(default_factory=dict)
    """Where the notes are recorded to which their authors gave ids."""


class Left(NamedTuple):
    """Where a departure is recorded, and whether it released the session."""

    seq: int
    released: bool


class People:
    """The participants of a session and the operator who speaks in the agent's place, if any."""

    def __init__(self, state: PeopleState, log: SessionLog, now: Callable[[], datetime]) -> None:
        self.state = state
        self._log = log
        self._now = now

    @property
    def paused(self) -> bool:
        """Whether an operator has taken over; no turn starts meanwhile."""
        return self.state.taken_over_by is not None

    def join(self, participant: Actor) -> int:
        """Adds a participant and returns the seq; joining twice is harmless."""
        if self.state.participants.get(participant.id) == participant:
            return self._log.tip
        self.state.participants[participant.id] = participant
        return self._append(EventType.PARTICIPANT_JOINED, participant).seq

    def why_not_join(self, participant: Actor, *, full: Refused | None) -> Refused | None:
        """Returns why this participant can't join, or ``None``; ``full`` is the log's own reason."""
        known = self.state.participants.get(participant.id)
        if known == participant:
            return None
        if known is not None and known.role != participant.role:
            return Refused(
                names.INVALID_ROLE, f"'{known.id}' takes part as {known.role} already; join under another id."
            )
        if full:
            return full
        if known is None and len(self.state.participants) >= MAX_PARTICIPANTS:
            return Refused(
                names.TOO_MANY_PARTICIPANTS, f"A session has at most {MAX_PARTICIPANTS} participants."
            )
        return None

    def leave(self, who: Actor, *, closed: bool) -> Left:
        """Removes a participant; an operator who leaves releases the session."""
        participant = self.state.participants.get(who.id)
        if participant is None or participant.role != who.role or closed:
            return Left(self._log.tip, released=False)
        del self.state.participants[who.id]
        left = self._append(EventType.PARTICIPANT_LEFT, participant)
        if self.holds(participant):
            return Left(self.release(participant), released=True)
        return Left(left.seq, released=False)

    def holds(self, operator: Actor) -> bool:
        """Whether this operator has taken over already. A user who has the same id is somebody else."""
        holder = self.state.taken_over_by
        return holder is not None and (holder.id, holder.role) == (operator.id, operator.role)

    def why_not_take_over(self, take_over: TakeOver) -> Refused | None:
        """Returns why this actor can't take over, or ``None``."""
        if take_over.operator.role != Role.OPERATOR:
            return Refused(names.INVALID_ROLE, "Only an actor with the role 'operator' can take over.")
        holder = self.state.taken_over_by
        if holder is not None and take_over.instead_of == holder.id:
            return None
        return self._why_not_instead_of(take_over.operator)

    def why_not_speak(self, operator: Actor) -> Refused | None:
        """Returns why this operator can neither speak nor release the session, or ``None``."""
        if not self.paused:
            return Refused(
                names.NOT_TAKEN_OVER, "Nobody has taken over; an operator speaks after taking over."
            )
        return self._why_not_instead_of(operator)

    def _why_not_instead_of(self, operator: Actor) -> Refused | None:
        holder = self.state.taken_over_by
        if holder is None or self.holds(operator):
            return None
        return Refused(names.TAKEN_OVER, f"{holder.name or holder.id} has taken over already.")

    def take_over(self, take_over: TakeOver) -> int:
        """Lets the operator speak in the agent's place and returns the seq."""
        operator, holder = take_over.operator, self.state.taken_over_by
        known = self.state.participants.get(operator.id)
        if known is None or known.role != operator.role:
            self.state.participants[operator.id] = operator
            self._append(EventType.PARTICIPANT_JOINED, operator)
        self.state.taken_over_by = operator
        data: dict[str, JsonValue] = {"reason": take_over.reason} if take_over.reason else {}
        if holder is not None:
            data["instead_of"] = holder.id
        return self._append(EventType.TAKEOVER_STARTED, operator, data).seq

    def release(self, operator: Actor) -> int:
        """Hands the session back to the agent and returns the seq."""
        self.state.taken_over_by = None
        return self._append(EventType.TAKEOVER_RELEASED, operator).seq

    # Among staff

    def why_not_staff(self, actor: Actor) -> Refused | None:
        """Returns why this actor can't speak to staff or be one of them, or ``None``."""
        if actor.role == Role.OPERATOR:
            return None
        return Refused(names.INVALID_ROLE, "Only an actor with the role 'operator' is staff.")

    def add_note(self, note: AddNote) -> int:
        """Records a note among staff and returns the seq; the same ``note_id`` again is the same note."""
        if note.note_id and (known := self.state.notes.get(note.note_id)):
            return known
        data: dict[str, JsonValue] = {
            "text": note.text,
            **({"note_id": note.note_id} if note.note_id else {}),
        }
        event = self._log.append(
            EventType.NOTE_ADDED, note.author, self._now(), data=data, visibility="staff"
        )
        if note.note_id:
            remember(self.state.notes, note.note_id, event.seq)
        return event.seq

    def assign(self, assign: Assign) -> int:
        """Records who looks after the session and returns the seq; the same again records nothing."""
        if self.state.assigned_to == assign.operator:
            return self._log.tip
        self.state.assigned_to = assign.operator
        data: dict[str, JsonValue] = {}
        if assign.operator:
            data["operator"] = assign.operator.model_dump(mode="json", exclude_none=True)
        return self._log.append(
            EventType.SESSION_ASSIGNED, assign.by, self._now(), data=data, visibility="staff"
        ).seq

    def _append(self, event_type: EventType, actor: Actor, data: dict[str, JsonValue] | None = None) -> Event:
        return self._log.append(event_type, actor, self._now(), data=data)
