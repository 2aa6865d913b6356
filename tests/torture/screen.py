"""What is on a device's screen: from docs/events.md alone, so that it can judge our transcripts. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]
ENDS = frozenset({"turn.completed", "turn.stopped", "turn.failed", "agent.finished", "turn.retried"})


@dataclass
class Shown:
    """A message on the screen; ``order`` is its first event's number, missing while it is known only live."""

    id: str
    by: str
    turn: str | None
    order: int | None = None
    text: str = ""
    over: bool = False
    withdrawn: bool = False


class Screen:
    """Messages, everything else in order, and the cursor."""

    def __init__(self) -> None:
        self.cursor = 0
        self.events: list[tuple[int, str]] = []
        self._messages: dict[str, Shown] = {}

    def event(self, event: Event) -> None:
        """Takes in a durable event."""
        if event["seq"] <= self.cursor:
            return
        self.cursor = event["seq"]
        if event["type"] in ENDS:
            self._forget_what_was_only_live(event.get("turn_id"))
        if not event["type"].startswith("message."):
            self.events.append((event["seq"], event["type"]))
            return
        data = event.get("data", {})
        message = self._message(event["message_id"], event["actor"]["id"], event.get("turn_id"))
        if message.order is None:
            message.order = data.get("started", event["seq"])
        if event["type"] == "message.delta":
            self._place(message, data["offset"], data["text"])
        elif event["type"] == "message.completed":
            message.text, message.over = data["text"], True
        elif event["type"] == "message.superseded":
            message.text, message.over, message.withdrawn = "", True, True

    def live(self, delta: Event) -> None:
        """Takes in a live delta."""
        message = self._message(delta["message_id"], delta["actor"]["id"], delta.get("turn_id"))
        if not message.over:
            self._place(message, delta["data"]["offset"], delta["data"]["text"])

    def transcript(self, view: Event) -> None:
        """Takes over a whole transcript, unless more is here already."""
        if view["cursor"] < self.cursor:
            return
        self.cursor = view["cursor"]
        self.events = [(event["seq"], event["type"]) for event in view.get("events", ())]
        self._messages = {
            one["id"]: Shown(
                one["id"],
                one["by"]["id"],
                one.get("turn"),
                one["seq"],
                one["text"],
                over=one.get("status") != "streaming",
                withdrawn=one.get("status") == "superseded",
            )
            for one in view["messages"]
        }

    def advance(self, seq: int) -> None:
        """Learns that everything up to here is on the screen."""
        self.cursor = max(self.cursor, seq)

    @property
    def messages(self) -> list[list[str]]:
        """Id, writer and text of each message that stands, in order; what is only live comes last."""
        standing = [message for message in self._messages.values() if not message.withdrawn]
        standing.sort(key=lambda message: (message.order is None, message.order or 0))
        return [[message.id, message.by, message.text] for message in standing]

    def _message(self, id_: str, by: str, turn: str | None) -> Shown:
        return self._messages.setdefault(id_, Shown(id_, by, turn))

    def _place(self, message: Shown, offset: int, text: str) -> None:
        if offset <= len(message.text):
            message.text += text[len(message.text) - offset :]

    def _forget_what_was_only_live(self, turn: str | None) -> None:
        gone = [one.id for one in self._messages.values() if one.turn == turn and one.order is None]
        for id_ in gone:
            del self._messages[id_]


def screen_of(events: Iterable[Event]) -> Screen:
    """Returns the screen of somebody who has read all of a log."""
    screen = Screen()
    for event in events:
        screen.event(event)
    return screen
