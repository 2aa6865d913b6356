"""What has happened in a session, in order: append, fold, replay.

Pure: no Temporal, no clock, no I/O, so that properties can be tested on it directly.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from pydantic import BaseModel, Field, JsonValue

from waystation.models.events import FOLDED_TYPES, Actor, Event, EventType, Visibility
from waystation.models.refusals import Refusal
from waystation.models.sessions import OpenMessage, ReplayPage
from workflows.session.usage import UsageState

MAX_REPLAY_PAGE_BYTES = 192 * 1024
"""Below the size at which a query's answer would be moved to external storage."""
_EVENT_BYTES = 200
"""About what an event takes besides its data."""

_TOOL_CUT_OFF = {
    "completed": "no result was reported",
    "failed": "the turn failed",
    "stopped": "the turn was stopped",
}


class Fence(BaseModel):
    """Which attempt of a running turn may write.

    ``muted``: the turn is being stopped. What it had already shown still counts as text of its
    message, but no further event of it is recorded.
    """

    attempt: int
    muted: bool = False


class OpenText(BaseModel):
    """A message that is being written."""

    actor: Actor
    turn_id: str | None
    started_seq: int
    data: dict[str, JsonValue]
    text: str = ""


class OpenTool(BaseModel):
    """A tool call of a turn whose end has not been reported."""

    actor: Actor
    turn_id: str
    call_id: str
    name: JsonValue = None
    seq: int = 0
    """Where the call is recorded; 0 for one that an earlier version has recorded."""
    visibility: Visibility | None = None
    """Of the call, and so of what comes of it."""


class LogState(BaseModel):
    """Everything the log must carry across continue-as-new."""

    tip: int = 0
    events: list[Event] = Field(default_factory=list)
    writers: dict[str, int] = Field(default_factory=dict)
    """How far each writer's items have been decided."""
    refusals: dict[str, list[Refusal]] = Field(default_factory=dict)
    """What was refused of the writers in ``writers``, in order."""
    forgotten: int = 0
    """How many writers were forgotten, each time one was."""
    fences: dict[str, Fence] = Field(default_factory=dict)
    open: dict[str, OpenText] = Field(default_factory=dict)
    tools: list[OpenTool] = Field(default_factory=list)
    usage: UsageState = Field(default_factory=UsageState)
    refused: int = 0


class EventLog:
    """The ordered log itself. Nothing else assigns sequence numbers."""

    def __init__(self, state: LogState | None = None) -> None:
        self.state = state or LogState()
        self._finished = {
            event.message_id
            for event in self.state.events
            if event.type in (EventType.MESSAGE_COMPLETED, EventType.MESSAGE_SUPERSEDED) and event.message_id
        }
        self._size_bytes = sum(map(_size_bytes, self.state.events))
        self.observers: list[Callable[[Event], None]] = []
        """Each is told of each event."""

    @property
    def tip(self) -> int:
        """The newest event's seq; 0 while empty."""
        return self.state.tip

    @property
    def size_bytes(self) -> int:
        """The approximate size of the log as JSON."""
        return self._size_bytes

    def append(
        self,
        event_type: str,
        actor: Actor,
        now: datetime,
        *,
        turn_id: str | None = None,
        message_id: str | None = None,
        data: dict[str, JsonValue] | None = None,
        visibility: Visibility | None = None,
    ) -> Event:
        """Records one event under the next sequence number and returns it."""
        events = self.state.events
        assert not events or events[-1].seq <= self.state.tip, "sequence numbers grow"
        self.state.tip += 1
        event = Event(
            seq=self.state.tip,
            time=now,
            type=event_type,
            actor=actor,
            turn_id=turn_id,
            message_id=message_id,
            data=data or {},
            visibility=visibility,
        )
        events.append(event)
        self._size_bytes += _size_bytes(event)
        for observe in self.observers:
            observe(event)
        return event

    # Messages

    def add_message(
        self,
        message_id: str,
        actor: Actor,
        text: str,
        now: datetime,
        *,
        turn_id: str | None = None,
        extra: dict[str, JsonValue] | None = None,
    ) -> Event:
        """Records a message that arrives whole."""
        self._finished.add(message_id)
        return self.append(
            EventType.MESSAGE_COMPLETED,
            actor,
            now,
            turn_id=turn_id,
            message_id=message_id,
            data={**(extra or {}), "text": text},
        )

    def has_message(self, message_id: str) -> bool:
        """Whether this id is taken."""
        return message_id in self._finished or message_id in self.state.open

    def complete(
        self,
        message_id: str,
        now: datetime,
        *,
        text: str | None = None,
        extra: dict[str, JsonValue] | None = None,
    ) -> Event:
        """Ends an open message: its deltas fold into one event that holds the whole text."""
        message = self.state.open.pop(message_id)
        self._fold(message_id, message.started_seq)
        self._finished.add(message_id)
        whole = message.text if text is None else text
        return self.append(
            EventType.MESSAGE_COMPLETED,
            message.actor,
            now,
            turn_id=message.turn_id,
            message_id=message_id,
            data={**message.data, **(extra or {}), "text": whole, "started": message.started_seq},
        )

    def finish_turn(self, turn_id: str, now: datetime, finish: str) -> list[Event]:
        """Closes what a turn has left open, keeping the text; ``finish`` says how the turn ended."""
        return [
            *(
                self.complete(message_id, now, extra={"finish": finish})
                for message_id in self._open_of(turn_id)
            ),
            *self._close_tools(turn_id, now, _TOOL_CUT_OFF.get(finish, "canceled")),
        ]

    def supersede_attempt(self, turn_id: str, now: datetime) -> list[Event]:
        """Withdraws what a failed attempt has left open; the next attempt writes anew."""
        events = []
        for message_id in self._open_of(turn_id):
            message = self.state.open.pop(message_id)
            self._fold(message_id, message.started_seq)
            self._finished.add(message_id)
            events.append(
                self.append(
                    EventType.MESSAGE_SUPERSEDED,
                    message.actor,
                    now,
                    turn_id=turn_id,
                    message_id=message_id,
                    data={"started": message.started_seq},
                )
            )
        return [*events, *self._close_tools(turn_id, now, "the attempt was given up")]

    def _close_tools(self, turn_id: str, now: datetime, error: str) -> list[Event]:
        """Reports the end of tool calls whose own report was cut off: none stays "running"."""
        ended = [tool for tool in self.state.tools if tool.turn_id == turn_id]
        self.state.tools = [tool for tool in self.state.tools if tool.turn_id != turn_id]
        return [
            self.append(
                EventType.TOOL_RETURNED,
                tool.actor,
                now,
                turn_id=turn_id,
                data={"call_id": tool.call_id, "name": tool.name, "error": error},
                visibility=tool.visibility,
            )
            for tool in ended
        ]

    def _open_of(self, turn_id: str) -> list[str]:
        return [message_id for message_id, message in self.state.open.items() if message.turn_id == turn_id]

    def _fold(self, message_id: str, started_seq: int) -> None:
        events = self.state.events
        start = bisect_right(events, started_seq - 1, key=lambda event: event.seq)
        kept = []
        for event in events[start:]:
            if event.message_id == message_id and event.type in FOLDED_TYPES:
                self._size_bytes -= _size_bytes(event)
            else:
                kept.append(event)
        events[start:] = kept

    def open_messages(self) -> tuple[OpenMessage, ...]:
        """What is being written now."""
        return tuple(
            OpenMessage(
                message_id=message_id,
                actor=message.actor,
                turn_id=message.turn_id,
                characters=len(message.text),
            )
            for message_id, message in self.state.open.items()
        )

    # Reading

    def after(self, seq: int) -> Iterator[Event]:
        """Yields events after a cursor, oldest first."""
        events = self.state.events
        for index in range(bisect_right(events, seq, key=lambda event: event.seq), len(events)):
            yield events[index]

    def replay(self, after: int, limit: int, *, closed: bool = False) -> ReplayPage:
        """Returns one page after a cursor.

        It holds at most ``limit`` events and about MAX_REPLAY_PAGE_BYTES, but at least one event.
        """
        page = list(_bounded(self.after(max(after, 0)), limit))
        reached = page[-1].seq if page else max(after, 0)
        newest = self.state.events[-1].seq if self.state.events else 0
        return ReplayPage(
            events=tuple(page), next_after=reached, tip=self.tip, more=reached < newest, closed=closed
        )


def _bounded(events: Iterable[Event], limit: int) -> Iterator[Event]:
    size = 0
    for count, event in enumerate(events):
        size += len(event.to_wire().encode())
        if count >= limit or (count and size > MAX_REPLAY_PAGE_BYTES):
            return
        yield event


def _size_bytes(event: Event) -> int:
    return _EVENT_BYTES + len(json.dumps(event.data, ensure_ascii=False).encode())
