"""What comes down an agent's socket: what can't be read costs itself, never the connection or the turns."""

import json
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.odd import ANYTHING, BROKEN_JSON, altered
from waystation.agent.connection import IngestConnection, known_frames
from waystation.agent.writer import Writer
from waystation.models.events import Actor
from waystation.models.ingest import AckFrame, OpenFrame

KEY = "s:w"
BOT = {"id": "bot", "role": "agent"}
FRAMES: list[dict[str, Any]] = [
    {"op": "opened", "writer": KEY},
    {"op": "ack", "writer": KEY, "n": 2},
    {"op": "refused", "writer": KEY, "first": 1, "last": 2, "code": "gap", "detail": "write what is missing"},
    {"op": "stop", "writer": KEY, "turn_id": "t1", "reason": "enough"},
    {"op": "steer", "writer": KEY, "steer_id": "s1", "text": "shorter", "actor": BOT},
    {"op": "fenced", "writer": KEY, "code": "turn-over"},
    {"op": "spawned", "writer": KEY, "request": "r1", "turn_id": "t1.1"},
    {"op": "finished", "writer": KEY, "turn_id": "t1.1", "outcome": "completed", "result": {"a": [1]}},
    {"op": "problem", "writer": KEY, "request": "r1", "code": "x", "detail": "y", "retry": False},
]
MESSAGES: st.SearchStrategy[str | bytes] = (
    st.lists(st.sampled_from(FRAMES).flatmap(altered) | ANYTHING, max_size=4).map(json.dumps)
    | ANYTHING.map(json.dumps)
    | BROKEN_JSON
    | st.binary(max_size=30)
    | st.text(max_size=30)
)


class Socket:
    """The API's side: says what it is given, then ends."""

    def __init__(self, messages: list[str | bytes]) -> None:
        self._messages = messages

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        for message in self._messages:
            yield message


def opened(heard: list[Any]) -> tuple[IngestConnection, Writer]:
    connection = IngestConnection("http://127.0.0.1:1", "key")
    frame = OpenFrame(session_id="s", writer="w", actor=Actor.model_validate(BOT))
    return connection, connection.writer(frame, heard.append)


@given(st.lists(MESSAGES, max_size=4))
async def test_whatever_comes_down_the_next_acknowledgement_is_heard(messages: list[str | bytes]) -> None:
    heard: list[Any] = []
    connection, writer = opened(heard)
    for _ in range(2):
        await writer.write("data.x", {})
    last = json.dumps([{"op": "ack", "writer": KEY, "n": 2}])
    await connection._receive(Socket([*messages, last]))  # type: ignore[arg-type]
    assert not writer._unacknowledged
    assert writer._bytes == 0
    assert all(frame.writer == KEY for frame in heard)


@given(MESSAGES)
def test_what_is_known_of_a_message_is_all_that_is_read_of_it(message: str | bytes) -> None:
    frames = list(known_frames(message))
    again = "[" + ",".join(frame.model_dump_json() for frame in frames) + "]"
    assert list(known_frames(again)) == frames


def test_one_frame_that_is_not_known_costs_only_itself() -> None:
    ack = {"op": "ack", "writer": KEY, "n": 1}
    frames = list(known_frames(json.dumps([{"op": "weather"}, ack, 7])))
    assert frames == [AckFrame(writer=KEY, n=1)]
