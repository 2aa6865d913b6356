"""Processes killed with kill -9 in the middle of an answer, each with its own stack."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.service import RPCError, RPCStatusCode

from tests.api.attending import attending
from tests.support import PATIENCE_SECONDS, eventually, free_port
from tests.world.redis import NO_REDIS, REDIS, running_redis
from tests.world.stack import KEYS, Stack, running_stack
from tests.world.temporal import running_temporal
from waystation.agents.demo import TEXT
from waystation.client import Client, Session
from waystation.client.transcript import Transcript
from waystation.errors import ConnectionLost, TryLater
from waystation.models.events import TERMINAL_TURN_TYPES, Actor, Event, EventType, LiveDelta, Role
from waystation.models.sessions import SendMessage
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec
from waystation.temporal.names import turn_workflow_id
from workflows.session import AgentSession

Answer = TypeVar("Answer")
LIMITS = {"limits__agent_heartbeat_timeout_seconds": 4}
"""So soon a killed agent is missed; one that is only slow, on a busy machine, must not be."""


def words(count: int) -> str:
    source = TEXT.split()
    return "".join(f"{source[number % len(source)]} " for number in range(count))


class Watcher:
    """A client that writes down everything it is given."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.seen: list[Event | LiveDelta] = []
        self.arrived: list[float] = []
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for event in self.session.events():
            self.seen.append(event)
            self.arrived.append(time.monotonic())

    @property
    def durable(self) -> list[Event]:
        return [event for event in self.seen if isinstance(event, Event)]

    def text(self) -> str:
        return "".join(message.text for message in self.session.transcript if message.actor.role == "agent")

    def shown_live(self) -> int:
        """How many characters came live."""
        return sum(len(str(event.data["text"])) for event in self.seen if isinstance(event, LiveDelta))

    async def until(self, kind: str, within: float = 40.0) -> Event:
        def found() -> Event | None:
            failed = [event for event in self.durable if event.type == EventType.TURN_FAILED != kind]
            assert not failed, f"waiting for {kind}: {failed[0].data}"
            return next((event for event in self.durable if event.type == kind), None)

        event = await eventually(
            found, within=within, what=f"{kind}; seen {[e.type for e in self.durable][-8:]}"
        )
        assert isinstance(event, Event)
        return event

    async def until_text(self, characters: int) -> None:
        await eventually(lambda: len(self.text()) >= characters, what=f"{characters} characters")

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def patiently(call: Callable[[], Awaitable[Answer]], within: float = 20.0) -> Answer:
    """Asks again while something that was killed is not quite back."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await call()
        except (TryLater, ConnectionLost):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def refusal_of(call: Awaitable[object]) -> TryLater | None:
    try:
        await call
    except TryLater as refused:
        return refused
    return None


async def truth(session: Session) -> tuple[Transcript, list[Event]]:
    """What the workflow holds."""
    transcript, events, after, more = Transcript(), [], 0, True
    while more:
        page = await patiently(functools.partial(session.replay, after=after))
        for event in page.events:
            transcript.apply(event)
            events.append(event)
        after, more = page.next_after, page.more
    return transcript, events


async def check(watchers: list[Watcher], session: Session) -> list[Event]:
    """Every client shows what the workflow holds; numbers once each; one terminal event a turn."""
    transcript, events = await truth(session)
    expected = [(message.id, message.text, message.status) for message in transcript]
    for watcher in watchers:
        await eventually(
            lambda w=watcher: w.session.transcript.cursor >= transcript.cursor,
            what="the client has caught up",
        )
        shown = [(message.id, message.text, message.status) for message in watcher.session.transcript]
        assert shown == expected
        seqs = [event.seq for event in watcher.durable]
        assert seqs == sorted(set(seqs))
    turns = {event.turn_id for event in events if event.type == EventType.TURN_STARTED}
    for turn in turns:
        assert len([e for e in events if e.turn_id == turn and e.type in TERMINAL_TURN_TYPES]) == 1
    return events


@pytest.fixture(scope="module")
async def durable(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack that tests may kill, with Temporal's state in a file."""
    folder = tmp_path_factory.mktemp("durable")
    async with (
        running_temporal(folder, durable=True) as temporal,
        running_stack(folder, temporal, **LIMITS) as stack,
    ):
        yield stack


@pytest.fixture
async def own(durable: Stack) -> Stack:
    """The same, whole again after whatever the last test did to it."""
    for process in (durable.temporal, *durable.processes):
        if process.ended:
            process.start()
    await durable.ready()
    return durable


@asynccontextmanager
async def api_settings(stack: Stack, **settings: str) -> AsyncIterator[None]:
    """Other settings for the API: it gives the limits to the sessions that it starts."""
    api = stack.processes[0]
    normal = api.env
    for env in ({**normal, **settings}, normal):
        api.kill()
        api.env = env
        api.start()
        await stack.ready()
        if env is not normal:
            yield


async def begin(
    client: Client, message: str, *, watchers: int = 2, **more: Any
) -> tuple[Session, list[Watcher]]:
    session = await client.start("demo", **more)
    watching = [Watcher(client.attach(session.id)) for _ in range(watchers)]
    await session.send(message)
    return session, watching


async def test_the_agents_process_is_killed(own: Stack) -> None:
    async with own.client() as client:
        session, watchers = await begin(client, "tokens=400 rate=100")
        await watchers[0].until("message.started")
        await watchers[0].until_text(200)
        agent = own.processes[2]
        agent.kill()
        agent.start()
        await watchers[0].until("turn.completed")
        events = await check(watchers, session)
        kinds = [event.type for event in events]
        assert kinds.count("turn.retried") == 1
        assert kinds.count("message.superseded") == 1
        assert watchers[0].text() == words(400)
        for watcher in watchers:
            await watcher.stop()


@pytest.mark.thorough
async def test_the_agent_dies_for_good(own: Stack) -> None:
    """No process ever comes back: the turn fails within its bound and says how to start one."""
    agent = own.processes[2]
    settings = {
        "WAYSTATION_LIMITS__AGENT_START_TIMEOUT_SECONDS": "2",
        "WAYSTATION_LIMITS__AGENT_RETURN_TIMEOUT_SECONDS": "3",
    }
    async with api_settings(own, **settings), own.client() as client:
        session, watchers = await begin(client, "tokens=500 rate=100", watchers=1)
        await watchers[0].until_text(100)
        agent.kill()
        failed = await watchers[0].until("turn.failed")
        assert failed.data["code"] == "agent_unavailable"
        assert "waystation agent" in str(failed.data["detail"])
        await check(watchers, session)
        assert (await session.snapshot()).status == "idle"
        await watchers[0].stop()


@pytest.mark.thorough
async def test_the_worker_is_killed(own: Stack) -> None:
    async with own.client() as client:
        session, watchers = await begin(client, "tokens=500 rate=100")
        await watchers[0].until_text(300)
        worker = own.processes[1]
        worker.kill()
        before = len(watchers[0].text())
        # Live text needs no worker.
        await watchers[0].until_text(before + 200)
        worker.start()
        await watchers[0].until("turn.completed")
        await check(watchers, session)
        assert watchers[1].text() == words(500)
        assert len([m for m in watchers[0].session.transcript if m.status == "superseded"]) == 0
        for watcher in watchers:
            await watcher.stop()


@pytest.mark.thorough
async def test_the_api_is_killed(own: Stack) -> None:
    async with own.client() as client:
        session, watchers = await begin(client, "tokens=400 rate=100")
        api = own.processes[0]
        for characters in (200, 600):
            await watchers[0].until_text(characters)
            api.kill()
            api.start()
        await watchers[0].until("turn.completed")
        await check(watchers, session)
        assert watchers[0].text() == watchers[1].text() == words(400)
        assert "turn.retried" not in [event.type for event in watchers[0].durable]
        for watcher in watchers:
            await watcher.stop()


async def test_a_turn_that_begins_while_the_api_is_away_waits_for_it(own: Stack) -> None:
    """What an agent needs before its own code begins is no failure of the agent's."""
    converter = encrypting_data_converter(encryption_codec([own.encryption_key]))
    temporal = await open_client(own.temporal.address, data_converter=converter)
    async with own.client() as client:
        session = await client.start("demo")
        api = own.processes[0]
        api.kill()
        wish = SendMessage(text="tokens=50 rate=0", actor=Actor(role=Role.USER, id="ada"))
        handle = temporal.get_workflow_handle_for(AgentSession.run, session.id)
        sent = await handle.execute_update(AgentSession.send, wish)
        turn = temporal.get_workflow_handle(turn_workflow_id(session.id, str(sent.turn_id)))

        async def begun() -> bool:
            try:
                pending = (await turn.describe()).raw_description.pending_activities
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                return False  # the session starts it in a moment
            return [one.state for one in pending] == [PendingActivityState.PENDING_ACTIVITY_STATE_STARTED]

        await eventually(begun, what="the agent has taken up the turn")
        api.start()
        await own.ready()
        watcher = Watcher(client.attach(session.id))
        await watcher.until("turn.completed")
        assert watcher.text() == words(50)
        assert "turn.retried" not in [event.type for event in await check([watcher], session)]
        await watcher.stop()


@pytest.mark.thorough
async def test_temporal_is_killed(own: Stack) -> None:
    """Requests fail with 503, agents keep what they write, and all of it arrives."""
    async with own.client() as client:
        session, watchers = await begin(client, "tokens=500 rate=100")
        await watchers[0].until_text(300)
        own.temporal.kill()
        before = len(watchers[0].text())
        with pytest.raises(TryLater) as refused:
            await session.send("still there?")
        assert (refused.value.status, refused.value.retry_after_seconds) == (503, 2.0)
        # What is written goes on to the screens while Temporal is away.
        await watchers[0].until_text(before + 200)
        own.temporal.start()
        await watchers[0].until("turn.completed", within=60)
        await check(watchers, session)
        final = [
            m for m in watchers[0].session.transcript if m.status == "completed" and m.actor.role == "agent"
        ]
        assert "".join(message.text for message in final) == words(500)
        for watcher in watchers:
            await watcher.stop()


async def test_everything_is_killed_at_once(own: Stack) -> None:
    async with own.client() as client:
        session, watchers = await begin(client, "tokens=400 rate=100")
        await watchers[0].until_text(300)
        for process in (*own.processes, own.temporal):
            process.kill()
        own.temporal.start()
        await (
            own.temporal.ready()
        )  # without it a worker or an agent ends, and whoever looks after it starts it again
        for process in own.processes:
            process.start()
        await watchers[0].until("turn.completed", within=60)
        await check(watchers, session)
        assert watchers[0].text() == watchers[1].text() == words(400)
        for watcher in watchers:
            await watcher.stop()


@pytest.mark.slow
async def test_more_is_written_than_is_buffered_while_temporal_is_away(own: Stack) -> None:
    """The agent waits, so that no buffer grows without end; all of it arrives once Temporal is back."""
    async with own.client() as client:
        session, watchers = await begin(client, "tokens=15000 rate=0", watchers=1)
        watcher = watchers[0]
        await watcher.until_text(500)
        own.temporal.kill()
        whole = words(15_000)
        unchanged, length = 0, 0

        def waits() -> bool:
            nonlocal unchanged, length
            unchanged = unchanged + 1 if len(watcher.text()) == length else 0
            length = len(watcher.text())
            return unchanged >= 100

        await eventually(waits, what="the agent has stopped writing")
        assert length < len(whole)
        own.temporal.start()
        await watcher.until("turn.completed", within=60)
        await check(watchers, session)
        assert watcher.text() == whole
        await watcher.stop()


@pytest.mark.thorough
async def test_continue_as_new_under_load_without_a_client_noticing(own: Stack) -> None:
    settings = {"WAYSTATION_LIMITS__EVENTS_PER_RUN": "15", "WAYSTATION_DURABLE_INTERVAL_MS": "20"}
    async with api_settings(own, **settings), own.client() as client:
        session, watchers = await begin(client, "tokens=500 rate=100", watchers=3)
        await watchers[0].until("turn.completed")
        await check(watchers, session)
        assert watchers[0].text() == words(500)
        assert (await session.snapshot()).runs >= 3
        for watcher in watchers:
            await watcher.stop()


@pytest.mark.slow
async def test_clients_that_go_on_sending_keep_no_session_from_going_on(own: Stack) -> None:
    """The queue is full, run follows run, and every refusal says when to try again."""
    senders, turns_under_pressure = 20, 8
    full = asyncio.Event()
    enough = asyncio.Event()

    async def send_on(session: Session) -> None:
        """Sends as fast as it is allowed to."""
        while not enough.is_set():
            refused = await refusal_of(session.send("tokens=2 rate=0"))
            if refused is None:
                continue
            assert refused.code in ("queue-full", "busy", "no-worker", "temporal-unavailable")
            assert refused.retry_after_seconds
            if refused.code == "queue-full":
                full.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), refused.retry_after_seconds)

    async with api_settings(own, WAYSTATION_LIMITS__EVENTS_PER_RUN="80"), own.client() as client:
        # Until the queue is full; turns that go on meanwhile may keep pace with what a busy machine sends.
        session, watchers = await begin(client, "tokens=100000 rate=10")
        sending = [asyncio.create_task(send_on(client.attach(session.id))) for _ in range(senders)]

        def ended() -> int:
            return sum(event.type == EventType.TURN_COMPLETED for event in watchers[0].durable)

        def failed() -> bool:
            return any(task.done() for task in sending) or any(watcher.task.done() for watcher in watchers)

        await eventually(lambda: full.is_set() or failed(), within=120, what="the queue is full")
        await patiently(session.stop)
        before = ended()
        runs = (await patiently(session.snapshot)).runs
        await eventually(
            lambda: ended() >= before + turns_under_pressure or failed(), within=60, what="turns go on"
        )
        assert not any(watcher.task.done() for watcher in watchers), "a stream ended before its session"
        enough.set()
        await asyncio.gather(*sending)
        assert (await patiently(session.snapshot)).runs > runs
        await patiently(session.close)
        # What ran is being stopped; the streams end with the session.
        await asyncio.wait_for(asyncio.gather(*(watcher.task for watcher in watchers)), PATIENCE_SECONDS)
        await check(watchers, session)


@pytest.mark.thorough
@pytest.mark.skipif(REDIS is None, reason=NO_REDIS)
async def test_two_apis_with_redis_which_is_killed_and_comes_back(tmp_path: Path) -> None:
    # Of its own: two stacks on one server would share the workers' task queue, and not the keys.
    async with running_temporal(tmp_path) as temporal:
        with (
            running_redis(tmp_path) as redis,
            Stack(tmp_path, temporal, redis_url=redis.url, **LIMITS) as stack,
        ):
            stack.run_api()
            second = free_port()
            stack.run_api(second)
            stack.run_worker()
            stack.run_agent(port=second)
            await stack.ready()
            await stack.ready(second)
            async with stack.client() as client:
                # The client is on the first API, the agent on the second.
                session, watchers = await begin(client, "tokens=100 rate=50", watchers=1)
                await watchers[0].until("turn.completed")
                assert watchers[0].shown_live() > len(words(100)) / 2, "text comes live from the other API"
                await check(watchers, session)
                await watchers[0].stop()
                # So does what waits for somebody.
                async with (
                    attending(stack.url, KEYS["operator"]) as page,
                    stack.client("agent", second) as agents,
                ):
                    question = {"question_id": "q", "prompt": "Which?"}
                    item = {"n": 1, "type": "input.requested", "data": question}
                    await agents.attach(session.id).write("asker", [item])
                    await page.shows(session.id, "question")
                redis.kill()
                session, watchers = await begin(client, "tokens=200 rate=50", watchers=1)
                await watchers[0].until_text(200)
                redis.start()
                await watchers[0].until("turn.completed")
                await check(watchers, session)
                assert watchers[0].text() == words(200)
                await watchers[0].stop()
                await stack.ready()
                await stack.ready(second)
                session, watchers = await begin(client, "tokens=100 rate=50", watchers=1)
                await watchers[0].until("turn.completed")
                assert watchers[0].shown_live() > len(words(100)) / 2, "and live again once Redis is back"
                await watchers[0].stop()
