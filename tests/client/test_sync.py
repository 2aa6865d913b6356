"""The blocking client, in a thread of its own as a script would have it."""

import asyncio

import pytest

from tests.world.stack import KEYS, Stack
from waystation.client.sync import SyncClient
from waystation.errors import ApiError
from waystation.models.events import Event, LiveDelta


def script(url: str) -> list[str]:
    with SyncClient(url, KEYS["service"]) as client:
        session = client.start("demo", title="blocking")
        assert session.snapshot().status == "idle"
        session.send("tokens=500 rate=50")
        kinds = []
        for event in session.events():
            kinds.append("live" if isinstance(event, LiveDelta) else event.type)
            if kinds[-1] == "live" and kinds.count("live") == 3:
                assert session.stop().outcome == "stopped"
            if isinstance(event, Event) and event.type == "turn.stopped":
                break
        assert session.steer("tokens=1 rate=0").outcome == "queued"
        for event in session.events():
            if isinstance(event, Event) and event.type == "turn.completed":
                break
        texts = [message.text for message in client.attach(session.id).load()]
        assert texts[-2:] == ["tokens=1 rate=0", "A "]
        assert session.replay(limit=1).events[0].type == "session.started"
        with pytest.raises(ApiError):
            session.take_over()
        session.close()
        return kinds


async def test_a_script_without_async(stack: Stack) -> None:
    kinds = await asyncio.to_thread(script, stack.url)
    assert kinds[-1] == "turn.stopped"
    assert kinds.count("turn.stopped") == 1
