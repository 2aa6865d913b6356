"""What a turn costs in Temporal's actions, histories, Redis' commands and bytes to a client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from temporalio.client import WorkflowHandle

from benchmarks import counters, ours
from benchmarks.counters import Counted
from benchmarks.figures import rounded
from benchmarks.ours import Waystation, close, each, send
from benchmarks.peers import redis_streams, workflow_streams
from benchmarks.peers.workflow_streams import WorkflowStreams, end
from benchmarks.processes import cpu_seconds
from benchmarks.scenario import OURS, Aim, Column, Row, Say, Scenario, Size
from benchmarks.streaming import RATE_PER_SECOND, Load, expect_all, subscribed
from tests.support import free_port
from waystation.temporal.names import turn_workflow_id

TOKENS = {Size.QUICK: (1, 100), Size.DEFAULT: (1, 1_000), Size.LONG: (1, 1_000, 5_000)}
STREAMS = 5
SETTLE_SECONDS = 3.0


@dataclass
class Counting:
    """A Waystation of two API processes with Redis between them, and the servers whose counters are read."""

    system: Waystation
    peer: WorkflowStreams
    metrics_port: int
    redis_port: int | None

    async def read(self) -> Counted:
        """Returns the counters, once the work that follows a turn's end is done."""
        await asyncio.sleep(SETTLE_SECONDS)
        return await counters.read(self.metrics_port, self.redis_port)


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by system and number of tokens; each session has one turn."""
    rows = []
    async with _running(say) as counting:
        for tokens in TOKENS[size]:
            say(f"  turns of {tokens} tokens")
            rows.append(await _ours(counting, tokens))
            rows.append(await _peer(counting, tokens))
    return rows


@asynccontextmanager
async def _running(say: Say) -> AsyncIterator[Counting]:
    """Starts everything; the agent writes to one API process and the subscribers read from the other."""
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory()))
        settings: dict[str, str] = {}
        redis_port = None
        try:
            redis = resources.enter_context(redis_streams.server(folder))
            redis_port, settings["redis_url"] = redis.port, redis.url
        except FileNotFoundError as missing:
            say(f"  Redis is left out, and so are its commands: {missing}")
        metrics_port = free_port()
        options = ("--metrics-port", str(metrics_port))
        system = await resources.enter_async_context(ours.running(temporal_options=options, **settings))
        if redis_port is not None:
            second = free_port()
            system.stack.run_api(second)
            await system.stack.ready(second)
            # Subscribers and requests go to the second API process; the agent stays connected to the first.
            system.stack.ports.reverse()
        peer = workflow_streams.running(folder, system.stack.temporal.address)
        yield Counting(system, await resources.enter_async_context(peer), metrics_port, redis_port)


async def _ours(counting: Counting, tokens: int) -> Row:
    system = counting.system
    load = Load(streams=STREAMS, subscribers=1, tokens=tokens)
    before = await counting.read()
    sessions = await system.sessions(STREAMS)

    async def begin() -> None:
        await each(sessions, lambda session: send(session, f"tokens={tokens} rate={RATE_PER_SECOND}"))

    used = _cpu_seconds(system)
    readings = await subscribed([system.subscription(s.id) for s in sessions], load, begin)
    expect_all(system.name, load, readings)
    cpu_ms = {name: (now - used[name]) * 1e3 for name, now in _cpu_seconds(system).items()}
    counted = (await counting.read()).since(before)
    names = [name for s in sessions for name in (s.id, turn_workflow_id(s.id, "t1"))]
    handles = [system.temporal.get_workflow_handle(name) for name in names]
    row = {"system": OURS, "tokens": tokens, **await _row(counted, handles)}
    row["client_bytes"] = rounded(readings.bytes / STREAMS)
    row |= {f"{name}_cpu_ms": rounded(ms / STREAMS) for name, ms in cpu_ms.items()}
    await each(sessions, close)
    return row


def _cpu_seconds(system: Waystation) -> dict[str, float]:
    """Returns the processor time used so far in seconds, by kind of process."""
    used = {"api": 0.0, "worker": 0.0, "agent": 0.0, "temporal": cpu_seconds(system.stack.temporal)}
    for process in system.stack.processes:
        used[process.log.stem.partition("-")[0]] += cpu_seconds(process)
    return used


async def _peer(counting: Counting, tokens: int) -> Row:
    before = await counting.read()
    load = Load(streams=STREAMS, subscribers=1, tokens=tokens)
    streams = [await counting.peer.begin(tokens, RATE_PER_SECOND, 1) for _ in range(STREAMS)]
    expect_all(counting.peer.name, load, await counting.peer.read(streams, load))
    counted = (await counting.read()).since(before)
    counted.redis_commands.clear()
    counted.redis_bytes = 0
    row = {"system": counting.peer.name, "tokens": tokens, **await _row(counted, streams)}
    await end(streams)
    return row


async def _row(counted: Counted, handles: Sequence[WorkflowHandle[Any, Any]]) -> Row:
    """Returns what one session costs; each has one turn."""
    described = [(await handle.describe()).raw_description.workflow_execution_info for handle in handles]
    row: Row = {
        "history_events": rounded(sum(told.history_length for told in described) / STREAMS),
        "history_bytes": rounded(sum(told.history_size_bytes for told in described) / STREAMS),
        "actions": rounded(counted.actions.total() / STREAMS),
        "redis_commands": rounded(counted.redis_commands.total() / STREAMS),
        "redis_bytes": rounded(counted.redis_bytes / STREAMS),
    }
    row["actions_by_type"] = {kind: n / STREAMS for kind, n in counted.actions.most_common()}
    row["redis_by_command"] = {name: n / STREAMS for name, n in counted.redis_commands.most_common()}
    return row


def _notes(rows: list[Row]) -> list[str]:
    notes = []
    for row in rows:
        kinds = ", ".join(f"{n:g} {kind}" for kind, n in row["actions_by_type"].items())
        notes.append(f"{row['system']}, {row['tokens']} tokens: {kinds}.")
    return ["Actions by type, per session:\n\n" + "\n".join(f"- {note}" for note in notes)]


SCENARIO = Scenario(
    name="cost",
    title="What a turn costs",
    shows="""
        Five sessions with one turn each, 50 tokens a second, one subscriber each. Ours runs with two API
        processes and Redis between them: the agent writes to one, the subscribers read from the other.
        Temporal's actions are counted by the server's own metric, history sizes as the server reports them
        (payloads encrypted), Redis commands and bytes by Redis. All numbers are for one session with its
        turn. A turn of one token shows what every turn costs; the difference shows what tokens cost.
        """,
    does_not_show=(
        "Temporal Cloud's bill: its rules for actions are its own, and retries or other regions change them.",
        "Sessions watched by nobody, or by many: a process queries once, however many clients it has.",
    ),
    keys=(Column("tokens", "tokens in the turn"),),
    columns=(
        Column("actions", "Temporal actions", "lower", grain=2, times_ours=True),
        Column("history_events", "history events", "lower", grain=3, times_ours=True),
        Column("history_bytes", "history bytes", "lower", grain=500, times_ours=True),
        Column("redis_commands", "Redis commands", "lower", grain=20),
        Column("redis_bytes", "Redis bytes", "lower", grain=2_000),
        Column("client_bytes", "bytes to a client", "lower", grain=2_000),
        Column("api_cpu_ms", "API CPU ms", "lower", grain=50),
        Column("worker_cpu_ms", "worker CPU ms", "lower", grain=50),
        Column("agent_cpu_ms", "agent CPU ms", "lower", grain=50),
        Column("temporal_cpu_ms", "Temporal CPU ms"),
    ),
    aims=(Aim({"tokens": 1_000}, "history_events", 350),),
    run=run,
    notes=_notes,
)
