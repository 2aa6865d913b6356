"""The newest events of a session, kept for those who reconnect, folded as the log itself is."""

from collections import deque

from api.live.delivery import Frame
from waystation.models.events import FOLDED_TYPES, Event, EventType

MAX_EVENTS = 2_000
MAX_BYTES = 2 * 1024 * 1024


class Recent:
    """A bounded ring of frames. It reaches back to ``start``; only the log has what is older."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._newest = start
        self._ring: deque[tuple[Frame, str | None]] = deque()
        self._bytes = 0

    def after(self, cursor: int) -> list[Frame] | None:
        """Returns what came after a cursor, or ``None`` if memory doesn't reach back that far."""
        if cursor < self.start:
            return None
        frames: list[Frame] = []
        for frame, _ in reversed(self._ring):
            if frame.seq is None or frame.seq <= cursor:
                break
            frames.append(frame)
        frames.reverse()
        return frames

    def add(self, event: Event, frame: Frame) -> None:
        """Keeps an event; one that ends a message takes the place of the message's parts."""
        assert event.seq > self._newest, "sequence numbers only grow"
        self._newest = event.seq
        if event.type in (EventType.MESSAGE_COMPLETED, EventType.MESSAGE_SUPERSEDED):
            self._fold(event.message_id)
        part_of = event.message_id if event.type in FOLDED_TYPES else None
        self._ring.append((frame, part_of))
        self._bytes += len(frame.sse)
        while len(self._ring) > MAX_EVENTS or self._bytes > MAX_BYTES:
            dropped, _ = self._ring.popleft()
            self._bytes -= len(dropped.sse)
            if dropped.seq is not None:
                self.start = dropped.seq

    def _fold(self, message_id: str | None) -> None:
        kept = deque(entry for entry in self._ring if entry[1] is None or entry[1] != message_id)
        if len(kept) != len(self._ring):
            self._ring = kept
            self._bytes = sum(len(frame.sse) for frame, _ in kept)
