"""How a session's workflow begins: with what starts it, and with what its earlier runs carry over."""

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, Field

from waystation.models.sessions import SessionOpening
from workflows.session.event_log import LogState
from workflows.session.listing import ListingState
from workflows.session.people import PeopleState
from workflows.session.purchases import PurchasesState
from workflows.session.questions import QuestionsState
from workflows.session.turn_state import TurnsState


class SessionState(BaseModel):
    """Everything a session carries across continue-as-new: one record for each machine."""

    created: datetime
    log: LogState = Field(default_factory=LogState)
    turns: TurnsState = Field(default_factory=TurnsState)
    people: PeopleState = Field(default_factory=PeopleState)
    purchases: PurchasesState = Field(default_factory=PurchasesState)
    questions: QuestionsState = Field(default_factory=QuestionsState)
    listing: ListingState = Field(default_factory=ListingState)
    runs: int = 1
    next_check: datetime | None = None
    """When to look whether turns that earlier runs have started are still there."""


class SessionInput(SessionOpening):
    """The workflow's input: what starts a session, and what it carries across continue-as-new."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"state"})

    state: SessionState | None = None
