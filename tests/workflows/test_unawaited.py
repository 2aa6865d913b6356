"""An activity that fails when nobody waits for it any more leaves no traceback in the worker's log."""

import asyncio
import gc
import logging
import uuid
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from waystation.models.base import WorkflowStart
from workflows.guards import ending, starting


class Given(WorkflowStart):
    unexpected: bool = False


@activity.defn
async def fail() -> None:
    raise ApplicationError("as it should", non_retryable=True)


async def _break() -> None:
    raise ValueError("a bug")


@workflow.defn
class Careless:
    """Lets an activity fail, or a task of its own, and looks at neither."""

    @workflow.init
    @starting
    def __init__(self, given: Given) -> None:
        pass

    @workflow.run
    @ending
    async def run(self, given: Given) -> None:
        await workflow.wait(
            [
                asyncio.create_task(_break())
                if given.unexpected
                else workflow.start_activity(
                    fail,
                    start_to_close_timeout=timedelta(seconds=5),
                    retry_policy=RetryPolicy(maximum_attempts=1),
                )
            ]
        )
        gc.collect()


@pytest.mark.parametrize("unexpected", [False, True])
async def test_only_what_nobody_expected_is_logged(
    temporal: Client, caplog: pytest.LogCaptureFixture, unexpected: bool
) -> None:
    # The workflow looks for garbage: among all that other tests have left, longer than a task may take.
    gc.collect()
    gc.freeze()
    queue = f"careless-{uuid.uuid4().hex}"
    with caplog.at_level(logging.ERROR):
        async with Worker(
            temporal,
            task_queue=queue,
            workflows=[Careless],
            activities=[fail],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            await temporal.execute_workflow(
                Careless.run, Given(unexpected=unexpected), id=queue, task_queue=queue
            )
    assert ("was never retrieved" in caplog.text) == unexpected
