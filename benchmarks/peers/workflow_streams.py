"""``temporalio.contrib.workflow_streams``: a workflow keeps the stream, on the same Temporal server."""

import asyncio
import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.workflow_streams import WorkflowStreamClient
from temporalio.service import RPCError

from benchmarks.peers.workflow_streams_worker import TASK_QUEUE, TOPIC, Plan, StreamedAgent
from benchmarks.readers import Readings
from benchmarks.streaming import DEADLINE_MARGIN_SECONDS, RATE_PER_SECOND, BrokenSystem, Load, warm_up
from tests.world.process import Process

MAX_SUBSCRIBERS = 25
MAX_STREAMS = 50
HOLD_SECONDS = 3.0

Stream = WorkflowHandle[StreamedAgent, None]


class WorkflowStreams:
    """The peer: publishers run in the worker's process, subscribers in this one."""

    name = "workflow_streams"

    def __init__(self, client: Client) -> None:
        self._client = client

    def skips(self, load: Load) -> str | None:
        """Returns why a load is skipped: it is more than this peer can serve on one machine."""
        if load.subscribers > MAX_SUBSCRIBERS:
            return "subscribers pass Temporal's limit of updates in flight for one workflow"
        if load.streams > MAX_STREAMS:
            return f"at {MAX_STREAMS} streams this machine is already overloaded by it"
        return None

    async def begin(self, tokens: int, rate_per_second: int, hold_seconds: float) -> Stream:
        """Starts a workflow whose activity publishes."""
        return await self._client.start_workflow(
            StreamedAgent.run,
            Plan(tokens=tokens, rate_per_second=rate_per_second, hold_seconds=hold_seconds),
            id=f"peer-{uuid.uuid4().hex}",
            task_queue=TASK_QUEUE,
        )

    def reader(self, stream: Stream) -> WorkflowStreamClient:
        """Returns the peer's own client of a stream."""
        return WorkflowStreamClient.create(self._client, stream.id)

    async def stream(self, load: Load) -> Readings:
        """Streams the load once; tokens that arrive after the deadline count as not delivered."""
        streams = [await self.begin(load.tokens, RATE_PER_SECOND, HOLD_SECONDS) for _ in range(load.streams)]
        readings = await self.read(streams, load)
        readings.history_events = sum([(await stream.describe()).history_length for stream in streams])
        await end(streams)
        return readings

    async def read(self, streams: Sequence[Stream], load: Load) -> Readings:
        """Subscribes to streams from their beginning until their last token, or a deadline."""
        readings = Readings()

        async def subscribe(stream: Stream) -> None:
            seen = 0
            async for item in self.reader(stream).subscribe([TOPIC], result_type=str):
                readings.latencies_ms.append((time.monotonic_ns() - int(item.data[1:-2])) / 1e6)
                seen += 1
                if seen == load.tokens:
                    return

        tasks = [asyncio.create_task(subscribe(s)) for s in streams for _ in range(load.subscribers)]
        _, unfinished = await asyncio.wait(tasks, timeout=load.seconds + DEADLINE_MARGIN_SECONDS)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return readings


async def end(streams: Sequence[Stream]) -> None:
    """Ends the workflows that have not ended by themselves."""
    for stream in streams:
        with contextlib.suppress(RPCError):
            await stream.terminate()


@asynccontextmanager
async def running(folder: Path, temporal_address: str) -> AsyncIterator[WorkflowStreams]:
    """Starts the peer's worker in its own process."""
    command = (sys.executable, "-m", "benchmarks.peers.workflow_streams_worker", temporal_address)
    with Process(*command, log=folder / "workflow-streams.log") as worker:
        peer = WorkflowStreams(await Client.connect(temporal_address))
        try:
            await warm_up(peer)
        except BrokenSystem as broken:
            broken.add_note(worker.output[-3_000:])
            raise
        yield peer
