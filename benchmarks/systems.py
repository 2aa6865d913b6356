"""Ours and its streaming peers, started together for one scenario."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import ours
from benchmarks.ours import Waystation
from benchmarks.peers import durable_streams, plain_sse, redis_streams, workflow_streams
from benchmarks.peers.durable_streams import DurableStreams
from benchmarks.peers.plain_sse import PlainSse
from benchmarks.peers.redis_streams import RedisStreams
from benchmarks.peers.workflow_streams import WorkflowStreams
from benchmarks.scenario import Row, Say
from benchmarks.streaming import Load, Streaming, alternate, warm_up


@dataclass
class Systems:
    """The systems that run. A peer whose server isn't available on this machine is absent."""

    ours: Waystation
    workflow_streams: WorkflowStreams
    plain_sse: PlainSse
    durable_streams: DurableStreams | None = None
    redis_streams: RedisStreams | None = None

    def all(self) -> list[Streaming]:
        """Returns all systems, ours first."""
        known = (
            self.ours, self.workflow_streams, self.durable_streams, self.redis_streams, self.plain_sse,
        )  # fmt: skip
        return [system for system in known if system is not None]


@asynccontextmanager
async def running(say: Say, **settings: Any) -> AsyncIterator[Systems]:
    """Starts every system that is available on this machine."""
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory()))
        system = await resources.enter_async_context(ours.running(**settings))
        address = system.stack.temporal.address
        systems = Systems(
            system,
            await resources.enter_async_context(workflow_streams.running(folder, address)),
            await resources.enter_async_context(plain_sse.running(folder)),
        )
        try:
            systems.durable_streams = await resources.enter_async_context(durable_streams.running(folder))
        except FileNotFoundError as missing:
            say(f"  {DurableStreams.name} is left out: {missing}")
        try:
            systems.redis_streams = await resources.enter_async_context(redis_streams.running(folder))
        except FileNotFoundError as missing:
            say(f"  {RedisStreams.name} is left out: {missing}")
        for peer in (systems.plain_sse, systems.durable_streams, systems.redis_streams):
            if peer is not None:
                await warm_up(peer)
        yield systems


async def measure_loads(
    loads: Sequence[tuple[Load, int]], columns: Callable[[Load], Row], say: Say
) -> list[Row]:
    """Measures each load in several rounds over all systems; ``columns`` are the key columns of its rows."""
    rows: list[Row] = []
    async with running(say) as systems:
        for load, rounds in loads:
            say(f"  {load.streams} streams, {load.subscribers} subscribers each, {load.tokens} tokens")
            totals = await alternate(systems.all(), load, rounds, say)
            rows += [{"system": name, **columns(load), **total.columns()} for name, total in totals.items()]
    return rows
