"""What a session remembers of the purchases made for it. Pure: no Temporal, no clock, no I/O."""

from typing import NamedTuple

from pydantic import BaseModel, Field, JsonValue

from waystation.models.events import EventType
from waystation.models.sessions import Note
from workflows.purchase.rules import FINAL_STATUSES

MAX_REMEMBERED = 1_000
"""Purchases, stopped turns and notes' keys that are kept; the oldest is forgotten first."""


class PurchasesState(BaseModel):
    """What a session carries of its purchases across continue-as-new."""

    under_way: dict[str, str | None] = Field(default_factory=dict)
    """Purchases under way for this session, with the turns that want them."""
    stopped_turns: list[str] = Field(default_factory=list)
    orphans: list[str] = Field(default_factory=list)
    """Purchases to be told that their turn is over."""
    notes: list[str] = Field(default_factory=list)
    awaiting: list[str] = Field(default_factory=list)
    """Purchases and paid requests that wait for an approver."""


class Awaited(NamedTuple):
    """What waits for an approver, the newest last."""

    purchases: list[str]
    payments: list[str]


class Purchases:
    """Follows purchases, and finds those whose turn was stopped."""

    def __init__(self, state: PurchasesState) -> None:
        self.state = state

    def follow(self, note: Note, *, closing: bool) -> None:
        """Learns from a note which purchases are under way."""
        for event in note.events:
            if event.type == EventType.PURCHASE_UPDATED:
                self._follow_one(event.data, closing=closing)
            if event.type in (EventType.PURCHASE_UPDATED, EventType.PAYMENT_UPDATED):
                self._follow_approval(event.data)

    @property
    def awaiting(self) -> bool:
        """Whether any of them waits for an approver."""
        return bool(self.state.awaiting)

    def awaited(self) -> Awaited:
        """Returns which of them wait for an approver."""
        known = self.state.under_way
        waiting = self.state.awaiting
        return Awaited([one for one in waiting if one in known], [one for one in waiting if one not in known])

    def _follow_approval(self, data: dict[str, JsonValue]) -> None:
        which = data.get("purchase_id", data.get("payment_id"))
        if not isinstance(which, str):
            return
        others = [one for one in self.state.awaiting if one != which]
        waits = data.get("status") == "awaiting_approval"
        self.state.awaiting = [*others[-MAX_REMEMBERED:], which] if waits else others

    def knows(self, note: Note) -> bool:
        """Whether this note was recorded already."""
        return note.key in self.state.notes

    def remember(self, note: Note) -> None:
        """Keeps the note's key, so that a repeat is dropped."""
        self.state.notes = [*self.state.notes[-MAX_REMEMBERED:], note.key]

    def turn_stopped(self, turn_id: str) -> None:
        """Tells what a stopped turn has begun to buy, even if the session hears of it only later."""
        self.state.stopped_turns = [*self.state.stopped_turns[-MAX_REMEMBERED:], turn_id]
        self.state.orphans += [one for one, turn in self.state.under_way.items() if turn == turn_id]

    def session_closed(self) -> None:
        """Tells every purchase that is under way."""
        self.state.orphans += self.state.under_way

    def _follow_one(self, data: dict[str, JsonValue], *, closing: bool) -> None:
        purchase_id, turn_id = data.get("purchase_id"), data.get("turn_id")
        if not isinstance(purchase_id, str):
            return
        status = data.get("status")
        if isinstance(status, str) and status in FINAL_STATUSES:
            self.state.under_way.pop(purchase_id, None)
        elif purchase_id not in self.state.under_way:
            self.state.under_way[purchase_id] = turn_id if isinstance(turn_id, str) else None
            while len(self.state.under_way) > MAX_REMEMBERED:
                del self.state.under_way[next(iter(self.state.under_way))]
            if closing or turn_id in self.state.stopped_turns:
                self.state.orphans.append(purchase_id)
