"""Those who follow a session live: what each has on its screen, and one frame for all who have the same."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from api.live.delivery import Frame, View
from waystation.models.events import Event


class Follower(Protocol):
    """One client."""

    joined_at: int
    """It has the log up to here already."""

    def push(self, frame: Frame) -> None:
        """Queues a frame. Never waits; may make the client leave."""


class LiveText(NamedTuple):
    """Live text on its way."""

    message_id: str
    offset: int
    length: int
    frame: Frame


class Audience:
    """Everyone who follows. They have nearly always seen the same, so what each needs is worked out once.

    A client that joins in the middle of a message may lack part of it. It has a view of its own until the log
    has brought that part.
    """

    def __init__(self) -> None:
        self._view = View({})
        self._together: dict[Follower, None] = {}
        self._apart: dict[Follower, View] = {}

    def __len__(self) -> int:
        return len(self._together) + len(self._apart)

    @property
    def anyone_behind(self) -> bool:
        """Whether someone lacks text that others have seen live."""
        return bool(self._apart)

    def join(self, follower: Follower, lengths: Mapping[str, int], tip: int) -> None:
        """Adds a client; ``lengths`` are those of the open messages at ``tip``, the newest event here."""
        view = View(lengths)
        if not self._together:
            self._view = View(lengths)
        if self._view.seen == view.seen and follower.joined_at <= tip:
            self._together[follower] = None
        else:
            self._apart[follower] = view

    def leave(self, follower: Follower) -> None:
        self._together.pop(follower, None)
        self._apart.pop(follower, None)

    def show(self, deltas: Sequence[LiveText]) -> None:
        """Sends live text to everyone, but for what all have already (an agent has sent it again, say)."""
        views = (self._view, *self._apart.values())
        news = []
        for message_id, offset, length, frame in deltas:
            lacking = [view for view in views if view.note_live(message_id, offset, length)]
            if lacking:
                news.append(frame)
        if news:
            self.push(news[0] if len(news) == 1 else Frame.joined(news))

    def tell(self, event: Event, frame: Frame) -> None:
        """Sends a durable event; a client that has its text already receives only its number."""
        number = Frame.number(frame.seq or 0)
        shown = frame if self._view.needs(event) else number
        for follower in tuple(self._together):
            follower.push(shown)
        for follower, view in tuple(self._apart.items()):
            # A page read on the way here may have been ahead of the feed.
            if event.seq > follower.joined_at:
                follower.push(frame if view.needs(event) else number)
            caught_up = event.seq >= follower.joined_at and view.seen == self._view.seen
            if caught_up and follower in self._apart:
                del self._apart[follower]
                self._together[follower] = None

    def push(self, frame: Frame) -> None:
        """Sends the same to everyone."""
        for follower in (*self._together, *self._apart):
            follower.push(frame)
