"""Whatever an agent sends up its socket: every message is answered or taken, and the connection goes on."""

import asyncio
import functools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from api.auth import Principal
from api.errors import Conflict
from api.live.agents import AgentConnection
from api.live.bus import MemoryBus
from api.live.channels import Channels
from api.live.connected import ConnectedAgents
from api.live.feeds import Feeds
from tests.api.live.test_ingest import Socket
from tests.api.live.test_order import Session
from tests.odd import ANYTHING, BROKEN_JSON, altered
from tests.support import eventually, examples
from waystation.models.ingest import ServerFrame
from waystation.models.sessions import Spawn
from waystation.settings import Settings

BOT = {"id": "bot", "role": "agent"}
SPAWN = {"parent_turn_id": "t1", "attempt": 1, "key": "k", "agent": "bot", "text": "help"}
ITEMS: list[dict[str, Any]] = [
    {"n": 1, "type": "message.started", "message_id": "m", "data": {}},
    {"n": 2, "type": "message.delta", "message_id": "m", "data": {"offset": 0, "text": "a"}},
    {"n": 3, "type": "message.completed", "message_id": "m", "data": {"text": "whole"}},
    {"n": 4, "type": "tool.called", "data": {"call_id": "c", "name": "n", "arguments": {}}},
    {"n": 5, "type": "tool.returned", "data": {"call_id": "c", "name": "n", "result": 1}},
    {"n": 6, "type": "data.x", "data": {"a": [1]}},
]
FRAMES: list[dict[str, Any]] = [
    {"op": "open", "session_id": "s", "writer": "w", "actor": BOT},
    {"op": "open", "session_id": "s", "writer": "v", "actor": BOT, "turn_id": "t1", "attempt": 1, "after": 0},
    {"op": "write", "writer": "w", "flush": True, "items": ITEMS},
    {"op": "write", "writer": "w", "items": ITEMS[3:]},
    {"op": "spawn", "writer": "w", "session_id": "s", "request": "r1", "spawn": SPAWN},
    {"op": "describe", "starters": {"bot": ["Hello?"], "other": []}},
    {"op": "close", "writer": "w"},
]
LONG_NUMBER = "9" * 5_000
HALVES = st.sampled_from(
    [
        '{"op":"write","writer":"w","items":[{"n":1,"type":"data.x","data":{"a":"\\ud83d"}}]}',
        '{"op":"write","writer":"w\\ud83d","items":[]}',
        '{"op":"write","writer":"w","items":[{"n":9,"type":"data.x","data":{"\\ud83d":'
        + "9" * 5_000
        + "}}]}",
        '{"op":"write","writer":"w","items":[{"n":9,"type":"data.\\ud83d","data":{"a":1e400}}]}',
    ]
)
MESSAGES = st.one_of(
    st.sampled_from(FRAMES).flatmap(altered).map(json.dumps),
    st.sampled_from(FRAMES).map(json.dumps),
    ANYTHING.map(json.dumps),
    BROKEN_JSON.map(lambda raw: raw.decode(errors="replace")),
    HALVES,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
_DOWN: TypeAdapter[list[ServerFrame]] = TypeAdapter(list[ServerFrame])


class Played(Session):
    """A session without turns that can spawn."""

    async def spawn(self, session_id: str, spawn: Spawn) -> None:
        raise Conflict("Turn t1 isn't running (any more).", code="unknown-turn")


async def no_hops() -> None:
    return None


@settings(max_examples=examples(60))
@given(st.lists(MESSAGES, max_size=8))
async def test_every_message_is_answered_or_taken_and_the_next_one_is_read(messages: list[str]) -> None:
    session, socket, bus = Played(no_hops), Socket(), MemoryBus()
    gateway: Any = session
    options = Settings(idle_poll_seconds=60, busy_poll_seconds=60, durable_interval_ms=1)
    feeds = Feeds(gateway, bus, options)
    channels = Channels(feeds, bus, gateway, options)
    principal = Principal(subject="a", role="agent", agents=frozenset({"*"}))
    offer = functools.partial(ConnectedAgents(bus).offer, object(), principal)
    connection = AgentConnection(socket, principal, channels, gateway, offer)  # type: ignore[arg-type]
    running = asyncio.create_task(connection.run())

    def heard() -> list[ServerFrame]:
        return [frame for raw in socket.down for frame in _DOWN.validate_json(raw)]

    frames = [
        *messages,
        json.dumps({"op": "open", "session_id": "s", "writer": "last", "actor": BOT}),
        json.dumps(
            {"op": "write", "writer": "last", "flush": True, "items": [{"n": 1, "type": "data.last"}]}
        ),
    ]
    socket.up.put_nowait(frames[0])
    for frame in frames[1:-1]:
        socket.up.put_nowait(frame)
    await eventually(lambda: any(f.op == "opened" and f.writer == "last" for f in heard()) or running.done())
    socket.up.put_nowait(frames[-1])
    await eventually(lambda: any(f.op == "ack" and f.writer == "last" for f in heard()) or running.done())
    assert not running.done(), "nothing that is sent ends the connection"
    unread = [raw for raw in messages if not _is_object(raw)]
    assert sum(frame.op == "problem" and frame.code == "bad-frame" for frame in heard()) >= len(unread)
    for event in session.log.replay(0, 1_000).events:
        json.dumps(event.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await feeds.stop()


def _is_object(raw: str) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False
