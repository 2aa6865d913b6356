"""The session's workflow against a real Temporal server; every history a test makes is replayed."""

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle, WorkflowHistory, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Replayer, Worker

from tests.support import anonymous, eventually
from tests.world.replays import replayer_of
from tests.world.temporal import TEMPORAL, TemporalServer
from waystation.models.events import Actor, Item, Publish, Role, Write
from waystation.models.sessions import (
    MAX_PARTICIPANTS,
    MAX_QUEUED_TURNS,
    Membership,
    OnBusy,
    Outcome,
    Release,
    ReplayPage,
    SendMessage,
    Sent,
    SessionLimits,
    Snapshot,
    Spawn,
    Steer,
    Stop,
    TakeOver,
    TurnInput,
    TurnResult,
    Withdraw,
)
from waystation.models.steps import RecordStep, StepRecorded
from waystation.temporal import names
from waystation.temporal.connect import CLEAR_DATA_CONVERTER
from waystation.temporal.messages import RUN_TURN
from waystation.temporal.names import agent_task_queue
from worker import WORKFLOW_RUNNER, WORKFLOWS, build_worker
from workflows.session import AgentSession, SessionInput
from workflows.session.turn import AgentTurn

ADA = Actor(id="ada", role=Role.USER)
OPERATOR = Actor(id="olga", role=Role.OPERATOR)

RunTurn = Callable[[TurnInput], Awaitable[TurnResult]]


class Harness:
    """One session's workflow and agent, on task queues of their own."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self.client, self.task_queue = client, task_queue
        self.announced: list[str] = []
        self.started: list[WorkflowHandle[AgentSession, None]] = []

    async def start(self, agent: str, **limits: Any) -> WorkflowHandle[AgentSession, None]:
        handle = await self.client.start_workflow(
            AgentSession.run,
            SessionInput(agent=agent, limits=SessionLimits(**limits)),
            id=f"s-{uuid.uuid4().hex}",
            task_queue=self.task_queue,
        )
        self.started.append(handle)
        return handle

    async def histories(self) -> AsyncIterator[WorkflowHistory]:
        """What Temporal holds of every workflow that a test has run: sessions and their turns."""
        for session in self.started:
            latest = self.client.get_workflow_handle(session.id)
            yield await latest.fetch_history()
            for turn in {event.turn_id for event in (await replay(latest)).events if event.turn_id}:
                with contextlib.suppress(RPCError):
                    yield await self.client.get_workflow_handle(f"{session.id}/{turn}").fetch_history()


@pytest.fixture(scope="module")
async def ran() -> AsyncIterator[dict[str, list[WorkflowHistory]]]:
    """What each test has run: another worker must be able to take all of it up from the history alone."""
    ran: dict[str, list[WorkflowHistory]] = {}
    yield ran
    # As they are deployed. Temporal's sandbox, in which kept histories are replayed, reads the workflows anew
    # for each: half a minute for all of these.
    every = [history for histories in ran.values() for history in histories]
    deployed = replayer_of(WORKFLOWS, CLEAR_DATA_CONVERTER, WORKFLOW_RUNNER)
    replayed = await deployed.replay_workflows(_each(every), raise_on_replay_failure=False)
    by = {history.run_id: test for test, histories in ran.items() for history in histories}
    assert replayed.replay_failures == {}, [by[run] for run in replayed.replay_failures]


@pytest.fixture
async def harness(
    temporal: Client, request: pytest.FixtureRequest, ran: dict[str, list[WorkflowHistory]]
) -> AsyncIterator[Harness]:
    harness = Harness(temporal, f"test-{uuid.uuid4().hex}")

    async def announce(session_id: str) -> None:
        harness.announced.append(session_id)

    async with build_worker(temporal, announce, task_queue=harness.task_queue):
        yield harness
        histories = ran[request.node.name] = [history async for history in harness.histories()]
    if folder := os.environ.get("WAYSTATION_RECORD_HISTORIES"):
        _record(Path(folder), request.node.name.removeprefix("test_"), histories)


def _record(folder: Path, name: str, histories: list[WorkflowHistory]) -> None:
    for number, history in enumerate(histories):
        (folder / f"{name}-{number}.json").write_text(anonymous(history.to_json()), encoding="utf-8")


async def _each(histories: list[WorkflowHistory]) -> AsyncIterator[WorkflowHistory]:
    for history in histories:
        yield history


def replayer() -> Replayer:
    return replayer_of(WORKFLOWS, CLEAR_DATA_CONVERTER)


@asynccontextmanager
async def agent_of(client: Client, run: RunTurn) -> AsyncIterator[str]:
    name = f"bot-{uuid.uuid4().hex[:8]}"

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(turn: TurnInput) -> TurnResult:
        return await run(turn)

    async with Worker(
        client,
        task_queue=agent_task_queue(name),
        activities=[run_turn],
        # A cancellation comes as the answer to a heartbeat.
        max_heartbeat_throttle_interval=timedelta(milliseconds=200),
    ):
        yield name


def written(
    turn: TurnInput, *items: tuple[str, str | None, dict[str, Any]], attempt: int | None = None
) -> Publish:
    return Publish(
        writes=(
            Write(
                writer=f"{turn.turn_id}-{turn.attempt}",
                actor=Actor(id=turn.agent, role=Role.AGENT),
                turn_id=turn.turn_id,
                attempt=turn.attempt if attempt is None else attempt,
                items=tuple(Item(n=n, type=t, message_id=m, data=d) for n, (t, m, d) in enumerate(items, 1)),
            ),
        )
    )


async def replay(handle: WorkflowHandle[Any, Any], after: int = 0, limit: int = 2000) -> ReplayPage:
    return await handle.query(AgentSession.replay, args=[after, limit])


async def types(handle: WorkflowHandle[Any, Any]) -> list[str]:
    return [event.type for event in (await replay(handle)).events]


async def snapshot(handle: WorkflowHandle[Any, Any]) -> Snapshot:
    return await handle.query(AgentSession.snapshot)


async def send(handle: WorkflowHandle[Any, Any], text: str, **more: Any) -> Sent:
    return await handle.execute_update(AgentSession.send, SendMessage(text=text, actor=ADA, **more))


async def is_idle(handle: WorkflowHandle[Any, Any]) -> bool:
    return (await snapshot(handle)).status == "idle"


HISTORIES = Path(__file__).with_name("histories")


@pytest.mark.parametrize("name", sorted(path.stem for path in HISTORIES.glob("*.json")))
async def test_recorded_histories_still_replay(name: str) -> None:
    """A change that would break sessions which run now fails here; see docs/operations.md.

    Record anew with WAYSTATION_RECORD_HISTORIES=<folder> when a test's history is to be kept.
    """
    history = WorkflowHistory.from_json(name, (HISTORIES / f"{name}.json").read_text(encoding="utf-8"))
    # A session's turns are named after it: replayed under another id it would start other turns.
    started = history.events[0].workflow_execution_started_event_attributes
    await replayer().replay_workflow(WorkflowHistory(started.workflow_id, history.events))


async def test_a_turn_from_message_to_completion(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        await session.signal(
            AgentSession.publish,
            written(
                turn,
                ("message.started", "a", {}),
                ("message.delta", "a", {"offset": 0, "text": "hel"}),
                ("message.delta", "a", {"offset": 3, "text": "lo"}),
                ("message.completed", "a", {}),
            ),
        )
        return TurnResult(outcome="completed", result={"ok": True})

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        sent = await send(handle, "hi")
        await eventually(lambda: is_idle(handle))
        page = await replay(handle)
    assert sent.status == "started"
    assert [(event.seq, event.type) for event in page.events] == [
        (1, "session.started"),
        (2, "message.completed"),
        (3, "turn.started"),
        (7, "message.completed"),
        (8, "turn.completed"),
    ]
    assert page.events[3].data == {"text": "hello", "started": 4}
    assert page.events[4].data == {"attempt": 1, "result": {"ok": True}}
    # The announcement is an activity of its own, which the answer above does not wait for.
    await eventually(lambda: harness.announced)


async def test_stop_ends_the_turn_and_nothing_is_recorded_after_it(harness: Harness) -> None:
    started = asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        await session.signal(
            AgentSession.publish, written(turn, ("message.delta", "a", {"offset": 0, "text": "one"}))
        )
        started.set()
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            late = written(
                turn,
                ("message.delta", "a", {"offset": 0, "text": "one"}),
                ("message.delta", "a", {"offset": 3, "text": " two"}),
                ("data.late", None, {}),
            )
            await session.signal(AgentSession.publish, late)
            return TurnResult(outcome="stopped")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        sent = await send(handle, "hi")
        await started.wait()
        await handle.signal(AgentSession.stop, Stop(request_id="r", actor=ADA))
        await eventually(lambda: is_idle(handle))
        page = await replay(handle)
        outcome = await handle.query(AgentSession.outcome, "r")
        # Fenced: the turn is over, so this changes nothing.
        await handle.signal(
            AgentSession.publish,
            written(
                TurnInput(session_id=handle.id, turn_id=sent.turn_id or "", attempt=1, agent=agent, text=""),
                *[("data.after", None, {})] * 5,
            ),
        )
        after = await replay(handle)
    kinds = [event.type for event in page.events]
    assert kinds[-3:] == ["stop.requested", "message.completed", "turn.stopped"]
    assert page.events[-2].data["text"] == "one two"
    assert page.events[-2].data["finish"] == "stopped"
    assert outcome == Outcome(outcome="stopped", seq=page.events[-1].seq, turn_id=sent.turn_id)
    assert after.tip == page.tip
    assert (await snapshot(handle)).refused >= 5


async def test_a_stop_without_a_running_turn_says_so(harness: Harness) -> None:
    handle = await harness.start("nobody")
    await handle.signal(AgentSession.stop, Stop(request_id="r"))
    assert await handle.query(AgentSession.outcome, "r") == Outcome(outcome="already_finished")


async def test_a_hung_agent_is_stopped_all_the_same(harness: Harness) -> None:
    started = asyncio.Event()
    release = asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        started.set()
        while not release.is_set():
            activity.heartbeat()
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                continue
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent, stop_grace_seconds=1)
        await send(handle, "hi")
        await started.wait()
        await handle.signal(AgentSession.stop)
        await eventually(lambda: is_idle(handle))
        assert (await types(handle))[-1] == "turn.stopped"
        release.set()


async def test_a_failing_agent_fails_its_turn_and_the_next_one_runs(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        if turn.text == "fail":
            raise ApplicationError("no such tool", type="AgentFailed")
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        await send(handle, "fail")
        assert (await send(handle, "again")).status == "queued"
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
    failed = next(event for event in events if event.type == "turn.failed")
    assert failed.data["code"] == "agent_error"
    assert failed.data["detail"] == "no such tool"
    assert events[-1].type == "turn.completed"


async def test_a_turn_remembers_its_steps_for_a_later_attempt_and_takes_none_of_an_earlier_one(
    harness: Harness,
) -> None:
    refused: list[str | None] = []

    async def run(turn: TurnInput) -> TurnResult:
        workflow = harness.client.get_workflow_handle_for(AgentTurn.run, f"{turn.session_id}/{turn.turn_id}")

        async def record(key: str, result: JsonValue, attempt: int = turn.attempt) -> StepRecorded:
            step = RecordStep(attempt=attempt, key=key, result=result)
            return await workflow.execute_update(AgentTurn.record_step, step)

        if turn.attempt == 1:
            assert (await record("a", {"n": 1})).is_first
            assert await record("a", {"n": 2}) == StepRecorded(is_first=False, result={"n": 1})
            raise ApplicationError("try again", type="RetryTurn")
        with pytest.raises(WorkflowUpdateFailedError) as told:
            await record("b", 1, attempt=1)
        assert isinstance(told.value.cause, ApplicationError)
        refused.append(told.value.cause.type)
        for odd in (None, {"attempt": 2, "key": ""}, {"attempt": 2, "key": "k" * 129}):
            with pytest.raises(WorkflowUpdateFailedError):
                await workflow.execute_update("record_step", odd)
        await record("b", "of the second")
        page = await workflow.query(AgentTurn.steps, 0)
        return TurnResult(outcome="completed", result=[[step.key, step.result] for step in page.steps])

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        await send(handle, "hi")
        await eventually(lambda: is_idle(handle))
        end = (await replay(handle)).events[-1]
    assert (end.type, refused) == ("turn.completed", ["TurnOver"])
    assert end.data["result"] == [["a", {"n": 1}], ["b", "of the second"]]


async def test_a_retried_turn_supersedes_and_fences_the_first_attempt(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        message = f"a{turn.attempt}"
        await session.signal(
            AgentSession.publish, written(turn, ("message.delta", message, {"offset": 0, "text": "half"}))
        )
        if turn.attempt == 1:
            raise ApplicationError("try again", type="RetryTurn")
        old = turn.model_copy(update={"attempt": 1})
        await session.signal(
            AgentSession.publish,
            written(old, ("x", None, {}), ("message.delta", "a1", {"offset": 4, "text": "ghost"})),
        )
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        await send(handle, "hi")
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
    kinds = [event.type for event in events]
    assert kinds.count("turn.completed") == 1
    assert "turn.retried" in kinds
    assert "ghost" not in json.dumps([event.data for event in events])
    superseded = next(event for event in events if event.type == "message.superseded")
    assert superseded.message_id == "a1"
    assert [e.data["text"] for e in events if e.type == "message.completed"] == ["hi", "half"]


async def test_an_agent_that_nobody_runs_fails_within_its_bound(harness: Harness) -> None:
    handle = await harness.start("ghost", agent_start_timeout_seconds=1)
    await send(handle, "anyone?")
    await eventually(lambda: is_idle(handle))
    failed = (await replay(handle)).events[-1]
    assert failed.type == "turn.failed"
    assert failed.data["code"] == "agent_unavailable"
    assert "waystation agent" in str(failed.data["detail"])


async def test_on_busy(harness: Harness) -> None:
    running = asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        if turn.text == "long":
            running.set()
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.1)
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        first = await send(handle, "long")
        await running.wait()
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await send(handle, "no", on_busy=OnBusy.REJECT)
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == "SessionBusy"
        steered = await send(handle, "left", on_busy=OnBusy.STEER, message_id="steer-1")
        assert (steered.status, steered.turn_id) == ("steered", first.turn_id)
        queued = await send(handle, "queued")
        urgent = await send(handle, "urgent", on_busy=OnBusy.INTERRUPT)
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
    assert queued.status == urgent.status == "queued"
    ends = [event.turn_id for event in events if event.type in ("turn.completed", "turn.stopped")]
    assert ends[:3] == [first.turn_id, urgent.turn_id, queued.turn_id]
    # The steer that nobody took up became the next message.
    assert await handle.query(AgentSession.outcome, "steer-1") == Outcome(
        outcome="queued", seq=next(e.seq for e in events if e.message_id == "steer-1"), turn_id=ends[3]
    )
    assert "steer.expired" in [event.type for event in events]


async def test_a_message_that_waits_is_withdrawn_and_the_next_one_begins(harness: Harness) -> None:
    running, release = asyncio.Event(), asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        running.set()
        await release.wait()
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        first = await send(handle, "long", message_id="m-1")
        await running.wait()
        queued = [await send(handle, text, message_id=text) for text in ("one", "two", "three")]
        withdraw = Withdraw(message_id="two", actor=OPERATOR)
        withdrawn = await handle.execute_update(AgentSession.withdraw, withdraw)
        again = await handle.execute_update(AgentSession.withdraw, withdraw)
        refusals = []
        for message_id in ("m-1", "unknown"):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await handle.execute_update(AgentSession.withdraw, Withdraw(message_id=message_id, actor=ADA))
            assert isinstance(refused.value.cause, ApplicationError)
            refusals.append(refused.value.cause.type)
        assert (await send(handle, "two", message_id="two")).turn_id == queued[1].turn_id
        release.set()
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
    assert again == withdrawn
    assert refusals == ["NotQueued", "NotQueued"]
    recorded = next(event for event in events if event.seq == withdrawn.seq)
    assert (recorded.type, recorded.message_id, recorded.actor) == ("message.withdrawn", "two", OPERATOR)
    begun = [event.turn_id for event in events if event.type == "turn.started"]
    assert begun == [first.turn_id, queued[0].turn_id, queued[2].turn_id]
    [ended] = [event for event in events if event.type == "turn.stopped"]
    assert (ended.turn_id, ended.data["reason"]) == (queued[1].turn_id, "withdrawn")
    assert not [event for event in events if event.type == "stop.requested"]


async def test_sending_twice_under_one_id_is_once(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        first = await send(handle, "hi", message_id="mine")
        assert await send(handle, "hi", message_id="mine") == first
        await eventually(lambda: is_idle(handle))
        assert (await types(handle)).count("turn.completed") == 1


async def test_a_sub_agent_is_spawned_once_per_key_and_stopped_with_its_parent(harness: Harness) -> None:
    child_runs = asyncio.Event()

    async def child(turn: TurnInput) -> TurnResult:
        if turn.text == "quick":
            return TurnResult(outcome="completed", result="done")
        child_runs.set()
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.1)

    async with agent_of(harness.client, child) as child_name:

        async def parent(turn: TurnInput) -> TurnResult:
            session = harness.client.get_workflow_handle(turn.session_id)
            for key, text in (("one", "quick"), ("one", "quick"), ("two", "slow")):
                spawn = Spawn(parent_turn_id=turn.turn_id, attempt=1, key=key, agent=child_name, text=text)
                await session.execute_update(AgentSession.spawn, spawn)
            await child_runs.wait()
            return TurnResult(outcome="completed")

        async with agent_of(harness.client, parent) as agent:
            handle = await harness.start(agent)
            await send(handle, "go")
            await eventually(lambda: is_idle(handle))
            events = (await replay(handle)).events
    finished = {e.turn_id: e.data["outcome"] for e in events if e.type == "agent.finished"}
    assert finished == {"t1.1": "completed", "t1.2": "stopped"}


@pytest.mark.parametrize("answer", [True, False])
async def test_a_session_with_a_full_queue_is_given_back_without_another_turn(
    harness: Harness, answer: bool
) -> None:
    handle = await harness.start("nobody")
    await handle.execute_update(AgentSession.take_over, TakeOver(operator=OPERATOR))
    for _ in range(MAX_QUEUED_TURNS):
        await send(handle, "hello?")
    release = Release(operator=OPERATOR, note="settled", answer=answer)
    if answer:
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await handle.execute_update(AgentSession.release, release)
        assert isinstance(refused.value.cause, ApplicationError)
        assert refused.value.cause.type == names.QUEUE_FULL
        assert (await snapshot(handle)).status == "paused"
        release = Release(operator=OPERATOR)
    await handle.execute_update(AgentSession.release, release)
    assert (await snapshot(handle)).status == "running"


async def test_a_full_session_is_given_back_without_a_note(harness: Harness) -> None:
    handle = await harness.start("nobody", max_log_bytes=10_000)
    await handle.execute_update(AgentSession.take_over, TakeOver(operator=OPERATOR))
    await handle.execute_update(AgentSession.send, SendMessage(text="x" * 10_000, actor=OPERATOR))
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(AgentSession.release, Release(operator=OPERATOR, note="settled"))
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == names.SESSION_FULL
    await handle.execute_update(AgentSession.release, Release(operator=OPERATOR))
    assert (await snapshot(handle)).taken_over_by is None


async def test_a_person_takes_over_speaks_and_releases(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        await handle.execute_update(AgentSession.take_over, TakeOver(operator=OPERATOR))
        waiting = await send(handle, "is anyone there?")
        assert waiting.status == "queued"
        assert (await snapshot(handle)).status == "paused"
        said = await handle.execute_update(AgentSession.send, SendMessage(text="I am.", actor=OPERATOR))
        assert said.status == "recorded"
        later = await send(handle, "and now?")
        await handle.execute_update(AgentSession.release, TakeOver(operator=OPERATOR))
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(AgentSession.send, SendMessage(text="?", actor=OPERATOR))
    ends = {
        e.turn_id: (e.type, e.actor.id)
        for e in events
        if e.type.startswith("turn.") and e.type != "turn.queued"
    }
    assert ends[waiting.turn_id] == ("turn.completed", "olga")
    assert ends[later.turn_id] == ("turn.completed", agent)


async def test_closing_stops_everything_and_comes_last(harness: Harness) -> None:
    running = asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        running.set()
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.1)

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        await send(handle, "one")
        await send(handle, "two")
        await running.wait()
        await handle.signal(AgentSession.close)
        await handle.result()
        page = await replay(handle)
    assert page.closed
    assert [e.type for e in page.events][-1] == "session.closed"
    assert [e.type for e in page.events].count("turn.stopped") == 2


async def test_continue_as_new_in_the_middle_of_a_turn(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        for n in range(60):
            activity.heartbeat()
            item = Item(n=n + 1, type="message.delta", message_id="a", data={"offset": n, "text": "x"})
            write = Write(
                writer="w",
                actor=Actor(id=turn.agent, role=Role.AGENT),
                turn_id=turn.turn_id,
                attempt=1,
                items=(item,),
            )
            await session.signal(AgentSession.publish, Publish(writes=(write,)))
            await asyncio.sleep(0.1)  # as no run is shorter than SHORTEST_RUN
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent, events_per_run=20)
        await send(handle, "hi")
        handle = harness.client.get_workflow_handle(handle.id)
        await eventually(lambda: is_idle(handle))
        page, view = await replay(handle), await snapshot(handle)
    assert view.runs > 2
    assert [e.data["text"] for e in page.events if e.type == "message.completed"] == ["hi", "x" * 60]
    assert page.events[-1].type == "turn.completed"


def poison(writer: str, *items: Any, role: str = "agent") -> dict[str, Any]:
    return {"writes": [{"writer": writer, "actor": {"id": "x", "role": role}, "items": items}]}


POISON: list[Any] = [
    poison("w", {"n": 1, "type": "turn.completed"}),
    poison("w", role="nobody"),
    {"writes": "?"},
    None,
    "text",
    poison("v", {"n": 1, "type": "message.delta", "message_id": "q", "data": {"offset": True, "text": 5}}),
    poison("v", {"n": 2, "type": "message.delta", "message_id": "q", "data": {"offset": 99, "text": "gap"}}),
    poison("v", {"n": 3, "type": "data.big", "data": {"x": "y" * 70_000}}),
    poison("v", {"n": 4, "type": "message.completed", "message_id": "none"}),
]


async def test_poisoned_signals_never_block_the_session(harness: Harness) -> None:
    handle = await harness.start("nobody")
    for poison in POISON:
        await handle.signal("publish", poison)
    for name in ("stop", "steer", "close", "turn_ended", "turn_attempt", "note"):
        await handle.signal(name, ["poison"])
        await handle.signal(name, args=[1, 2, 3])
    for name in ("send", "leave", "release", "take_over", "join", "spawn"):
        for arguments in ([], [None], [1, 2]):
            with pytest.raises((WorkflowUpdateFailedError, RPCError)):
                await handle.execute_update(name, args=arguments)
    await handle.signal("no-such-signal", 1)
    assert (await snapshot(handle)).status == "idle"
    assert [t for t in await types(handle) if t != "message.started"] == ["session.started"]


async def test_temporals_own_command_line_works(harness: Harness, temporal_server: TemporalServer) -> None:
    handle = await harness.start("nobody")

    async def cli(*args: str) -> str:
        process = await asyncio.create_subprocess_exec(
            TEMPORAL, "workflow", *args, "--workflow-id", handle.id, "--address", temporal_server.address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    steer = json.dumps({"text": "hello", "request_id": "s1"})
    await cli("signal", "--name", "steer", "--input", steer)
    await cli("signal", "--name", "stop")
    await eventually(lambda: is_idle(handle))
    page = await cli("query", "--type", "replay", "--input", "0", "--input", "50", "--output", "json")
    assert "hello" in page
    assert "turn.stopped" in page
    message = json.dumps({"text": "hi", "actor": {"id": "ada", "role": "user"}})
    await cli("update", "execute", "--name", "send", "--input", message)
    assert "session_id" in await cli("query", "--type", "snapshot", "--output", "json")


async def test_what_answers_a_steer_stands_after_it(harness: Harness) -> None:
    """Both may arrive in one batch: their order is the agent's."""

    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        await session.signal(AgentSession.steer, Steer(text="left", actor=ADA, request_id="s1"))
        answer = ("message.completed", "a", {"text": "left it is"})
        consumed = ("steer.consumed", None, {"steer_id": "s1"})
        await session.signal(AgentSession.publish, written(turn, consumed, answer))
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        await send(handle, "go")
        await eventually(lambda: is_idle(handle))
        texts = [e.data["text"] for e in (await replay(handle)).events if e.type == "message.completed"]
    assert texts == ["go", "left", "left it is"]


async def test_an_interrupt_goes_to_the_front_also_while_the_turn_is_stopping(harness: Harness) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        if turn.text == "long":
            started.set()
            while not release.is_set():
                activity.heartbeat()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent, stop_grace_seconds=30)
        await send(handle, "long")
        await started.wait()
        queued = await send(handle, "queued")
        await handle.signal(AgentSession.stop)
        urgent = await send(handle, "urgent", on_busy=OnBusy.INTERRUPT)
        release.set()
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
    begun = [event.turn_id for event in events if event.type == "turn.started"]
    assert begun[1:] == [urgent.turn_id, queued.turn_id]


async def test_a_full_session_stops_what_runs_and_takes_nothing_more(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        messages = [("message.completed", f"m-{n}", {"text": "x" * 1_000}) for n in range(40)]
        for count in range(len(messages)):
            # All so far: what the log has seen, it drops.
            await session.signal(AgentSession.publish, written(turn, *messages[: count + 1]))
            activity.heartbeat()
            await asyncio.sleep(0.01)
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent, max_log_bytes=20_000)
        await send(handle, "write a lot")
        queued = await send(handle, "and then")
        await eventually(lambda: is_idle(handle))
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await send(handle, "more")
        await handle.signal(AgentSession.steer, Steer(text="more", actor=ADA, request_id="s1"))
        events = (await replay(handle)).events
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "SessionFull"
    assert (await handle.query(AgentSession.outcome, "s1")).outcome == "refused"
    assert 15 < sum(event.type == "message.completed" for event in events) < 25
    stops = [event for event in events if event.type == "turn.stopped"]
    assert {stop.data["reason"] for stop in stops} == {"session_full"}
    assert {stop.turn_id for stop in stops} == {"t1", queued.turn_id}


async def test_participants_come_and_go(harness: Harness) -> None:
    handle = await harness.start("nobody")
    joined = await handle.execute_update(AgentSession.join, Membership(participant=ADA))
    assert await handle.execute_update(AgentSession.join, Membership(participant=ADA)) == joined
    assert (await snapshot(handle)).participants == (ADA,)
    await handle.execute_update(AgentSession.leave, Membership(participant=ADA))
    assert (await types(handle))[-2:] == ["participant.joined", "participant.left"]


async def reset(handle: WorkflowHandle[Any, Any], *, signals_too: bool = True) -> None:
    """Resets a session to its first task, as ``temporal workflow reset`` does."""
    client, reapply = handle._client, ResetReapplyExcludeType
    history = await handle.fetch_history()
    first = next(
        event.event_id
        for event in history.events
        if event.HasField("workflow_task_completed_event_attributes")
    )
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=first,
            request_id=uuid.uuid4().hex,
            reason="a test",
            reset_reapply_exclude_types=[]
            if signals_too
            else [reapply.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL, reapply.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE],
        )
    )


async def test_a_turn_that_runs_goes_on_after_its_session_was_reset(harness: Harness) -> None:
    shown, go_on = asyncio.Event(), asyncio.Event()

    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        begin = ("message.delta", "a", {"offset": 0, "text": "one"})
        await session.signal(AgentSession.publish, written(turn, begin))
        shown.set()
        while not go_on.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        end = ("message.delta", "a", {"offset": 3, "text": " two"})
        await session.signal(AgentSession.publish, written(turn, begin, end))
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        session = harness.client.get_workflow_handle((await harness.start(agent)).id)
        await send(session, "hi")
        await shown.wait()
        await eventually(lambda: written_so_far(session))
        before = await replay(session)
        await reset(session)
        await eventually(lambda: written_so_far(session))
        assert [e.type for e in (await replay(session)).events] == [e.type for e in before.events]
        assert [turn.turn_id for turn in (await snapshot(session)).running] == ["t1"]
        go_on.set()
        await eventually(lambda: is_idle(session))
        *_, message, ended = (await replay(session)).events
        assert (message.data["text"], ended.type) == ("one two", "turn.completed")
        await send(session, "again")
        await eventually(lambda: is_idle(session))
        assert (await types(session))[-1] == "turn.completed"


async def test_a_session_that_is_reset_to_before_its_messages_has_the_log_that_it_had(
    harness: Harness,
) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        said = ("message.completed", f"{turn.turn_id}-1", {"text": f"You said {turn.text}."})
        await session.signal(AgentSession.publish, written(turn, said))
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        session = harness.client.get_workflow_handle((await harness.start(agent)).id)
        for text in ("one", "two", "three"):
            await send(session, text)
            await eventually(lambda: is_idle(session))
        before = [(e.seq, e.type, e.message_id, e.data) for e in (await replay(session)).events]
        await reset(session)
        again = [(e.seq, e.type, e.message_id, e.data) for e in (await replay(session)).events]
        assert again == before
        await send(session, "four")
        await eventually(lambda: is_idle(session))
        assert (await replay(session)).events[-2].data["text"] == "You said four."
        await replayer().replay_workflow(await session.fetch_history())


async def written_so_far(session: WorkflowHandle[Any, Any]) -> bool:
    return "message.delta" in await types(session)


async def test_a_session_that_is_reset_without_its_messages_takes_new_ones(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        session = harness.client.get_workflow_handle((await harness.start(agent)).id)
        await send(session, "hi")
        await eventually(lambda: is_idle(session))
        await reset(session, signals_too=False)
        assert await types(session) == ["session.started"]
        assert (await send(session, "again")).turn_id == "t1"
        await eventually(lambda: is_idle(session))
        assert (await types(session))[-1] == "turn.completed"


async def test_a_steer_is_consumed_by_the_running_turn(harness: Harness) -> None:
    async def run(turn: TurnInput) -> TurnResult:
        session = harness.client.get_workflow_handle(turn.session_id)
        steer = Steer(text="left", actor=ADA, request_id="s1")
        await session.signal(AgentSession.steer, steer)
        await session.signal(
            AgentSession.publish, written(turn, ("steer.consumed", None, {"steer_id": "s1"}))
        )
        return TurnResult(outcome="completed")

    async with agent_of(harness.client, run) as agent:
        handle = await harness.start(agent)
        sent = await send(handle, "go")
        await eventually(lambda: is_idle(handle))
        events = (await replay(handle)).events
    consumed = next(e for e in events if e.type == "steer.consumed")
    assert await handle.query(AgentSession.outcome, "s1") == Outcome(
        outcome="consumed", seq=consumed.seq, turn_id=sent.turn_id
    )
    assert next(e for e in events if e.message_id == "s1").data == {"text": "left", "kind": "steer"}


async def test_ids_that_the_session_makes_up_avoid_those_that_others_have_chosen(harness: Harness) -> None:
    handle = await harness.start("nobody")
    chosen = [await send(handle, "mine", message_id=f"m{number}") for number in (20, 21)]
    given = [await send(handle, "yours") for _ in range(15)]
    assert len({sent.message_id for sent in (*chosen, *given)}) == len(chosen) + len(given)
    await handle.signal(AgentSession.stop, Stop(turn_id="another", request_id="r1"))
    # Without an id, as Temporal's own command line sends it.
    await handle.signal("stop")
    assert [turn.status for turn in (await snapshot(handle)).running if turn.turn_id == "t1"] != ["running"]
    await handle.signal("steer", {"text": "one more"})
    assert sum(event.data.get("text") == "one more" for event in (await replay(handle)).events) == 1


async def test_nothing_is_taken_after_the_session_has_closed(temporal: Client) -> None:
    """Also not what arrives in the same moment, before Temporal knows that it is over."""
    task_queue = f"test-{uuid.uuid4().hex}"
    handle = await temporal.start_workflow(
        AgentSession.run, SessionInput(agent="nobody"), id=f"s-{uuid.uuid4().hex}", task_queue=task_queue
    )
    late = Write(
        writer="cron",
        actor=Actor(id="cron", role=Role.AGENT),
        items=(Item(n=1, type="message.completed", message_id="late", data={"text": "late"}),),
    )
    await handle.signal(AgentSession.close)
    await handle.signal(AgentSession.publish, Publish(writes=(late,)))

    async def announce(session_id: str) -> None:
        pass

    async with build_worker(temporal, announce, task_queue=task_queue):
        await handle.result()
        assert await types(handle) == ["session.started", "session.closed"]
        history = await handle.fetch_history()
    await replayer().replay_workflow(history)


async def test_a_full_session_grows_by_no_other_way_either(harness: Harness) -> None:
    handle = await harness.start("nobody", max_log_bytes=10_000)
    await send(handle, "go")
    for number in range(30):
        await handle.signal(
            AgentSession.steer, Steer(text="x" * 1_000, actor=ADA, request_id=f"steer-{number}")
        )
    assert (await handle.query(AgentSession.outcome, "steer-0")).outcome == "pending"
    assert (await handle.query(AgentSession.outcome, "steer-29")).outcome == "refused"
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update(AgentSession.join, Membership(participant=ADA))
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "SessionFull"
    cron = Write(
        writer="cron",
        actor=Actor(id="cron", role=Role.AGENT),
        items=tuple(Item(n=n, type="data.x", data={"text": "x" * 1_000}) for n in range(1, 30)),
    )
    await handle.signal(AgentSession.publish, Publish(writes=(cron,)))
    assert sum(len(event.to_wire()) for event in (await replay(handle)).events) < 15_000


async def test_as_many_steers_wait_as_turns(harness: Harness) -> None:
    handle = await harness.start("nobody")
    await send(handle, "go")
    for number in range(MAX_QUEUED_TURNS + 1):
        await handle.signal(AgentSession.steer, Steer(text="x", actor=ADA, request_id=f"steer-{number}"))
    last = await handle.query(AgentSession.outcome, f"steer-{MAX_QUEUED_TURNS}")
    assert (last.outcome, last.detail) == ("refused", f"{MAX_QUEUED_TURNS} turns are waiting.")


async def test_joining_again_is_harmless_also_where_no_one_else_may(harness: Harness) -> None:
    handle = await harness.start("nobody")
    for number in range(MAX_PARTICIPANTS):
        person = Actor(id=f"p{number}", role=Role.USER)
        joined = await handle.execute_update(AgentSession.join, Membership(participant=person))
    assert await handle.execute_update(AgentSession.join, Membership(participant=person)) == joined
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update(AgentSession.join, Membership(participant=ADA))


NOT_A_RESULT: dict[str, Any] = {
    "another outcome": {"outcome": "finished"},
    "no object": [1, 2],
    "nothing": None,
    "too deep": {"outcome": "completed", "result": json.loads("[" * 150 + "]" * 150)},
}


@pytest.mark.parametrize("answer", NOT_A_RESULT)
async def test_an_agent_that_returns_what_is_no_result_fails_its_turn(harness: Harness, answer: str) -> None:
    """An agent in another language may return anything; that must not hold up the session."""
    name = f"odd-{uuid.uuid4().hex[:8]}"

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(turn: dict[str, Any]) -> Any:
        return NOT_A_RESULT[answer]

    async with Worker(harness.client, task_queue=agent_task_queue(name), activities=[run_turn]):
        handle = await harness.start(name)
        await send(handle, "hi")
        await eventually(lambda: is_idle(handle))
        failed = (await replay(handle)).events[-1]
    assert (failed.type, failed.data["code"]) == ("turn.failed", "agent_error")
    assert "is no result of a turn" in str(failed.data["detail"])


async def _endless(turn: TurnInput) -> TurnResult:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.1)


async def test_a_turn_whose_workflow_was_terminated_ends_as_lost(harness: Harness) -> None:
    async with agent_of(harness.client, _endless) as agent:
        handle = await harness.start(agent)
        sent = await send(handle, "hi")
        turn = harness.client.get_workflow_handle(f"{handle.id}/{sent.turn_id}")
        await eventually(lambda: exists(turn))
        await turn.terminate("somebody tidied up")
        await eventually(lambda: is_idle(handle))
        lost = (await replay(handle)).events[-1]
    assert (lost.type, lost.data["code"]) == ("turn.failed", "turn_lost")


async def exists(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError:
        return False
    return True


async def has_continued(handle: WorkflowHandle[Any, Any]) -> bool:
    return (await snapshot(handle)).runs > 1


async def test_a_turn_that_was_lost_by_an_earlier_run_can_be_stopped_and_the_session_closed(
    harness: Harness,
) -> None:
    async with agent_of(harness.client, _endless) as agent:
        handle = await harness.start(agent, events_per_run=10)
        sent = await send(handle, "hi")
        turn = harness.client.get_workflow_handle(f"{handle.id}/{sent.turn_id}")
        for person in range(20):
            await handle.execute_update(
                AgentSession.join, Membership(participant=Actor(id=f"p{person}", role=Role.USER))
            )
        await eventually(lambda: has_continued(handle))
        await turn.terminate("somebody tidied up")
        await handle.signal(AgentSession.close)
        await handle.result()
        kinds = await types(handle)
    assert kinds[-2:] == ["turn.stopped", "session.closed"]


async def test_canceling_a_session_in_temporal_closes_it_properly(harness: Harness) -> None:
    async with agent_of(harness.client, _endless) as agent:
        handle = await harness.start(agent)
        await send(handle, "hi")
        await handle.cancel()
        await handle.result()
        kinds = await types(handle)
    assert kinds[-2:] == ["turn.stopped", "session.closed"]


async def test_a_turn_waits_for_an_agent_that_has_run_before(harness: Harness) -> None:
    """A deploy that takes longer than a first start may is no reason to fail what people have asked."""

    async def run(turn: TurnInput) -> TurnResult:
        return TurnResult(outcome="completed", result=turn.attempt)

    name = f"bot-{uuid.uuid4().hex[:8]}"

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(turn: TurnInput) -> TurnResult:
        return await run(turn)

    def agent() -> Worker:
        return Worker(harness.client, task_queue=agent_task_queue(name), activities=[run_turn])

    handle = await harness.start(name, agent_start_timeout_seconds=2)
    async with agent():
        await send(handle, "first")
        await eventually(lambda: is_idle(handle))
    await send(handle, "while nobody is there")

    async def said() -> bool:
        return "turn.retried" in await types(handle)

    await eventually(said)
    waiting = (await replay(handle)).events[-1]
    assert waiting.data["code"] == "agent_unavailable"
    async with agent():
        await eventually(lambda: is_idle(handle))
        end = (await replay(handle)).events[-1]
    assert (end.type, end.data["result"]) == ("turn.completed", 2)
