"""What the terminal shows at the moment a message ends, whenever the screen was last drawn."""

import io
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from tests.support import eventually
from waystation.cli.tail import tail
from waystation.client import Client, Session
from waystation.client.transcript import Transcript
from waystation.models.events import Actor, Event, EventType, LiveDelta, Role
from waystation.rich_console import CleanConsole

AGENT = Actor(id="a", role=Role.AGENT, name="demo")


class Screen(io.StringIO):
    @property
    def text(self) -> str:
        """Everything drawn so far, without the escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


class Scripted(Session):
    """A session that tells of one message, and waits for a piece of it to be on the screen."""

    def __init__(self, client: Client, screen: Screen) -> None:
        super().__init__(client, "scripted")
        self._screen = screen

    async def load(self) -> Transcript:
        return self.transcript

    async def events(self, *, after: int | None = None) -> AsyncGenerator[Event | LiveDelta]:
        yield self._heard(1, EventType.MESSAGE_STARTED)
        yield self._heard(2, EventType.MESSAGE_DELTA, offset=0, text="Not yet all")
        await eventually(lambda: "Not yet all" in self._screen.text, what="the text is drawn")
        yield self._heard(3, EventType.MESSAGE_COMPLETED, text="Now it is whole")
        yield self._heard(4, EventType.TURN_COMPLETED)

    def _heard(self, seq: int, type_: EventType, **data: JsonValue) -> Event:
        event = Event(
            seq=seq, time=datetime.now(UTC), type=type_, actor=AGENT, turn_id="t1", message_id="m1", data=data
        )
        self.transcript.apply(event)
        return event


async def test_a_finished_message_is_printed_whole_and_nothing_older_below_it() -> None:
    screen = Screen()
    async with Client("http://127.0.0.1:9", "unused") as client:
        await tail(
            Scripted(client, screen), CleanConsole(file=screen, force_terminal=True, width=80, height=24)
        )

    end = screen.text[screen.text.index("Now it is whole") :]
    assert "Not yet all" not in end
    assert end.index("turn.completed") < end.index("The session is closed.")


class Late(Scripted):
    """A session that was over before anybody looked."""

    async def load(self) -> Transcript:
        self._told(1, EventType.MESSAGE_COMPLETED, message="q", text="What went wrong?")
        self._told(2, EventType.TURN_STARTED)
        self._told(3, EventType.TOOL_CALLED, call_id="c", name="search")
        self._told(4, EventType.MESSAGE_COMPLETED, message="a", text="Let me see.")
        self._told(5, EventType.TOOL_RETURNED, call_id="c", name="search", error="the turn failed")
        self._told(6, EventType.TURN_FAILED, code="agent_error", detail="no key")
        return self.transcript

    def _told(self, seq: int, type_: EventType, message: str | None = None, **data: JsonValue) -> None:
        self.transcript.apply(
            Event(
                seq=seq,
                time=datetime.now(UTC),
                type=type_,
                actor=AGENT,
                turn_id="t1",
                message_id=message,
                data=data,
            )
        )

    async def events(self, *, after: int | None = None) -> AsyncGenerator[Event | LiveDelta]:
        return
        yield


@pytest.mark.parametrize("terminal", [True, False])
async def test_who_comes_late_sees_what_others_saw_in_the_same_order(terminal: bool) -> None:
    screen = Screen()
    async with Client("http://127.0.0.1:9", "unused") as client:
        console = CleanConsole(file=screen, force_terminal=terminal, width=100, height=24)
        await tail(Late(client, screen), console)
    places = [
        screen.text.index(text)
        for text in (
            "What went wrong?",
            "tool.called",
            "Let me see.",
            "tool.returned",
            "turn.failed",
            "no key",
        )
    ]
    assert places == sorted(places)
