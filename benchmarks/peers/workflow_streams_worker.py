"""The peer's worker: an agent that streams through ``temporalio.contrib.workflow_streams``.

Its process hosts the workflow and publishes from an activity, with the batch interval that its documentation
calls typical.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamClient
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    # The workflow sandbox would import it again and reject its use of sockets and paths.
    from benchmarks.readers import stamp

TASK_QUEUE = "bench-workflow-streams"
TOPIC = "tokens"
BATCH_INTERVAL = timedelta(milliseconds=100)
START_DELAY_SECONDS = 0.5


@dataclass
class Plan:
    """How much to publish: ``tokens`` at ``rate_per_second`` (0: as fast as possible)."""

    tokens: int
    rate_per_second: int
    hold_seconds: float = 0.0


@activity.defn
async def publish(plan: Plan) -> None:
    """Publishes tokens that hold the time at which they were written."""
    await asyncio.sleep(START_DELAY_SECONDS)
    async with WorkflowStreamClient.from_within_activity(batch_interval=BATCH_INTERVAL) as stream:
        topic = stream.topic(TOPIC, type=str)
        following = time.monotonic()
        for _ in range(plan.tokens):
            if plan.rate_per_second:
                following += 1 / plan.rate_per_second
                await asyncio.sleep(max(following - time.monotonic(), 0))
            topic.publish(stamp())


@workflow.defn
class StreamedAgent:
    """Hosts the stream while the activity publishes."""

    @workflow.init
    def __init__(self, plan: Plan) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, plan: Plan) -> None:
        await workflow.execute_activity(publish, plan, start_to_close_timeout=timedelta(minutes=10))
        await workflow.sleep(plan.hold_seconds)


async def main(address: str) -> None:
    """Runs the worker until it is killed."""
    client = await Client.connect(address)
    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[StreamedAgent],
        activities=[publish],
        max_concurrent_activities=300,
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
