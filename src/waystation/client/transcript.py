"""A client's view of a session, correct after any interleaving of drops, repeats and reorderings.

Durable events arrive numbered and in order; live deltas arrive early and may be lost, doubled or late. Text
is *placed* at its offset, never appended, so both can be fed in as they arrive.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from waystation.models.events import TERMINAL_TURN_TYPES, Actor, Event, EventType, LiveDelta
from waystation.models.requests import MessageView, TranscriptView

MessageStatus = Literal["streaming", "completed", "superseded", "withdrawn"]
_ENDS_ATTEMPT = TERMINAL_TURN_TYPES | {EventType.AGENT_FINISHED, EventType.TURN_RETRIED}
MAX_HELD_PIECES = 1_000
"""Live pieces kept per message while the text before them is missing."""


@dataclass
class Message:
    """One message of the transcript.

    ``finish`` says why it ended early (``stopped``, ``failed``); ``kind`` says what it is if it isn't an
    ordinary answer (``reasoning``, for example).
    """

    id: str
    actor: Actor
    turn_id: str | None = None
    text: str = ""
    status: MessageStatus = "streaming"
    data: dict[str, JsonValue] = field(default_factory=dict)
    order: int | None = None
    _held: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """``message`` unless the agent said otherwise."""
        return str(self.data.get("kind", "message"))

    def place(self, offset: int, text: str) -> None:
        """Puts text where it belongs; text that would leave a gap waits for what is missing."""
        if offset > len(self.text):
            if len(self._held) < MAX_HELD_PIECES and len(text) > len(self._held.get(offset, "")):
                self._held[offset] = text
            return
        self.text += text[len(self.text) - offset :]
        while ready := next((at for at in self._held if at <= len(self.text)), None):
            held = self._held.pop(ready)
            self.text += held[len(self.text) - ready :]


@dataclass
class ToolUse:
    """A tool call; ``returned`` once it has a ``result`` or an ``error``."""

    id: str
    name: str
    actor: Actor
    order: int
    turn_id: str | None = None
    arguments: JsonValue = None
    result: JsonValue = None
    error: str | None = None
    returned: bool = False
    kind: str | None = None
    """``native`` for a tool that the model's provider runs itself."""


class Transcript:
    """Messages in order, every other event, and the cursor to resume from.

    >>> from datetime import datetime
    >>> from waystation.models.events import Actor, Event, LiveDelta
    >>> bot = Actor(id="bot", role="agent")
    >>> transcript = Transcript()
    >>> transcript.place(LiveDelta(actor=bot, message_id="m", data={"offset": 3, "text": "lo"}))
    False
    >>> transcript.apply(Event(seq=7, time=datetime(2026, 1, 1), type="message.delta", actor=bot,
    ...     message_id="m", data={"offset": 0, "text": "hel"}))
    True
    >>> transcript["m"].text, transcript.cursor
    ('hello', 7)
    """

    def __init__(self) -> None:
        self.cursor = 0
        self.ended_turns: dict[str, str] = {}
        self.events: list[Event] = []
        """Everything but messages, in order: turns, tools, approvals, people, agents' own."""
        self._messages: dict[str, Message] = {}

    def __getitem__(self, message_id: str) -> Message:
        return self._messages[message_id]

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    @property
    def messages(self) -> list[Message]:
        """All messages, in the order in which they began; those known only live come last."""
        return sorted(
            self._messages.values(), key=lambda message: (message.order is None, message.order or 0)
        )

    @property
    def tools(self) -> list[ToolUse]:
        """All tool calls, in the order in which they began, without what given-up attempts left undone."""
        uses: dict[tuple[str | None, str], ToolUse] = {}
        for event in self.events:
            call_id = str(event.data.get("call_id"))
            if event.type == EventType.TOOL_CALLED:
                uses[event.turn_id, call_id] = ToolUse(
                    id=call_id,
                    name=str(event.data.get("name")),
                    actor=event.actor,
                    order=event.seq,
                    turn_id=event.turn_id,
                    arguments=event.data.get("arguments"),
                    kind=_text(event, "kind"),
                )
            elif event.type == EventType.TOOL_RETURNED and (use := uses.get((event.turn_id, call_id))):
                use.returned, use.result, use.error = True, event.data.get("result"), _text(event, "error")
            elif event.type == EventType.TURN_RETRIED:
                uses = {key: use for key, use in uses.items() if use.turn_id != event.turn_id or _stands(use)}
        return list(uses.values())

    @property
    def waiting(self) -> set[str]:
        """The ids of messages that wait for turns of their own."""
        queued: dict[str | None, str] = {}
        for event in self.events:
            if event.type == EventType.TURN_QUEUED:
                queued[event.turn_id] = str(event.data.get("message_id"))
            elif event.type == EventType.TURN_STARTED or event.type in TERMINAL_TURN_TYPES:
                queued.pop(event.turn_id, None)
        return set(queued.values())

    def load(self, view: TranscriptView) -> None:
        """Takes over a whole transcript that was fetched, unless more is already known here."""
        if view.cursor < self.cursor:
            return
        self.cursor = view.cursor
        loaded = {}
        for position, entry in enumerate(view.messages):
            known = self._messages.get(entry.id)
            message = loaded[entry.id] = Message(
                id=entry.id,
                actor=entry.by,
                turn_id=entry.turn,
                text=entry.text,
                status=entry.status or "completed",
                data=entry.data or {},
                # Events yet to come are numbered beyond all of these.
                order=position - len(view.messages) if entry.seq is None else entry.seq,
            )
            if known and known.status == "streaming" and message.status == "streaming":
                message.place(0, known.text)
        self._messages = {
            **{k: m for k, m in self._messages.items() if k not in loaded and m.order is None},
            **loaded,
        }
        self.events = list(view.events)
        for event in self.events:
            self._note_end(event)

    def view(self, session_id: str, *, closed: bool) -> TranscriptView:
        """Returns everything that is durable, as ``load`` takes it."""
        return TranscriptView(
            session_id=session_id,
            cursor=self.cursor,
            closed=closed,
            messages=tuple(
                MessageView(
                    id=message.id,
                    seq=message.order,
                    by=message.actor,
                    text=message.text,
                    turn=message.turn_id,
                    status=None if message.status == "completed" else message.status,
                    data=dict(message.data) or None,
                )
                for message in self.messages
            ),
            events=tuple(self.events),
        )

    def advance(self, seq: int) -> None:
        """Learns that everything in the durable log up to ``seq`` is already here (an ``id``-only block)."""
        self.cursor = max(self.cursor, seq)

    def is_open(self, delta: LiveDelta) -> bool:
        """Returns whether the delta's message is still being written, as far as is known here."""
        message = self._messages.get(delta.message_id)
        return delta.turn_id not in self.ended_turns and message is not None and message.status == "streaming"

    def place(self, delta: LiveDelta) -> bool:
        """Takes in a live delta; returns False if it says nothing new."""
        if delta.turn_id in self.ended_turns:
            return False
        message = self._message(delta.message_id, delta.actor, delta.turn_id)
        if message.status != "streaming":
            return False
        before = len(message.text)
        message.place(int(delta.data["offset"]), str(delta.data["text"]))
        return len(message.text) > before

    def apply(self, event: Event) -> bool:
        """Takes in a durable event; returns False if it was known (a repeat after a reconnect)."""
        if event.seq <= self.cursor:
            return False
        self.cursor = event.seq
        if event.turn_id and event.type in _ENDS_ATTEMPT:
            self._drop_ghosts(event.turn_id)
        self._note_end(event)
        if event.message_id and event.type.startswith("message."):
            self._apply_message(event, event.message_id)
        else:
            self.events.append(event)
        return True

    def _note_end(self, event: Event) -> None:
        if event.turn_id and event.type in _ENDS_ATTEMPT and event.type != EventType.TURN_RETRIED:
            self.ended_turns[event.turn_id] = event.type

    def _drop_ghosts(self, turn_id: str) -> None:
        """Drops what an attempt showed but never made durable (its process died): it was never said."""
        self._messages = {
            key: message
            for key, message in self._messages.items()
            if message.order is not None or message.turn_id != turn_id
        }

    def _message(self, message_id: str, actor: Actor, turn_id: str | None) -> Message:
        if message_id not in self._messages:
            self._messages[message_id] = Message(id=message_id, actor=actor, turn_id=turn_id)
        return self._messages[message_id]

    def _apply_message(self, event: Event, message_id: str) -> None:
        message = self._message(message_id, event.actor, event.turn_id)
        started = event.data.get("started")
        if isinstance(started, int) and (message.order is None or message.order > 0):
            message.order = started
        elif message.order is None:
            message.order = event.seq
        match event.type:
            case EventType.MESSAGE_STARTED:
                message.data = dict(event.data)
            case EventType.MESSAGE_DELTA:
                message.place(int(str(event.data["offset"])), str(event.data["text"]))
            case EventType.MESSAGE_COMPLETED:
                message.text = str(event.data["text"])
                message.data = {k: v for k, v in event.data.items() if k not in ("text", "started")}
                message.status = "completed"
                message._held.clear()
            case EventType.MESSAGE_SUPERSEDED:
                message.text, message.data, message.status = "", {}, "superseded"
                message._held.clear()
            case EventType.MESSAGE_WITHDRAWN:
                message.status = "withdrawn"
            case _:
                pass


def _stands(use: ToolUse) -> bool:
    """Whether a call stays when its attempt is given up: the next one doesn't show again what ended well."""
    return use.returned and use.error is None


def _text(event: Event, key: str) -> str | None:
    value = event.data.get(key)
    return value if isinstance(value, str) else None
