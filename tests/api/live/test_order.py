"""What each client renders is in the order of writing, over two API processes and any timing of theirs."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import Problem
from api.live.bus import MemoryBus
from api.live.channels import Channel, Channels
from api.live.feed import Feed
from api.live.feeds import Feeds
from api.live.receipts import Settled
from tests.api.live.test_feeds import BOT, NOW
from tests.support import eventually, examples
from waystation.models.events import Event, EventType, Item, Publish, Write
from waystation.models.live import LiveMessage, Tick, decode, encode
from waystation.models.sessions import LogPosition, LogReading, SessionStatus, Snapshot
from waystation.settings import Settings
from workflows.session.log import SessionLog

Hops = Callable[[], Any]


class Session:
    """A session's log behind a Temporal that takes its time."""

    def __init__(self, hops: Hops) -> None:
        self.log, self._hops = SessionLog(), hops
        self.log.append(EventType.SESSION_STARTED, BOT, NOW)

    async def publish(self, session_id: str, publish: Publish) -> None:
        await self._hops()
        for write in Publish.model_validate_json(publish.model_dump_json()).writes:
            self.log.accept(write, NOW)
        await self._hops()

    async def read(self, session_id: str, position: LogPosition) -> LogReading:
        await self._hops()
        reading = LogReading(
            page=self.log.replay(position.after, min(position.limit, 5)),
            receipts={writer: self.log.receipt(writer) for writer in position.writers},
        )
        await self._hops()
        return reading

    async def snapshot(self, session_id: str) -> Snapshot:
        return Snapshot(
            session_id=session_id, agent="bot", status=SessionStatus.IDLE, tip=self.log.tip, created=NOW
        )


class Link(MemoryBus):
    """A bus whose messages reach another one in order, and late."""

    def __init__(self, hops: Hops) -> None:
        super().__init__()
        self.other: MemoryBus | None = None
        self._queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._hops = hops

    def publish(self, session_id: str, message: LiveMessage) -> None:
        super().publish(session_id, message)
        self._queue.put_nowait((session_id, encode(message, "me")))

    async def carry(self) -> None:
        while True:
            session_id, raw = await self._queue.get()
            await self._hops()
            frame = decode(raw)
            assert frame
            assert self.other
            MemoryBus.publish(self.other, session_id, frame.message)


@dataclass
class Screen:
    """An append-only front: what it has shown once, it never moves."""

    shown: list[str] = field(default_factory=list)
    """``m1/0`` is the first character of a message, ``x3`` a tool call, an event, a spawn."""
    lengths: dict[str, int] = field(default_factory=dict)

    def take(self, event: dict[str, Any]) -> None:
        data, message = event.get("data", {}), event.get("message_id")
        if event["type"] == EventType.MESSAGE_DELTA:
            self._text(message, data["offset"], data["text"])
        elif event["type"] == EventType.MESSAGE_COMPLETED:
            self._text(message, 0, data["text"])
        elif "mark" in data:
            self.shown.append(data["mark"])

    def _text(self, message: str, offset: int, text: str) -> None:
        have = self.lengths.get(message, 0)
        assert offset <= have, "nothing is missing before it"
        end = max(have, offset + len(text))
        self.shown += [f"{message}/{place}" for place in range(have, end)]
        self.lengths[message] = end


class Pen:
    """One attempt of a turn: what it writes, in order, and what it has heard."""

    def __init__(self, name: str, turn_id: str, channel: Channel) -> None:
        self.name, self.turn_id, self.channel = name, turn_id, channel
        self.written: list[str] = []
        """As ``Screen.shown``."""
        self.settled = 0
        self.n = 0
        self._messages = 0
        self._open: str | None = None
        self._length = 0

    def settle(self, settled: Settled) -> None:
        assert not settled.refused
        self.settled = settled.last

    def lose(self, problem: Problem) -> None:
        raise problem

    async def text(self, text: str) -> None:
        items = []
        if self._open is None:
            self._messages += 1
            self._open, self._length = f"{self.name}-m{self._messages}", 0
            items.append(self._item(EventType.MESSAGE_STARTED, {}, self._open))
        place = {"offset": self._length, "text": text}
        items.append(self._item(EventType.MESSAGE_DELTA, place, self._open))
        self.written += [f"{self._open}/{self._length + number}" for number in range(len(text))]
        self._length += len(text)
        await self._write(items)

    async def end(self) -> None:
        if self._open:
            message, self._open = self._open, None
            await self._write([self._item(EventType.MESSAGE_COMPLETED, {}, message)])

    async def whole(self, text: str) -> None:
        await self.end()
        self._messages += 1
        message = f"{self.name}-m{self._messages}"
        self.written += [f"{message}/{number}" for number in range(len(text))]
        await self._write([self._item(EventType.MESSAGE_COMPLETED, {"text": text}, message)])

    async def mark(self, kind: str) -> None:
        await self.end()
        mark = self.new_mark()
        self.written.append(mark)
        await self._write([self._item(kind, {"mark": mark, "call_id": mark, "name": "mark"})])

    def new_mark(self) -> str:
        return f"{self.name}-x{self.n}"

    async def flush(self) -> None:
        await self._write([], flush=True)

    def _item(self, kind: str, data: dict[str, Any], message: str | None = None) -> Item:
        self.n += 1
        return Item(n=self.n, type=kind, message_id=message, data=data)

    async def _write(self, items: list[Item], *, flush: bool = False) -> None:
        write = Write(writer=self.name, actor=BOT, turn_id=self.turn_id, attempt=1, items=tuple(items))
        await self.channel.write(write, self, flush=flush)


@asynccontextmanager
async def two_processes(hops: Hops) -> AsyncIterator[tuple[Session, list[tuple[Feed, Channel, Link]]]]:
    session = Session(hops)
    gateway: Any = session
    links = [Link(hops), Link(hops)]
    links[0].other, links[1].other = links[1], links[0]
    pumps = [asyncio.create_task(link.carry()) for link in links]
    options = Settings(idle_poll_seconds=60, busy_poll_seconds=60, durable_interval_ms=1)
    async with AsyncExitStack() as resources:
        processes = []
        for link in links:
            feeds = Feeds(gateway, link, options)
            resources.push_async_callback(feeds.stop)
            channels = Channels(feeds, link, gateway, options)
            channel = await resources.enter_async_context(channels.use("s"))
            processes.append((channel.feed, channel, link))
        yield session, processes
    for pump in pumps:
        pump.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)


async def follow(feed: Feed, screen: Screen) -> None:
    async for frames in feed.subscribe(feed.tip, staff=True).frames():
        for frame in frames:
            for text in frame.texts:
                screen.take(json.loads(text))


async def play(chance: random.Random) -> None:
    async def hops() -> None:
        for _ in range(chance.choice([0, 0, 1, 3, 10])):
            await asyncio.sleep(0)

    async with two_processes(hops) as (session, processes):
        screens = [Screen(), Screen()]
        following = [
            asyncio.create_task(follow(feed, screen))
            for (feed, _, _), screen in zip(processes, screens, strict=True)
        ]
        link = processes[0][2]

        def begin(name: str, turn_id: str, event: str, mark: str) -> Pen:
            session.log.open_fence(turn_id, 1)
            data = {"attempt": 1, "mark": mark}
            session.log.append(event, BOT, NOW, turn_id=turn_id, data=data)
            link.publish("s", Tick())
            return Pen(name, turn_id, processes[chance.randrange(2)][1])

        parent = begin("p", "t1", EventType.TURN_STARTED, "t1")
        pens = [parent, begin("q", "t2", EventType.TURN_STARTED, "t2")]
        children: list[Pen] = []
        follows: dict[str, int] = {}
        """How much the parent had written when it heard of its sub-agent's end."""

        def hear(event: Event) -> None:
            if event.type == EventType.AGENT_FINISHED:
                follows[str(event.data["mark"])] = len(parent.written)

        parent.channel.feed.watch(hear)
        for _ in range(chance.randrange(5, 40)):
            pen = chance.choice(pens)
            match chance.randrange(9):
                case 0:
                    await pen.mark(EventType.TOOL_CALLED)
                case 1:
                    await pen.mark("data.x")
                case 2:
                    await pen.whole("whole")
                case 3:
                    await pen.end()
                case 4 if not children:
                    await parent.end()
                    await parent.flush()
                    await eventually(lambda: parent.settled == parent.n)
                    mark = f"t1.1-{parent.n}"
                    child = begin("c", "t1.1", EventType.AGENT_SPAWNED, mark)
                    parent.channel.know(parent.name, parent, session.log.tip)
                    parent.written.append(mark)
                    children.append(child)
                    pens.append(child)
                case 5 if len(pens) == 3:
                    pens.remove(children[0])
                    await children[0].flush()
                    await eventually(lambda: children[0].settled == children[0].n)
                    session.log.finish_turn("t1.1", NOW, "completed")
                    session.log.close_fence("t1.1")
                    over = {"mark": "t1.1-over"}
                    session.log.append(EventType.AGENT_FINISHED, BOT, NOW, turn_id="t1.1", data=over)
                    link.publish("s", Tick())
                case _:
                    await pen.text("abc")
            await hops()
        for pen in pens:
            await pen.flush()
        for pen in [*pens, *children]:
            await eventually(lambda pen=pen: pen.settled == pen.n, what="all is settled")
        for screen in screens:
            for pen in [*pens, *children]:
                await eventually(
                    lambda pen=pen, screen=screen: set(pen.written) <= set(screen.shown), what="all is shown"
                )
                mine = set(pen.written)
                assert [thing for thing in screen.shown if thing in mine] == pen.written
            await eventually(lambda screen=screen: set(follows) <= set(screen.shown))
            for mark, written in follows.items():
                assert not set(parent.written[written:]) & set(screen.shown[: screen.shown.index(mark)])
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


# A seed: of hypothesis' own random numbers each is costly, and a run among tasks has thousands.
@settings(max_examples=examples(60))
@given(st.integers(0, 2**32))
def test_every_screen_shows_what_was_written_in_the_order_of_writing(seed: int) -> None:
    asyncio.run(play(random.Random(seed)))
