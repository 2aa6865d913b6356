"""A feed's own bounds and races, with the workflow's answers played."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from api.feeds import MAX_CACHED_PAGES, Feed, Subscription
from api.live_bus import HOLD, TICK, MemoryBus
from tests.support import eventually
from waystation.models.events import Actor, EventType, Role
from waystation.models.sessions import ReplayPage, SessionStatus, Snapshot
from waystation.settings import Settings
from workflows.session_log import SessionLog

BOT = Actor(id="bot", role=Role.AGENT)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Workflow:
    """A session's log that answers when it is let."""

    def __init__(self, log: SessionLog) -> None:
        self.log = log
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def snapshot(self, session_id: str) -> Snapshot:
        return Snapshot(
            session_id=session_id, agent="bot", status=SessionStatus.IDLE, tip=self.log.tip, created=NOW
        )

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        self.asked += 1
        page = self.log.replay(after, limit)
        await self.may_answer.wait()
        return page


@pytest.fixture
def log() -> SessionLog:
    log = SessionLog()
    log.append(EventType.SESSION_STARTED, BOT, NOW)
    return log


async def open_feed(workflow: Any) -> tuple[Feed, MemoryBus]:
    bus = MemoryBus()
    feed = Feed("s", workflow, bus, Settings(idle_poll_seconds=60, busy_poll_seconds=60))
    await feed.start()
    return feed, bus


def delta(offset: int) -> dict[str, Any]:
    wire = f'{{"type":"message.delta","offset":{offset}}}'
    where = {"message_id": "m", "offset": offset, "length": 1, "wire": wire}
    return {"kind": "delta", "turn_id": "t1", "attempt": 1, **where}


async def test_a_read_that_began_before_the_stop_lets_nothing_through_after_it(log: SessionLog) -> None:
    workflow = Workflow(log)
    feed, bus = await open_feed(workflow)
    shown: list[str] = []
    try:
        log.append(EventType.TURN_STARTED, BOT, NOW, turn_id="t1", data={"attempt": 1})
        bus.publish("s", TICK)
        await eventually(lambda: feed.tip == log.tip)
        following = asyncio.create_task(follow(feed, shown))
        await eventually(lambda: feed._following)
        bus.publish("s", delta(0))
        await eventually(lambda: any('"offset":0' in text for text in shown))

        workflow.may_answer.clear()
        asked = workflow.asked
        bus.publish("s", TICK)
        await eventually(lambda: workflow.asked > asked)
        # The answer on its way knows nothing of the stop yet.
        log.append(EventType.STOP_REQUESTED, BOT, NOW, turn_id="t1")
        bus.publish("s", HOLD)
        bus.publish("s", delta(1))
        workflow.may_answer.set()
        await eventually(lambda: any("stop.requested" in text for text in shown))
        assert not any('"offset":1' in text for text in shown)
        following.cancel()
    finally:
        await feed.stop()


async def follow(feed: Feed, shown: list[str]) -> None:
    subscription: Subscription = feed.subscribe(feed.tip)
    async for frames in subscription.frames():
        shown.extend(frame.text for frame in frames)


async def test_pages_for_those_who_resume_are_not_kept_without_end(log: SessionLog) -> None:
    workflow = Workflow(log)
    feed, _ = await open_feed(workflow)
    try:
        for after in range(MAX_CACHED_PAGES * 2):
            await feed.page(after)
        assert len(feed._pages) <= MAX_CACHED_PAGES
        asked = workflow.asked
        await asyncio.gather(*(feed.page(10_000) for _ in range(50)))
        assert workflow.asked == asked + 1
    finally:
        await feed.stop()


async def test_who_comes_and_goes_is_told_now_and_then_and_at_last(log: SessionLog) -> None:
    """Each telling goes to everyone and names everyone: one for each arrival would grow with the cube."""
    feed, _ = await open_feed(Workflow(log))
    shown: list[str] = []
    following = asyncio.create_task(follow(feed, shown))
    try:
        await eventually(lambda: feed._following)
        for number in range(200):
            feed.presence.arrive(f"c{number}", Actor(id=f"p{number}", role=Role.USER))
        for number in range(199):
            feed.presence.depart(f"c{number}")
        await eventually(lambda: shown and '"p199"' in shown[-1] and '"p0"' not in shown[-1])
        assert len(shown) <= 2
    finally:
        following.cancel()
        await feed.stop()


async def test_live_text_does_not_enter_a_message_of_another_turn(log: SessionLog) -> None:
    """The log refuses it; on screens it would stand, in the other's name, until the message ends."""
    feed, bus = await open_feed(Workflow(log))
    shown: list[str] = []
    following = asyncio.create_task(follow(feed, shown))
    try:
        await eventually(lambda: feed._following)
        for turn_id in ("t1", "t2"):
            log.append(EventType.TURN_STARTED, BOT, NOW, turn_id=turn_id, data={"attempt": 1})
        log.append(EventType.MESSAGE_STARTED, BOT, NOW, turn_id="t1", message_id="m")
        bus.publish("s", TICK)
        await eventually(lambda: feed.tip == log.tip)
        for writer in ("t2", None, "t1"):
            bus.publish("s", {**delta(0), "turn_id": writer, "wire": f'"by {writer}"'})
        await eventually(lambda: '"by t1"' in shown)
        assert not {'"by t2"', '"by None"'} & set(shown)
    finally:
        following.cancel()
        await feed.stop()
