"""An open event stream: it says that it lives, ends with its client, and waits for no one forever."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest

from api.errors import CarriedOut, Unavailable
from api.live import event_stream
from api.live.event_stream import EventStream
from tests.api.live.test_feeds import Workflow, open_feed
from tests.support import eventually
from waystation.models.events import Actor, EventType, Role
from workflows.session.log import SessionLog

BOT = Actor(id="bot", role=Role.AGENT)
SCOPE = {"type": "http", "method": "GET"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Connection:
    """A client at the other end of ASGI."""

    def __init__(self) -> None:
        self.received = b""
        self.gone = asyncio.Event()
        self.takes = asyncio.Event()
        self.takes.set()
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        self.received += message.get("body", b"")
        self.complete = message.get("more_body") is False


@pytest.fixture
def log() -> SessionLog:
    log = SessionLog()
    log.append(EventType.SESSION_STARTED, BOT, NOW)
    return log


async def test_a_quiet_stream_says_that_it_lives_and_ends_with_its_client(log: SessionLog) -> None:
    feed, _ = await open_feed(Workflow(log))
    released: list[bool] = []
    resources = contextlib.AsyncExitStack()
    resources.callback(released.append, True)
    connection = Connection()
    stream = EventStream(feed.subscribe(0, staff=True), resources, heartbeat_seconds=0.02)
    serving = asyncio.create_task(stream(SCOPE, connection.receive, connection.send))
    try:
        await eventually(lambda: connection.received.count(b": still here\n\n") >= 3)
        assert connection.received.startswith(b"retry: 1000\n\nid: 1\ndata: {")
        connection.gone.set()
        await asyncio.wait_for(serving, 5)
        assert released
        assert len(feed.audience) == 0
    finally:
        serving.cancel()
        await feed.stop()


async def test_a_client_that_takes_nothing_is_given_up(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "SEND_TIMEOUT_SECONDS", 0.1)
    feed, _ = await open_feed(Workflow(log))
    connection = Connection()
    stream = EventStream(feed.subscribe(0, staff=True), contextlib.AsyncExitStack(), heartbeat_seconds=0.02)
    serving = asyncio.create_task(stream(SCOPE, connection.receive, connection.send))
    try:
        await eventually(lambda: b"still here" in connection.received)
        connection.takes.clear()
        await asyncio.wait_for(serving, 5)
        assert not connection.complete
    finally:
        serving.cancel()
        await feed.stop()


async def test_streams_end_with_their_feed(log: SessionLog) -> None:
    feed, _ = await open_feed(Workflow(log))
    connection = Connection()
    stream = EventStream(feed.subscribe(0, staff=True), contextlib.AsyncExitStack(), heartbeat_seconds=15)
    serving = asyncio.create_task(stream(SCOPE, connection.receive, connection.send))
    try:
        await eventually(lambda: len(feed.audience))
        await feed.stop()
        await asyncio.wait_for(serving, 5)
        assert connection.complete
    finally:
        serving.cancel()


async def test_a_stream_that_can_not_be_read_on_ends_and_its_client_may_resume(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, _ = await open_feed(Workflow(log))
    subscription = feed.subscribe(0, staff=True)

    async def unavailable(after: int) -> Any:
        raise Unavailable("Temporal did not answer in time.", CarriedOut.NOTHING_TO)

    monkeypatch.setattr(feed, "recent", lambda after: None)
    monkeypatch.setattr(feed, "page", unavailable)
    connection = Connection()
    stream = EventStream(subscription, contextlib.AsyncExitStack(), heartbeat_seconds=15)
    try:
        await asyncio.wait_for(stream(SCOPE, connection.receive, connection.send), 5)
        assert connection.complete
    finally:
        await feed.stop()
