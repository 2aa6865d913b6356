"""Queries that a worker can't answer yet, and updates that come while a workflow ends."""

import asyncio
import dataclasses
import threading
import time
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

import pytest
from temporalio import workflow
from temporalio.client import (
    Client,
    DescribeWorkflowInput,
    OutboundInterceptor,
    QueryWorkflowInput,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.temporal.support import until_admitted
from waystation.temporal import asking, names
from waystation.temporal.asking import AskAgain

QUERY = QueryWorkflowInput(
    id="s-1", run_id=None, query="snapshot", args=[], reject_condition=None, headers={}, ret_type=None,
    rpc_metadata={}, rpc_timeout=None,
)  # fmt: skip
EVER = 1_000


class Refusing(OutboundInterceptor):
    """Refuses a few times, then answers with the number of attempts."""

    def __init__(self, words: str, times: int) -> None:
        self.words, self.times, self.attempts = words, times, 0

    async def describe_workflow(self, input: DescribeWorkflowInput) -> Any:  # noqa: A002
        return SimpleNamespace(status=WorkflowExecutionStatus.RUNNING)

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:  # noqa: A002
        self.attempts += 1
        if self.attempts <= self.times:
            raise WorkflowQueryFailedError(self.words)
        return self.attempts


async def test_a_query_is_repeated_while_its_worker_has_a_task_to_begin() -> None:
    assert await AskAgain().intercept_client(Refusing(names.NOT_BEGUN, 3)).query_workflow(QUERY) == 4


@pytest.mark.parametrize("limited", [True, False], ids=["the caller's limit", "its own"])
async def test_it_is_refused_in_the_end(limited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = timedelta(seconds=0.3)
    monkeypatch.setattr(asking, "PATIENCE", timedelta(hours=1) if limited else limit)
    query = dataclasses.replace(QUERY, rpc_timeout=limit if limited else None)
    worker, began = Refusing(names.NOT_BEGUN, EVER), time.monotonic()
    with pytest.raises(WorkflowQueryFailedError, match="has yet to begin"):
        await AskAgain().intercept_client(worker).query_workflow(query)
    assert 1 < worker.attempts < EVER
    assert time.monotonic() - began >= 0.1, "it was given time"


async def test_another_refusal_is_final() -> None:
    worker = Refusing("no such query", EVER)
    with pytest.raises(WorkflowQueryFailedError, match="no such query"):
        await AskAgain().intercept_client(worker).query_workflow(QUERY)
    assert worker.attempts == 1


LAST_TASK: Final = {"begun": threading.Event(), "may end": threading.Event()}


@workflow.defn
class Ending:
    """Ends in a task that lasts as long as a test wants."""

    def __init__(self) -> None:
        self.ends = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.ends)
        LAST_TASK["begun"].set()
        LAST_TASK["may end"].wait(timeout=30)

    @workflow.signal
    def end(self) -> None:
        self.ends = True

    @workflow.update
    def touch(self) -> None:
        """Does nothing."""


async def test_an_update_that_comes_with_the_last_task_is_told_that_the_workflow_has_ended(
    temporal: Client,
) -> None:
    """With its id, Temporal would go on saying that the workflow is closing."""
    queue = f"ending-{uuid.uuid4().hex}"
    runner = UnsandboxedWorkflowRunner()
    async with Worker(temporal, task_queue=queue, workflows=[Ending], workflow_runner=runner):
        handle: WorkflowHandle[Ending, None] = await temporal.start_workflow(
            Ending.run, id=queue, task_queue=queue
        )
        await handle.signal(Ending.end)
        assert await asyncio.to_thread(LAST_TASK["begun"].wait, 30)
        late = asyncio.create_task(handle.execute_update(Ending.touch, id="late"))
        await until_admitted(temporal, queue, "late")
        LAST_TASK["may end"].set()
        with pytest.raises(RPCError, match="already completed") as told:
            await late
        assert told.value.status == RPCStatusCode.NOT_FOUND
        with pytest.raises(RPCError, match="already completed"):
            await handle.execute_update(Ending.touch, id="late")
