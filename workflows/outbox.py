"""Notes from a workflow that moves money to the session that watches it.

Best effort: the workflow itself keeps the truth. Delivery is in order, several notes to a signal, bounded,
and ends once the session is closed. A run ends or continues as new only when the outbox is empty, so that
what waits is never sent again under the key of something else.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from pydantic import JsonValue
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from activities.contract import HOUSE_UNAVAILABLE, AnnouncementCalls, PurchaseNote, Told
    from waystation.models.trail import NoteEvents
    from workflows.calls import CallFailure, call_options, once_local
    from workflows.keys import note_key

MAX_EVENTS_IN_NOTE: Final = 100
"""The most events that a session takes in one note."""
MAX_EVENTS_WAITING: Final = 1_000
"""The most events kept while the session takes nothing; the oldest are dropped first."""

_ANNOUNCE: Final = call_options(
    policies.PURCHASE_NOTE_TIMEOUT, policies.PURCHASE_NOTE_RETRY, silence=HOUSE_UNAVAILABLE
)

Event = dict[str, JsonValue]


class Outbox:
    """What a session is still to be told.

    Args:
        session_id: who is told; with ``None`` nobody is, and nothing is kept.
        numbered: how many notes earlier runs have sent.
        on_closed: called when the session turns out to be closed.
    """

    def __init__(
        self, session_id: str | None, *, numbered: int = 0, on_closed: Callable[[], None] | None = None
    ) -> None:
        self.numbered = numbered
        self._session_id = session_id
        self._on_closed = on_closed
        self._waiting: list[Event] = []
        self._sending = False
        self._closed = session_id is None

    @property
    def empty(self) -> bool:
        """Whether everything was told, or never will be."""
        return not self._waiting and not self._sending

    def put(self, events: Sequence[Event]) -> None:
        """Adds events; the oldest are dropped where too many wait."""
        if self._closed:
            return
        self._waiting.extend(events)
        if (surplus := len(self._waiting) - MAX_EVENTS_WAITING) > 0:
            workflow.logger.warning("a session that takes nothing is not told of %d events", surplus)
            del self._waiting[:surplus]

    def start(self) -> "asyncio.Task[None]":
        """Starts sending alongside the workflow's own work; the caller cancels the task in the end."""
        return asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        while self._session_id is not None and not self._closed:
            await workflow.wait_condition(lambda: bool(self._waiting))
            await self._send(self._session_id)

    async def _send(self, session_id: str) -> None:
        events, self._waiting = (
            tuple(self._waiting[:MAX_EVENTS_IN_NOTE]),
            self._waiting[MAX_EVENTS_IN_NOTE:],
        )
        self.numbered += 1
        note = NoteEvents(key=note_key(workflow.info().workflow_id, self.numbered), events=events)
        call = PurchaseNote(session_id=session_id, note=note)
        self._sending = True
        try:
            told: Told = await once_local(AnnouncementCalls.announce_purchase, call, _ANNOUNCE)
        except CallFailure:
            workflow.logger.warning("a session was not told of %d events", len(events))
            return
        finally:
            self._sending = False
        if told == "closed":
            self._closed = True
            self._waiting.clear()
            if self._on_closed:
                self._on_closed()
