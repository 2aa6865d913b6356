"""Whoever answers in the place of the API, a proxy for example: clients say so with errors of ours."""

import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.odd import ANYTHING, BROKEN_JSON, TEXTS, altered
from waystation.client import Client, Session
from waystation.errors import ApiError, ConnectionLost, TryLater, WaystationError
from waystation.models.events import Actor, Event, EventType, LiveDelta, Role
from waystation.models.sessions import Snapshot
from waystation.retry_after import MAX_RETRY_AFTER_SECONDS, retry_after

BOT = Actor(id="bot", role=Role.AGENT)
MAX_CONNECTIONS = 5
"""After these the stream says that the session is over."""
HEADER = st.sampled_from(
    ["", "2", " 3 ", "\u00b2", "9" * 5_000, "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"]
)
SNAPSHOT = {
    "session_id": "s",
    "agent": "bot",
    "status": "idle",
    "tip": 7,
    "created": "2026-01-01T00:00:00Z",
    "running": [],
}
BODIES = (
    altered(SNAPSHOT).map(lambda value: json.dumps(value).encode())
    | altered({"code": "x", "detail": "y", "carried_out": "no"}).map(lambda value: json.dumps(value).encode())
    | BROKEN_JSON
    | st.binary(max_size=40)
)
KINDS = st.sampled_from(
    [
        "text/event-stream",
        "application/json",
        "text/html; charset=hex",
        "text/plain; charset=utf-16",
        "\u00e4",
    ]
)


class Chunks(httpx.AsyncByteStream):
    """A body that comes in pieces, wherever they are cut."""

    def __init__(self, body: bytes, cuts: list[int]) -> None:
        self._body, self._cuts = body, sorted({min(cut, len(body)) for cut in cuts})

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start, end in itertools.pairwise([0, *self._cuts, len(self._body)]):
            if start < end:
                yield self._body[start:end]


def answering(status: int, headers: dict[str, str], body: bytes, cuts: list[int]) -> Client:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    count = itertools.count()

    def answer(request: httpx.Request) -> httpx.Response:
        if next(count) >= MAX_CONNECTIONS:
            return httpx.Response(204)
        return httpx.Response(status, headers=encoded, stream=Chunks(body, cuts))

    return Client("http://api.test", "key", http=httpx.AsyncClient(transport=httpx.MockTransport(answer)))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(pause: float) -> None:
        assert pause <= MAX_RETRY_AFTER_SECONDS + 5

    monkeypatch.setattr("waystation.backoff.asyncio", SimpleNamespace(sleep=sleep))


ONCE = settings(
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
)


@given(
    st.sampled_from([200, 201, 204, 301, 400, 401, 404, 409, 418, 429, 500, 503]),
    st.fixed_dictionaries(
        {},
        optional={
            "content-type": KINDS,
            "content-encoding": st.sampled_from(["gzip", "br", "nonsense"]),
            "retry-after": HEADER,
        },
    ),
    BODIES,
)
async def test_a_call_ends_with_its_answer_or_an_error_of_ours(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    client = answering(status, headers, body, [])
    try:
        outcome: Snapshot | WaystationError = await client.attach("s").snapshot()
    except WaystationError as error:
        outcome = error
    match outcome:
        case ApiError():
            assert outcome.status == status
            assert (outcome.retry_after_seconds or 0) <= MAX_RETRY_AFTER_SECONDS
            assert isinstance(outcome, TryLater) == (status in (429, 503))
        case ConnectionLost():
            assert "content-encoding" in headers
        case _:
            assert status in (200, 201, 204)
            assert isinstance(outcome, Snapshot)
    await client.http.aclose()


DELTA = {
    "type": "message.delta",
    "actor": {"id": "bot", "role": "agent"},
    "message_id": "m",
    "turn_id": "t1",
    "data": {"offset": 0, "text": "\u00e9\U0001f600"},
}
EVENT = {"seq": 3, "time": "2026-01-01T00:00:00Z", **DELTA}
OTHERS = [
    {**EVENT, "seq": number, "type": kind, "data": {"text": "whole", "started": 1}}
    for number, kind in enumerate(
        ["message.completed", "message.started", "message.superseded", "turn.started"], 4
    )
]
BLOCKS = st.lists(
    st.one_of(
        st.sampled_from([DELTA, EVENT, *OTHERS])
        .flatmap(altered)
        .map(lambda value: b"data: " + json.dumps(value, separators=(",", ":")).encode()),
        st.sampled_from(
            [b"id: 7", b"id: 0", b"id: \xc2\xb2", b"id: x", b"id: " + b"9" * 5_000, b"id", b"retry: 1"]
        ),
        (TEXTS | ANYTHING.map(str)).map(lambda text: b"data: " + text.encode()),
        BROKEN_JSON.map(lambda raw: b'data: {"seq":' + raw),
        st.binary(max_size=20),
    ),
    max_size=6,
).map(lambda blocks: b"".join(block + b"\n\n" for block in blocks))


@ONCE
@given(BLOCKS, st.lists(st.integers(0, 300), max_size=5))
async def test_a_stream_of_whatever_ends_or_says_that_it_is_not_ours(
    no_waiting: None, body: bytes, cuts: list[int]
) -> None:
    client = answering(200, {"content-type": "text/event-stream"}, body, cuts)
    session, cursor = client.attach("s"), 0
    refused: ApiError | None = None
    try:
        async for event in session.events():
            assert isinstance(event, Event | LiveDelta)
            if isinstance(event, Event):
                assert event.seq > cursor
                cursor = event.seq
            assert session.transcript.cursor >= cursor
    except ApiError as error:
        refused = error
    assert refused is None or (refused.status, refused.code) == (200, "error")
    assert refused is None or "not from Waystation" in refused.detail
    await client.http.aclose()


NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=6
)


@ONCE
@given(WORDS, st.lists(st.integers(0, 2_000), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
async def test_an_honest_stream_says_the_same_wherever_it_is_cut(
    no_waiting: None, words: list[str], cuts: list[int], newline: str
) -> None:
    events, offset = [], 0
    for seq, word in enumerate(words, 1):
        data = {"offset": offset, "text": word}
        events.append(
            Event(seq=seq, time=NOW, type=EventType.MESSAGE_DELTA, actor=BOT, message_id="m", data=data)
        )
        offset += len(word)
    body = "".join(f"id: {event.seq}{newline}data: {event.to_wire()}{newline * 2}" for event in events)
    client = answering(200, {"content-type": "text/event-stream"}, body.encode(), cuts)
    session: Session = client.attach("s")
    assert [event async for event in session.events()] == events
    assert [message.text for message in session.transcript.messages] == ["".join(words)]
    await client.http.aclose()


@given(st.none() | HEADER | st.text(max_size=12))
def test_a_server_makes_nobody_wait_for_long(header: str | None) -> None:
    wait = retry_after(header)
    assert wait is None or timedelta(0) <= wait <= timedelta(seconds=MAX_RETRY_AFTER_SECONDS)


@given(st.integers(0, MAX_RETRY_AFTER_SECONDS))
def test_a_bearable_wait_is_kept(seconds: int) -> None:
    assert retry_after(f" {seconds}") == timedelta(seconds=seconds)
