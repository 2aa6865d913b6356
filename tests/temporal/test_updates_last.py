"""One order of a task's commands, however it is handed over; see ``waystation.temporal.updates_last``."""

import asyncio
import uuid
from datetime import timedelta
from itertools import permutations
from typing import Any, cast

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.bridge.proto.workflow_activation import (
    DoUpdate,
    FireTimer,
    InitializeWorkflow,
    ResolveActivity,
    SignalWorkflow,
    WorkflowActivation,
    WorkflowActivationJob,
)
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.converter import DataConverter, StorageDriverStoreContext
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowInstance,
    WorkflowRunner,
)
from temporalio.workflow import Info

from tests.support import eventually
from tests.temporal.support import until_admitted
from tests.torture.proxy import Proxy
from tests.world.replays import replayer_of
from waystation.temporal.connect import open_client
from waystation.temporal.names import RUN_HAS_ENDED
from waystation.temporal.updates_last import UpdatesLast

PLAIN = UnsandboxedWorkflowRunner()
ORDERED = UpdatesLast(PLAIN)
ACCEPTED = "EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED"
STARTED = "EVENT_TYPE_TIMER_STARTED"


@workflow.defn
class Waking:
    """Sleeps a little for each signal; updates are answered at once."""

    def __init__(self) -> None:
        self.asked = self.slept = self.updated = 0
        self.ended = False

    @workflow.run
    async def run(self) -> None:
        while not self.ended:
            await workflow.wait_condition(lambda: self.asked > self.slept or self.ended)
            if self.asked > self.slept:
                self.slept += 1
                await workflow.sleep(0.01)
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal
    def wake(self) -> None:
        self.asked += 1

    @workflow.signal
    def end(self) -> None:
        self.ended = True

    @workflow.update
    def count(self) -> int:
        self.updated += 1
        return self.updated

    @workflow.query
    def counted(self) -> int:
        return self.updated


def _working(temporal: Client, queue: str, runner: WorkflowRunner) -> Worker:
    return Worker(temporal, task_queue=queue, workflows=[Waking], workflow_runner=runner)


async def _signaled(temporal: Client, runner: WorkflowRunner) -> WorkflowHandle[Waking, None]:
    """Returns a workflow that has begun, with a signal that nobody has taken; its id names its task queue."""
    queue = f"waking-{uuid.uuid4().hex}"
    async with _working(temporal, queue, runner):
        handle: WorkflowHandle[Waking, None] = await temporal.start_workflow(
            Waking.run, id=queue, task_queue=queue
        )
        assert await handle.query(Waking.counted) == 0
    await handle.signal(Waking.wake)
    return handle


async def _history(temporal: Client, began: WorkflowRunner, went_on: WorkflowRunner) -> WorkflowHistory:
    """Returns the history of a workflow that was given a signal and an update in one task."""
    handle = await _signaled(temporal, began)
    update = asyncio.create_task(handle.execute_update(Waking.count, id="counted"))
    await until_admitted(temporal, handle.id, "counted")
    async with _working(temporal, handle.id, went_on):
        assert await update == 1
        await handle.signal(Waking.end)
        await handle.result()
    return await handle.fetch_history()


def _order(history: WorkflowHistory) -> list[str]:
    types = [event["eventType"] for event in history.to_json_dict()["events"]]
    return [kind for kind in types if kind in {ACCEPTED, STARTED}]


async def _failure(history: WorkflowHistory, runner: WorkflowRunner) -> Exception | None:
    replayer = replayer_of([Waking], DataConverter.default, runner)
    return (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure


async def test_what_a_signal_sets_off_comes_before_a_tasks_updates_and_replays(temporal: Client) -> None:
    history = await _history(temporal, ORDERED, ORDERED)
    assert _order(history) == [STARTED, ACCEPTED]
    assert await _failure(history, ORDERED) is None
    assert "TMPRL1100" in str(await _failure(history, PLAIN))


async def test_a_workflow_that_began_in_the_earlier_order_keeps_it(temporal: Client) -> None:
    history = await _history(temporal, PLAIN, ORDERED)
    assert _order(history) == [ACCEPTED, STARTED]
    assert await _failure(history, ORDERED) is None


# Resets


@workflow.defn
class Listing:
    """Lists what it is told, and starts a timer for each signal that an update came before."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @workflow.run
    async def run(self) -> None:
        seen = 0
        while "end" not in self.told:
            await workflow.wait_condition(lambda seen=seen: len(self.told) > seen)  # type: ignore[misc]
            seen = len(self.told)
            before = [self.told[:at] for at, what in enumerate(self.told) if what.islower()]
            await workflow.sleep(0.01 * (1 + sum(what.isupper() for told in before for what in told)))
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal
    def tell(self, what: str) -> None:
        self.told.append(what)

    @workflow.update
    def ask(self, what: str) -> int:
        self.told.append(what)
        return len(self.told)

    @workflow.query
    def so_far(self) -> list[str]:
        return self.told


async def _say(handle: WorkflowHandle[Listing, None], words: str) -> None:
    """Tells it letters one after the other: small ones as signals, large ones as updates."""
    for letter in words:
        if letter.isupper():
            await handle.execute_update(Listing.ask, letter)
        else:
            await handle.signal(Listing.tell, letter)


async def _reset(handle: WorkflowHandle[Listing, None], task: int) -> None:
    """Resets to the end of one of its tasks, as ``temporal workflow reset`` does."""
    client, history = handle._client, await handle.fetch_history()
    ends = [
        event.event_id
        for event in history.events
        if event.HasField("workflow_task_completed_event_attributes")
    ]
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=ends[task],
            request_id=uuid.uuid4().hex,
            reason="a test",
        )
    )


async def test_what_a_reset_takes_again_keeps_its_order_also_when_it_is_replayed(temporal: Client) -> None:
    queue = f"listing-{uuid.uuid4().hex}"
    # Without a cache each task and each query replays everything.
    async with Worker(
        temporal, task_queue=queue, workflows=[Listing], workflow_runner=ORDERED, max_cached_workflows=0
    ):
        handle: WorkflowHandle[Listing, None] = await temporal.start_workflow(
            Listing.run, id=queue, task_queue=queue
        )
        assert await handle.query(Listing.so_far) == []
        await _say(handle, "aBcdEFg")
        for task, more in ((0, "hIj"), (-2, "Kl"), (0, "MnO"), (1, "pQr")):
            before = await handle.query(Listing.so_far)
            await _reset(handle, task)
            assert await handle.query(Listing.so_far) == before
            await _say(handle, more)
            assert await handle.query(Listing.so_far) == [*before, *more]
            assert await _listing_fails(await handle.fetch_history()) is None
        await handle.signal(Listing.tell, "end")
        await temporal.get_workflow_handle(handle.id).result()  # of the run that the last reset began
    assert await _listing_fails(await handle.fetch_history()) is None


async def _listing_fails(history: WorkflowHistory) -> Exception | None:
    replayer = replayer_of([Listing], DataConverter.default, ORDERED)
    return (await replayer.replay_workflow(history, raise_on_replay_failure=False)).replay_failure


# Local activities

_NOTHING_SPECIAL = WorkflowActivationJob(fire_timer=FireTimer(seq=1))
_SIGNAL = WorkflowActivationJob(signal_workflow=SignalWorkflow(signal_name="wake"))
_UPDATE = WorkflowActivationJob(do_update=DoUpdate(id="u"))
_ACTIVITY = WorkflowActivationJob(resolve_activity=ResolveActivity(seq=2))
_LOCAL = WorkflowActivationJob(resolve_activity=ResolveActivity(seq=3, is_local=True))
_BEGIN = WorkflowActivationJob(initialize_workflow=InitializeWorkflow())


class Noting(WorkflowRunner, WorkflowInstance):
    """Notes which jobs are run together."""

    def __init__(self) -> None:
        self.run: list[list[str | None]] = []

    def prepare_workflow(self, defn: object) -> None:
        raise NotImplementedError

    def create_instance(self, det: object) -> WorkflowInstance:
        return self

    def get_serialization_context(self, command_info: object) -> None:
        raise NotImplementedError

    def get_external_store_context(self, command_info: object) -> StorageDriverStoreContext:
        raise NotImplementedError

    def get_info(self) -> Info:
        raise NotImplementedError

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        self.run.append([_name(job) for job in act.jobs])
        done = WorkflowActivationCompletion()
        done.successful.SetInParent()
        return done


def _name(job: WorkflowActivationJob) -> str | None:
    return "local" if job.resolve_activity.is_local else job.WhichOneof("variant")


ORDERS = [  # an update before a signal comes with a reset alone
    jobs for jobs in permutations([_SIGNAL, _UPDATE, _LOCAL]) if jobs.index(_SIGNAL) < jobs.index(_UPDATE)
]


@pytest.mark.parametrize("jobs", ORDERS)
def test_what_local_activities_came_to_is_handed_over_last_as_in_a_replay(
    jobs: tuple[WorkflowActivationJob, ...],
) -> None:
    noting = Noting()
    instance = UpdatesLast(noting).create_instance(cast(Any, None))
    instance.activate(WorkflowActivation(jobs=[_BEGIN]))
    instance.activate(WorkflowActivation(jobs=jobs))
    assert noting.run[1:] == [["signal_workflow"], ["do_update"], ["local"]]


def test_what_else_comes_at_once_stays_together() -> None:
    noting = Noting()
    instance = UpdatesLast(noting).create_instance(cast(Any, None))
    instance.activate(WorkflowActivation(jobs=[_BEGIN]))
    instance.activate(WorkflowActivation(jobs=[_NOTHING_SPECIAL, _ACTIVITY, _UPDATE, _UPDATE]))
    assert noting.run[1:] == [["fire_timer", "resolve_activity"], ["do_update", "do_update"]]


@activity.defn
async def look(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow.defn
class Looking:
    """Looks within its first task, then sleeps a little; updates wait for that."""

    def __init__(self) -> None:
        self.looked = False

    @workflow.run
    async def run(self, seconds: float) -> None:
        await workflow.execute_local_activity(look, seconds, start_to_close_timeout=timedelta(seconds=30))
        await workflow.sleep(0.01)
        self.looked = True
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.update
    async def until_looked(self) -> None:
        await workflow.wait_condition(lambda: self.looked)


@pytest.mark.slow
async def test_an_update_and_a_local_activity_that_a_late_answer_brings_at_once_replay(
    temporal: Client,
) -> None:
    task_seconds, delay_seconds = 6.0, 0.2
    kept_alive_after = 0.8 * task_seconds  # when the worker asks Temporal for more time
    queue, port = f"looking-{uuid.uuid4().hex}", int(temporal.service_client.config.target_host.split(":")[1])
    wire = await Proxy("wire", lambda: [port]).start()
    late = await open_client(f"127.0.0.1:{wire.port}", data_converter=temporal.data_converter)

    async def history(number: int) -> WorkflowHistory:
        handle = await temporal.start_workflow(
            Looking.run,
            kept_alive_after + (number + 1) * delay_seconds / 2,  # the answer is on its way then
            id=f"{queue}-{number}",
            task_queue=queue,
            task_timeout=timedelta(seconds=task_seconds),
        )

        async def begun() -> bool:
            return len((await handle.fetch_history()).events) > 2

        await eventually(begun, what="a worker has the first task")
        await asyncio.gather(handle.execute_update(Looking.until_looked), handle.result())
        return await handle.fetch_history()

    try:
        async with Worker(
            late, task_queue=queue, workflows=[Looking], activities=[look], workflow_runner=ORDERED
        ):
            wire.delay_seconds = delay_seconds
            histories = await asyncio.gather(*(history(number) for number in range(3)))
            wire.delay_seconds = 0.0
    finally:
        await wire.stop()
    replayer = replayer_of([Looking], DataConverter.default, ORDERED)
    for one in histories:
        replayed = await replayer.replay_workflow(one, raise_on_replay_failure=False)
        assert replayed.replay_failure is None


# Tasks that have not begun


def _activation(began: int, events: int, *jobs: str) -> WorkflowActivation:
    act = WorkflowActivation(history_length=events, history_size_bytes=100 * began)
    act.timestamp.seconds = began
    for kind in jobs:
        getattr(act.jobs.add(), kind).SetInParent()
    return act


def _refused(*activations: WorkflowActivation) -> list[bool]:
    """Returns of each activation whether it was refused, by one instance."""
    instance = UpdatesLast(Noting()).create_instance(cast(Any, None))
    return [instance.activate(act).HasField("failed") for act in activations]


def test_a_query_that_comes_before_a_tasks_beginning_does_not_begin_it() -> None:
    # As a worker gets them that takes over with a query: events 4 to 6 have no task yet, which begins at 8.
    begun = _activation(1, 3, "initialize_workflow")
    ahead = _activation(1, 6, "signal_workflow")
    query = _activation(1, 6, "query_workflow")
    assert _refused(begun, ahead, query) == [False, False, True]
    assert _refused(begun, ahead, _activation(1, 6, "fire_timer"), query) == [False, False, False, True]
    # As it gets them when it begins anew.
    later = _activation(2, 8, "signal_workflow", "signal_workflow")
    assert _refused(begun, later, query) == [False, False, False]
    # It never builds upon what it has done ahead.
    assert _refused(begun, ahead, later) == [False, False, True]


def test_a_query_of_a_run_that_has_ended_before_its_next_task_is_answered() -> None:
    query = _activation(1, 6, "query_workflow")
    query.jobs[0].query_workflow.headers[RUN_HAS_ENDED].SetInParent()
    begun, ahead = _activation(1, 3, "initialize_workflow"), _activation(1, 6, "signal_workflow")
    assert _refused(begun, ahead, query) == [False, False, False]


async def test_who_was_terminated_before_its_next_task_can_be_asked(temporal: Client) -> None:
    handle = await _signaled(temporal, ORDERED)
    await handle.terminate()
    async with _working(temporal, handle.id, ORDERED):
        for _ in range(2):
            assert await handle.query(Waking.counted) == 0


def test_what_belongs_to_a_task_that_has_begun_is_carried_out() -> None:
    assert (
        _refused(
            _activation(1, 3, "initialize_workflow"),
            _activation(1, 3, "query_workflow"),
            _activation(2, 8, "signal_workflow"),
            _activation(2, 8, "do_update"),
            _activation(2, 8, "resolve_activity"),
            _activation(2, 8, "query_workflow"),
            _activation(3, 12, "fire_timer"),
            WorkflowActivation(jobs=[WorkflowActivationJob(remove_from_cache={})]),
        )
        == [False] * 8
    )


async def test_a_history_whose_last_events_have_no_task_yet_replays(temporal: Client) -> None:
    handle = await _signaled(temporal, ORDERED)
    assert await _failure(await handle.fetch_history(), ORDERED) is None
    await handle.terminate()
