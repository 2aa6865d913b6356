"""A feed's own bounds and races, with the workflow's answers played."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.errors import Invalid
from api.live.bus import MemoryBus
from api.live.feed import MAX_CACHED_PAGES, Feed
from api.live.subscription import Subscription
from tests.support import eventually
from waystation.models.events import Actor, EventType, Role
from waystation.models.live import Delta, NotStopped, Stopped, Stopping, Tick
from waystation.models.questions import OpenQuestion, QuestionKind
from waystation.models.sessions import LogPosition, LogReading, ReplayPage, SessionStatus, Snapshot
from waystation.settings import Settings
from workflows.session.log import SessionLog

BOT = Actor(id="bot", role=Role.AGENT)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Workflow:
    """A session's log that answers when it is let."""

    def __init__(self, log: SessionLog) -> None:
        self.log = log
        self.asked = 0
        self.questions: tuple[OpenQuestion, ...] = ()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def snapshot(self, session_id: str) -> Snapshot:
        return Snapshot(
            session_id=session_id, agent="bot", status=SessionStatus.IDLE, tip=self.log.tip, created=NOW,
            questions=self.questions,
        )  # fmt: skip

    async def replay(self, session_id: str, after: int, limit: int) -> ReplayPage:
        return (await self.read(session_id, LogPosition(after=after, limit=limit))).page

    async def read(self, session_id: str, position: LogPosition) -> LogReading:
        self.asked += 1
        reading = LogReading(
            page=self.log.replay(position.after, position.limit),
            receipts={writer: self.log.receipt(writer) for writer in position.writers},
        )
        await self.may_answer.wait()
        return reading


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


def delta(offset: int) -> Delta:
    wire = f'{{"type":"message.delta","offset":{offset}}}'
    return Delta(turn_id="t1", attempt=1, message_id="m", offset=offset, length=1, wire=wire.encode())


@asynccontextmanager
async def running_turn(log: SessionLog) -> AsyncIterator[tuple[Workflow, Feed, MemoryBus, list[str]]]:
    """A feed that knows of a running turn, and what a client of it is shown."""
    workflow = Workflow(log)
    feed, bus = await open_feed(workflow)
    shown: list[str] = []
    log.append(EventType.TURN_STARTED, BOT, NOW, turn_id="t1", data={"attempt": 1})
    bus.publish("s", Tick())
    following = None
    try:
        await eventually(lambda: feed.tip == log.tip)
        following = asyncio.create_task(follow(feed, shown))
        await eventually(lambda: len(feed.audience))
        yield workflow, feed, bus, shown
    finally:
        if following:
            following.cancel()
        await feed.stop()


def live(shown: list[str]) -> list[int]:
    """The offsets of the deltas that were shown, in order."""
    return [json.loads(text)["offset"] for text in shown if '"offset"' in text]


async def test_after_a_reset_a_feed_reads_the_log_as_it_is_and_clients_start_over(
    log: SessionLog,
) -> None:
    async with running_turn(log) as (workflow, feed, bus, shown):
        workflow.log = SessionLog()
        workflow.log.append(EventType.SESSION_STARTED, BOT, NOW)
        bus.publish("s", Tick())
        await eventually(lambda: not len(feed.audience))
        assert (feed.tip, feed.heading) == (1, 1)
        with pytest.raises(Invalid):
            feed.subscribe(2, staff=True)
        following = asyncio.create_task(follow(feed, shown))
        workflow.log.append(EventType.TURN_STARTED, BOT, NOW, turn_id="t9", data={"attempt": 1})
        bus.publish("s", Tick())
        await eventually(lambda: any('"t9"' in text for text in shown))
        following.cancel()


@pytest.mark.parametrize("asked_before", [True, False])
async def test_what_expires_is_read_though_nobody_tells_of_it(log: SessionLog, asked_before: bool) -> None:
    """Also where the workflow is late by a moment."""
    deadline = datetime.now(UTC) + timedelta(seconds=0.3)
    workflow = Workflow(log)
    if asked_before:
        asked = OpenQuestion(
            question_id="q", kind=QuestionKind.QUESTION, seq=1, digest="d", deadline=deadline
        )
        workflow.questions = (asked,)
    feed, bus = await open_feed(workflow)
    if not asked_before:
        data = {"question_id": "q", "deadline": deadline.isoformat()}
        log.append(EventType.INPUT_REQUESTED, BOT, NOW, data=data)
        bus.publish("s", Tick())
    await eventually(lambda: feed.tip == log.tip)
    read = workflow.asked
    await eventually(lambda: workflow.asked > read, what="it was read after the deadline")
    log.append(EventType.INPUT_EXPIRED, BOT, NOW, data={"question_id": "q"})
    await eventually(lambda: feed.tip == log.tip, within=10, what="it has expired")
    await eventually(lambda: feed._expiring is None, what="nothing else is looked for")
    await feed.stop()


async def test_a_read_that_began_before_the_stop_lets_nothing_through_after_it(log: SessionLog) -> None:
    async with running_turn(log) as (workflow, _, bus, shown):
        bus.publish("s", delta(0))
        await eventually(lambda: live(shown) == [0])

        workflow.may_answer.clear()
        asked = workflow.asked
        bus.publish("s", Tick())
        await eventually(lambda: workflow.asked > asked)
        # The answer on its way knows nothing of the stop yet.
        log.append(EventType.STOP_REQUESTED, BOT, NOW, turn_id="t1")
        bus.publish("s", Stopped("1"))
        bus.publish("s", delta(1))
        workflow.may_answer.set()
        await eventually(lambda: any("stop.requested" in text for text in shown))
        assert live(shown) == [0]


async def test_who_has_read_of_a_stop_before_the_feed_is_shown_nothing_after_it(log: SessionLog) -> None:
    async with running_turn(log) as (_, feed, bus, _):
        log.append(EventType.STOP_REQUESTED, BOT, NOW, turn_id="t1")
        late: list[str] = []
        following = asyncio.create_task(follow(feed, late, after=0))
        await eventually(lambda: any("stop.requested" in text for text in late))
        bus.publish("s", delta(0))
        bus.publish("s", Tick())
        await eventually(lambda: len(feed.audience) == 2 and feed.tip == log.tip)
        assert live(late) == []
        following.cancel()


async def test_screens_stand_still_from_the_request_to_stop_on(log: SessionLog) -> None:
    """Before Temporal has taken it; should it not, everything held back is shown after all."""
    async with running_turn(log) as (workflow, feed, bus, shown):
        asked = workflow.asked
        bus.publish("s", Stopping("1"))
        bus.publish("s", Stopping("2"))
        bus.publish("s", delta(0))
        bus.publish("s", NotStopped("1"))
        bus.publish("s", delta(1))
        # A stop that nobody has taken yet is not in the log, so it isn't looked for there.
        assert (feed.holds.waiting, feed._urgent.is_set(), workflow.asked) == (2, False, asked)
        bus.publish("s", NotStopped("2"))
        bus.publish("s", delta(2))
        await eventually(lambda: live(shown) == [0, 1, 2])

        bus.publish("s", Stopping("3"))
        bus.publish("s", delta(3))
        log.append(EventType.STOP_REQUESTED, BOT, NOW, turn_id="t1")
        bus.publish("s", Stopped("3"))
        bus.publish("s", delta(4))
        await eventually(lambda: any("stop.requested" in text for text in shown))
        await eventually(lambda: not feed.holds.waiting)
        assert live(shown) == [0, 1, 2]


async def test_a_stop_of_which_nothing_more_is_heard_holds_nothing_back_for_long(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.live.holds.MAX_STOPPING_SECONDS", 0.2)
    async with running_turn(log) as (_, feed, bus, shown):
        bus.publish("s", Stopping("1"))
        bus.publish("s", delta(0))
        assert feed.holds.waiting == 1
        await eventually(lambda: live(shown) == [0])


async def follow(feed: Feed, shown: list[str], *, after: int | None = None) -> None:
    subscription: Subscription = feed.subscribe(feed.tip if after is None else after, staff=True)
    async for frames in subscription.frames():
        shown.extend(text for frame in frames for text in frame.texts)


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


async def test_a_feed_that_stops_while_it_waits_leaves_no_task_behind(log: SessionLog) -> None:
    before = asyncio.all_tasks()
    feed, _ = await open_feed(Workflow(log))
    await eventually(lambda: len(asyncio.all_tasks() - before) >= 3)  # the reader, and what it waits for
    await feed.stop()
    await asyncio.sleep(0)
    assert not asyncio.all_tasks() - before


async def test_who_comes_and_goes_is_told_now_and_then_and_at_last(log: SessionLog) -> None:
    """Each telling goes to everyone and names everyone: one for each arrival would grow with the cube."""
    feed, _ = await open_feed(Workflow(log))
    shown: list[str] = []
    following = asyncio.create_task(follow(feed, shown))
    try:
        await eventually(lambda: len(feed.audience))
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
        await eventually(lambda: len(feed.audience))
        for turn_id in ("t1", "t2"):
            log.append(EventType.TURN_STARTED, BOT, NOW, turn_id=turn_id, data={"attempt": 1})
        log.append(EventType.MESSAGE_STARTED, BOT, NOW, turn_id="t1", message_id="m")
        bus.publish("s", Tick())
        await eventually(lambda: feed.tip == log.tip)
        for writer in ("t2", None, "t1"):
            bus.publish("s", dataclasses.replace(delta(0), turn_id=writer, wire=f'"by {writer}"'.encode()))
        await eventually(lambda: '"by t1"' in shown)
        assert not {'"by t2"', '"by None"'} & set(shown)
    finally:
        following.cancel()
        await feed.stop()
