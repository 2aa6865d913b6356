"""What a turn opens is closed, whatever the session has refused of it in the meantime."""

import asyncio
import json
from typing import Any

import pytest

from tests.agent.memory import steps, waits
from waystation.agent.connection import IngestConnection
from waystation.agent.told import Told
from waystation.agent.turn import Turn
from waystation.agent.writer import Writer
from waystation.errors import WriteRefused
from waystation.models.events import Actor, Role
from waystation.models.ingest import OpenFrame, RefusedFrame
from waystation.models.sessions import TurnInput


class Written:
    """A turn whose items stay in its writer, unacknowledged."""

    def __init__(self) -> None:
        connection = IngestConnection("http://127.0.0.1:1", "key")
        bot = Actor(id="bot", role=Role.AGENT)
        self.writer: Writer = connection.writer(
            OpenFrame(session_id="s", writer="t1.1", actor=bot, turn_id="t1", attempt=1),
            lambda control: None,
        )
        given = TurnInput(session_id="s", turn_id="t1", attempt=1, agent="bot", text="")
        nobody: Any = None
        self.turn = Turn(given, nobody, self.writer, [], nobody, waits(), steps(), Told())

    def refuse(self, n: int) -> None:
        frame = RefusedFrame(writer=self.writer.key, first=n, last=n, code="gap", detail="It is a gap.")
        self.writer.take(frame)

    def items(self) -> list[tuple[str, dict[str, Any]]]:
        items = [json.loads(sealed.json) for sealed in self.writer._unacknowledged]
        return [(item["type"], item["data"]) for item in items]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.items()]


async def test_a_message_is_completed_although_something_before_it_was_refused() -> None:
    written = Written()
    await written.turn.write("one\ud83d")
    written.refuse(2)
    with pytest.raises(WriteRefused):
        await written.turn.end_message()
    assert written.items() == [
        ("message.started", {}),
        ("message.delta", {"offset": 3, "text": "\ufffd"}),
        ("message.completed", {}),
    ]
    await written.turn.end_message()
    await written.turn.write("two")
    assert written.kinds()[3:] == ["message.started", "message.delta"]


async def test_a_message_block_is_completed_although_something_before_it_was_refused() -> None:
    written = Written()

    async def think() -> None:
        async with written.turn.message(kind="reasoning") as thoughts:
            await thoughts.write("hm")
            written.refuse(2)

    with pytest.raises(WriteRefused):
        await think()
    assert written.items()[1:] == [("message.completed", {})]


async def test_a_tools_result_is_reported_although_something_before_it_was_refused() -> None:
    written = Written()

    async def search() -> None:
        async with written.turn.tool("search") as call:
            await written.turn.emit("progress", {})
            call.result = 7
            written.refuse(2)

    with pytest.raises(WriteRefused):
        await search()
    (_, returned) = written.items()
    assert (returned[0], returned[1]["result"]) == ("tool.returned", 7)


async def test_a_message_that_never_began_is_not_completed() -> None:
    written = Written()
    await written.turn.emit("progress", {})
    written.refuse(1)
    with pytest.raises(WriteRefused):
        await written.turn.write("one")
    await written.turn.end_message()
    assert written.kinds() == []


async def test_a_completion_that_is_cut_off_is_made_up_for_before_anything_else() -> None:
    written = Written()
    await written.turn.write("one")
    async with written.writer._turnstile:  # as while there is no room
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await written.turn.end_message()
    await written.turn.write("two")
    assert written.items()[2] == ("message.completed", {"finish": "failed"})
    assert written.kinds()[3:] == ["message.started", "message.delta"]
