"""What one client receives of a session: pure, so that any interleaving can be tested.

Live deltas go out immediately and without a number. When their text has become durable, a client
that has it already receives only the number; every other client receives the event.
"""

from collections.abc import Mapping, Sequence

from waystation.models.events import TERMINAL_TURN_TYPES, Event, EventType
from waystation.models.visibility import for_people

MAX_REMEMBERED = 1_000


class Frame:
    """One thing to send: an event, live deltas, or a number alone. Encoded once for everybody.

    It is made of JSON without line breaks, as text or already in UTF-8; bytes are passed on as they are.
    """

    __slots__ = ("_data", "_texts", "for_people", "seq", "sse")

    def __init__(self, seq: int | None, text: str | bytes) -> None:
        self.seq = seq
        self.for_people = self
        """What is sent in its place to whoever isn't staff."""
        data = text.encode() if isinstance(text, str) else text
        self._data: tuple[bytes, ...] = (data,) if data else ()
        self._texts: tuple[str, ...] | None = None
        number = b"id: %d\n" % seq if seq is not None else b""
        self.sse = number + (b"data: " + data + b"\n\n" if data else b"\n")

    @property
    def texts(self) -> tuple[str, ...]:
        """The frame's JSON texts, for a WebSocket; decoded once, and only where somebody has one."""
        if self._texts is None:
            self._texts = tuple(data.decode() for data in self._data)
        return self._texts

    @classmethod
    def of(cls, event: Event) -> "Frame":
        """Returns a durable event's frame."""
        frame, seen = cls(event.seq, event.to_wire()), for_people(event)
        if seen is None:
            frame.for_people = cls.number(event.seq)
        elif seen is not event:
            frame.for_people = cls(event.seq, seen.to_wire())
        return frame

    @classmethod
    def number(cls, seq: int) -> "Frame":
        """Moves the client's cursor and says nothing."""
        return cls(seq, b"")

    @classmethod
    def joined(cls, frames: Sequence["Frame"]) -> "Frame":
        """Returns frames without numbers as one."""
        frame = cls(None, b"")
        frame.sse = b"".join([each.sse for each in frames])
        frame._data = tuple(data for each in frames for data in each._data)
        return frame

    @classmethod
    def state(cls, identity: str, text: str) -> "Frame":
        """Returns how something stands now; whoever has it already says so by its id."""
        frame = cls(None, text)
        frame.sse = f"id: {identity}\n".encode() + frame.sse
        return frame

    @classmethod
    def comment(cls, text: str) -> "Frame":
        """Returns what an event stream's reader ignores."""
        frame = cls(None, b"")
        frame.sse = f": {text}\n\n".encode()
        return frame


class Gate:
    """Decides which live deltas may pass: those of turns that run, in their current attempt.

    Nothing that a stopped, ended or superseded attempt still sends reaches a client.
    """

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.lengths: dict[str, int] = {}
        self.owners: dict[str, str | None] = {}
        """The turns of the messages that are being written."""
        self._finished: dict[str, None] = {}
        self._over: dict[str, None] = {}

    def knows(self, turn_id: str | None) -> bool:
        """Returns whether it is known if this turn runs."""
        return turn_id is None or turn_id in self.attempts or turn_id in self._over

    def end(self, turn_id: str) -> None:
        """Lets nothing more of this turn pass."""
        self.attempts.pop(turn_id, None)
        _remember(self._over, turn_id)

    def passes(self, turn_id: str | None, attempt: int, message_id: str) -> bool:
        """Returns whether this attempt of the turn may add to the message."""
        return (
            message_id not in self._finished
            and self.owners.get(message_id, turn_id) == turn_id
            and (turn_id is None or self.attempts.get(turn_id, 0) == attempt)
        )

    def observe(self, event: Event) -> None:
        """Learns from a durable event."""
        turn_id, message_id = event.turn_id, event.message_id
        if turn_id:
            self._observe_turn(event, turn_id)
        if message_id:
            self._observe_message(event, message_id)

    def _observe_turn(self, event: Event, turn_id: str) -> None:
        match event.type:
            case EventType.TURN_STARTED | EventType.TURN_RETRIED | EventType.TURN_RESUMED:
                attempt = event.data.get("attempt", 1)
                self.attempts[turn_id] = attempt if isinstance(attempt, int) else 1
            case EventType.AGENT_SPAWNED:
                self.attempts[turn_id] = 1
            case EventType.STOP_REQUESTED | EventType.AGENT_FINISHED:
                self.end(turn_id)
            case kind if kind in TERMINAL_TURN_TYPES:
                self.end(turn_id)

    def _observe_message(self, event: Event, message_id: str) -> None:
        match event.type:
            case EventType.MESSAGE_STARTED:
                self.lengths[message_id] = 0
                self.owners[message_id] = event.turn_id
            case EventType.MESSAGE_DELTA:
                self.lengths[message_id] = _end(event.data)
            case EventType.MESSAGE_COMPLETED | EventType.MESSAGE_SUPERSEDED:
                self.lengths.pop(message_id, None)
                self.owners.pop(message_id, None)
                _remember(self._finished, message_id)


class View:
    """What one connected client has on its screen: how far each open message reaches."""

    __slots__ = ("seen",)

    def __init__(self, lengths: Mapping[str, int]) -> None:
        self.seen = dict(lengths)

    def note_live(self, message_id: str, offset: int, length: int) -> bool:
        """Notes a live delta; returns whether it says anything that isn't on the screen yet.

        One behind a gap doesn't count as seen: clients don't show it yet.
        """
        have = self.seen.get(message_id, 0)
        if offset <= have < offset + length:
            self.seen[message_id] = offset + length
        return have < offset + length

    def needs(self, event: Event) -> bool:
        """Returns whether the client needs the event itself; if it has the text, the number is enough."""
        if event.type == EventType.MESSAGE_DELTA and event.message_id:
            if _end(event.data) <= self.seen.get(event.message_id, 0):
                return False
            self.seen[event.message_id] = _end(event.data)
        elif event.type in (EventType.MESSAGE_COMPLETED, EventType.MESSAGE_SUPERSEDED):
            self.seen.pop(event.message_id or "", None)
        return True


def _remember(known: dict[str, None], key: str) -> None:
    known[key] = None
    while len(known) > MAX_REMEMBERED:
        del known[next(iter(known))]


def _end(data: Mapping[str, object]) -> int:
    offset, text = data.get("offset"), data.get("text")
    return (offset if isinstance(offset, int) else 0) + (len(text) if isinstance(text, str) else 0)
