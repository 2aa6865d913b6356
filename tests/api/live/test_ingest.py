"""An agent's connection, with the session's parts as they are and Temporal's answers played."""

import asyncio
from typing import Any

import pytest

from api.auth import Principal
from api.live.agents import AgentConnection
from api.live.bus import MemoryBus
from api.live.channels import Channels
from api.live.feeds import Feeds
from tests.api.live.test_feeds import NOW
from tests.support import eventually
from waystation.models.events import Actor, Event, EventType, Item, Publish, Role
from waystation.models.ingest import CloseFrame, OpenFrame, WriteFrame
from waystation.models.live import Delta
from waystation.models.sessions import LogPosition, LogReading, ReplayPage, SessionStatus, Snapshot
from waystation.settings import Settings


class SlowSession:
    """Answers a snapshot when it is let."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def snapshot(self, session_id: str) -> Snapshot:
        await self.may_answer.wait()
        return Snapshot(session_id=session_id, agent="bot", status=SessionStatus.IDLE, tip=1, created=NOW)

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        return ReplayPage(events=(), next_after=after, tip=1, more=False, closed=False)

    async def read(self, session_id: str, position: LogPosition) -> LogReading:
        return LogReading(page=await self.replay(session_id, position.after, position.limit))


class Socket:
    """An agent's side: sends what it is given, hears what comes down."""

    def __init__(self) -> None:
        self.up: asyncio.Queue[str] = asyncio.Queue()
        self.down: list[str] = []

    async def receive(self) -> dict[str, str]:
        return {"type": "websocket.receive", "text": await self.up.get()}

    async def send_text(self, text: str) -> None:
        self.down.append(text)


def ignore(starters: object) -> None:
    """Takes what agents offer to begin with."""


async def test_a_writer_that_is_closed_or_opened_again_while_it_opens_is_not_left_behind() -> None:
    session, socket, bus = SlowSession(), Socket(), MemoryBus()
    gateway: Any = session
    feeds = Feeds(gateway, bus, Settings())
    channels = Channels(feeds, bus, gateway, Settings())
    connection = AgentConnection(
        socket, Principal(subject="a", role="agent", agents=frozenset({"*"})), channels, gateway, ignore
    )  # type: ignore[arg-type]
    running = asyncio.create_task(connection.run())
    bot = Actor(id="bot", role=Role.AGENT)
    for writer in ("again", "again", "closed"):
        socket.up.put_nowait(OpenFrame(session_id="s", writer=writer, actor=bot).model_dump_json())
    socket.up.put_nowait(CloseFrame(writer="closed").model_dump_json())
    await eventually(socket.up.empty)
    session.may_answer.set()
    await eventually(lambda: socket.down)
    assert set(connection._writers) == {"again"}
    assert feeds._users == {"s": 1}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert feeds._users == {}
    await feeds.stop()


class RetriedSession(SlowSession):
    """A session whose turn has begun for the third time."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer.set()

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        events = tuple(
            Event(
                seq=number,
                time=NOW,
                type=EventType.TURN_STARTED if number == 1 else EventType.TURN_RETRIED,
                actor=Actor(id="bot", role=Role.AGENT),
                turn_id="t1",
                data={"attempt": number},
            )
            for number in range(after + 1, 4)
        )
        return ReplayPage(events=events, next_after=3, tip=3, more=False, closed=False)


@pytest.mark.parametrize(("attempt", "over"), [(1, True), (2, True), (3, False), (4, False)])
async def test_a_later_attempt_fences_the_ones_before_it_and_no_other(attempt: int, over: bool) -> None:
    session, socket, bus = RetriedSession(), Socket(), MemoryBus()
    gateway: Any = session
    feeds = Feeds(gateway, bus, Settings())
    channels = Channels(feeds, bus, gateway, Settings())
    connection = AgentConnection(
        socket, Principal(subject="a", role="agent", agents=frozenset({"*"})), channels, gateway, ignore
    )  # type: ignore[arg-type]
    running = asyncio.create_task(connection.run())
    frame = OpenFrame(
        session_id="s",
        writer="w",
        actor=Actor(id="bot", role=Role.AGENT),
        turn_id="t1",
        attempt=attempt,
        after=0,
    )
    socket.up.put_nowait(frame.model_dump_json())
    await eventually(lambda: "w" in connection._writers)
    opening = connection._opens["w"]
    await asyncio.wait_for(opening, 5)
    assert connection._writers["w"][0].fenced is over
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await feeds.stop()


class GrownSession(SlowSession):
    """A session whose log has grown since this process read it, and is read again when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.tip = 1
        self.may_read = asyncio.Event()
        self.reads = 0

    async def snapshot(self, session_id: str) -> Snapshot:
        self.may_answer.set()
        return await super().snapshot(session_id)

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        tip, self.reads = self.tip, self.reads + 1
        await self.may_read.wait()
        return ReplayPage(events=(), next_after=tip, tip=tip, more=False, closed=False)

    async def publish(self, session_id: str, publish: Publish) -> None:
        pass


async def test_text_on_a_new_connection_follows_all_that_the_writer_may_have_heard_of() -> None:
    session, socket, bus = GrownSession(), Socket(), MemoryBus()
    gateway: Any = session
    feeds = Feeds(gateway, bus, Settings())
    channels = Channels(feeds, bus, gateway, Settings())
    shown: list[Delta] = []
    bus.subscribe("s", lambda message: shown.append(message) if isinstance(message, Delta) else None)
    connection = AgentConnection(
        socket, Principal(subject="a", role="agent", agents=frozenset({"*"})), channels, gateway, ignore
    )  # type: ignore[arg-type]
    async with channels.use("s") as channel:
        # Somebody reads a page here; then a sub-agent is spawned, which the writer hears of elsewhere.
        earlier = asyncio.create_task(channel.feed.page(1))
        await eventually(lambda: session.reads == 1)
        session.tip = 7
        running = asyncio.create_task(connection.run())
        bot = Actor(id="bot", role=Role.AGENT)
        opening = OpenFrame(session_id="s", writer="w", actor=bot, turn_id="t1", attempt=1, after=1)
        text = Item(n=9, type=EventType.MESSAGE_DELTA, message_id="m", data={"offset": 0, "text": "so"})
        socket.up.put_nowait(opening.model_dump_json())
        await eventually(lambda: session.reads == 2)
        socket.up.put_nowait(WriteFrame(writer="w", items=(text,)).model_dump_json())
        await eventually(socket.up.empty)
        assert not shown
        session.may_read.set()
        await eventually(lambda: shown)
        assert [delta.after for delta in shown] == [7]
        assert (await earlier).tip == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await feeds.stop()
