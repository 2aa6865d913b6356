"""Sessions against ``temporalio.contrib.workflow_streams``, side by side on one Temporal dev server.

    make bench                          everything, about seven minutes
    make bench ARGS="--only stream-1"   one scenario

Measured from an agent's ``write`` to the bytes arriving at a subscriber's socket, agent and
subscriber being processes of their own on one machine: no network, one clock. Everything (Temporal,
worker, API, agent, subscribers) shares the machine's cores, so with many sessions it is their
sum that is measured. It does not show a real network, a Temporal cluster, or a model's own pauses.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from temporalio.client import Client as TemporalClient
from temporalio.contrib.workflow_streams import WorkflowStreamClient
from temporalio.service import RPCError

from benchmarks.streams_peer import TASK_QUEUE, TOPIC, Plan, StreamedAgent
from waystation.cli import server_folder
from waystation.client import Client, Session
from waystation.dev import Dev
from waystation.errors import TryLater

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "sessions.json"
RATE_PER_SECOND = 50
ROUNDS = 2
SETTLE_SECONDS = 1.5
PEER_TIMEOUT_SECONDS = 90.0

_STAMP = re.compile(rb"\d{9,}")


@dataclass
class Measured:
    """Latencies in milliseconds of what one round delivered, and what it was to deliver."""

    expected: int
    latencies: list[float] = field(default_factory=list)
    history_events: int = 0
    tokens: int = 0

    def add(self, other: "Measured") -> None:
        self.expected += other.expected
        self.latencies += other.latencies
        self.history_events += other.history_events
        self.tokens += other.tokens


@dataclass
class World:
    """The running processes."""

    dev: Dev
    client: Client
    temporal: TemporalClient
    api_key: str


def free_port() -> int:
    """A port that nobody listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Ours as ``waystation dev`` runs it, and the peer's process, on one Temporal server."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.chdir(ROOT)
        dev = Dev(folder, free_port(), free_port(), ["benchmarks.agents:agent"], server_folder(), quiet=True)
        stack.push_async_callback(dev.stop)
        await dev.start()
        address = dev.state.environment(0, dev.temporal_port)["TEMPORAL_ADDRESS"]
        peer = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.streams_peer", address)
        stack.callback(peer.kill)
        key = dev.state.key("service")
        client = await stack.enter_async_context(Client(dev.url, key))
        yield World(dev, client, await TemporalClient.connect(address), key)


# Ours


class Subscriber:
    """A subscriber as light as can be, so that it is not the subscriber that is measured."""

    def __init__(self, world: World, session_id: str) -> None:
        self._world, self._session_id = world, session_id
        self.stamps: dict[int, float] = {}

    async def run(self, connected: Callable[[], None]) -> None:
        host, _, port = self._world.dev.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
        head = f"GET /sessions/{self._session_id}/events HTTP/1.1\r\nHost: {host}\r\n"
        writer.write(f"{head}Authorization: Bearer {self._world.api_key}\r\n\r\n".encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"retry:"):
                    connected()
                elif line.startswith(b"data: "):
                    self._take(line)
                    if b'"type":"turn.completed"' in line:
                        return
        finally:
            writer.close()

    def _take(self, line: bytes) -> None:
        if b"message." not in line:
            return
        now = time.monotonic_ns()
        for stamp in _STAMP.findall(line.partition(b'"text":')[2]):
            self.stamps.setdefault(int(stamp), (now - int(stamp)) / 1e6)


async def stream_ours(world: World, sessions: int, subscribers: int, tokens: int) -> Measured:
    """Every session streams to its subscribers; the first arrival of each token counts."""
    started = [await world.client.start("bench") for _ in range(sessions)]
    watching = [Subscriber(world, session.id) for session in started for _ in range(subscribers)]
    waiting = asyncio.Event()
    left = len(watching)

    def connected() -> None:
        nonlocal left
        left -= 1
        if not left:
            waiting.set()

    tasks = [asyncio.create_task(subscriber.run(connected)) for subscriber in watching]
    await waiting.wait()
    await asyncio.gather(*(_send(s, f"tokens={tokens} rate={RATE_PER_SECOND}") for s in started))
    await asyncio.gather(*tasks)
    measured = Measured(expected=sessions * subscribers * tokens, tokens=sessions * tokens)
    measured.latencies = [latency for s in watching for latency in s.stamps.values()]
    measured.history_events = sum([await _history(world, session) for session in started])
    for session in started:
        await session.close()
    return measured


async def _send(session: Session, text: str) -> None:
    """Sends, once more if the machine was too busy to take it; its id keeps it one message."""
    try:
        await session.send(text, message_id=f"{session.id}-1")
    except TryLater:
        await session.send(text, message_id=f"{session.id}-1")


async def _history(world: World, session: Session) -> int:
    """The events of the session's workflow and of its turn's."""
    lengths = [
        (await world.temporal.get_workflow_handle(name).describe()).history_length
        for name in (session.id, f"{session.id}/t1")
    ]
    return sum(lengths)


# The peer


async def stream_peer(world: World, sessions: int, subscribers: int, tokens: int) -> Measured:
    """The same with workflow_streams: publishers in its worker's process, subscribers here."""
    handles = [
        await world.temporal.start_workflow(
            StreamedAgent.run,
            Plan(tokens=tokens, rate_per_second=RATE_PER_SECOND, hold_seconds=3),
            id=f"peer-{uuid.uuid4().hex}",
            task_queue=TASK_QUEUE,
        )
        for _ in range(sessions)
    ]
    latencies: list[float] = []

    async def subscribe(workflow_id: str) -> None:
        stream = WorkflowStreamClient.create(world.temporal, workflow_id)
        seen = 0
        async for item in stream.subscribe([TOPIC], result_type=str):
            latencies.append((time.monotonic_ns() - int(item.data)) / 1e6)
            seen += 1
            if seen == tokens:
                return

    tasks = [asyncio.create_task(subscribe(h.id)) for h in handles for _ in range(subscribers)]
    _, unfinished = await asyncio.wait(tasks, timeout=PEER_TIMEOUT_SECONDS)
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    measured = Measured(expected=sessions * subscribers * tokens, tokens=sessions * tokens)
    measured.latencies = list(latencies)
    measured.history_events = sum([(await handle.describe()).history_length for handle in handles])
    for handle in handles:
        with contextlib.suppress(RPCError):  # most have ended by themselves
            await handle.terminate()
    return measured


# Resuming


def prose(tokens: int, source: random.Random) -> str:
    """Words of random letters: text that does not compress better than real text does."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    return "".join(
        "".join(source.choices(letters, weights=range(26, 0, -1), k=source.randint(1, 9))) + " "
        for _ in range(tokens)
    )


async def resume_ours(world: World, messages: int, tokens: int) -> list[dict[str, Any]]:
    """A client with nothing fetches a whole transcript; the bytes of the answer against its text."""
    source = random.Random(7)
    session = await world.client.start("bench")
    text_bytes = 0
    for _ in range(messages // 2):
        # A real conversation: a message, and a turn whose answer is as long.
        text = prose(tokens // messages, source)
        text_bytes += 2 * len(text.encode())
        sent = await session.send(text, data={"echo": 1})
        async for event in session.events():
            if event.type == "turn.completed" and event.turn_id == sent.turn_id:
                break
    tip = (await session.snapshot()).tip
    headers = {"Authorization": f"Bearer {world.api_key}", "Accept-Encoding": "identity"}
    rows = []
    async with httpx.AsyncClient(base_url=world.dev.url, headers=headers, timeout=60) as http:

        async def transcript() -> int:
            answer = await http.get(f"/sessions/{session.id}/transcript")
            assert len(answer.json()["messages"]) == messages
            return len(answer.content)

        async def compressed() -> int:
            received = 0
            encoding = {"Accept-Encoding": "gzip"}
            async with http.stream("GET", f"/sessions/{session.id}/transcript", headers=encoding) as answer:
                async for chunk in answer.aiter_raw():
                    received += len(chunk)
            return received

        async def events() -> int:
            received = b""
            async with http.stream("GET", f"/sessions/{session.id}/events") as answer:
                async for chunk in answer.aiter_bytes():
                    received += chunk
                    if f"id: {tip}\n".encode() in received[-20_000:]:
                        return len(received)
            return 0

        for scenario, fetch in (
            ("transcript", transcript),
            ("transcript-gzip", compressed),
            ("events", events),
        ):
            ms, size = await _timed(fetch)
            rows.append(_resume_row("waystation", f"resume-{tokens}-{scenario}", ms, size / text_bytes))
    await session.close()
    return rows


async def resume_peer(world: World, tokens: int) -> list[dict[str, Any]]:
    """A subscriber reads the peer's whole log from the beginning. It has no notion of messages."""
    handle = await world.temporal.start_workflow(
        StreamedAgent.run,
        Plan(tokens=tokens, rate_per_second=0, hold_seconds=60),
        id=f"peer-{uuid.uuid4().hex}",
        task_queue=TASK_QUEUE,
    )
    stream = WorkflowStreamClient.create(world.temporal, handle.id)
    while await stream.get_offset() < tokens:  # noqa: ASYNC110 (another process's progress)
        await asyncio.sleep(0.2)

    async def read() -> int:
        seen = 0
        async for _ in stream.subscribe([TOPIC], result_type=str):
            seen += 1
            if seen == tokens:
                break
        return seen

    ms, _ = await _timed(read)
    await handle.terminate()
    return [_resume_row("workflow_streams", f"resume-{tokens}-log", ms, None)]


async def _timed(fetch: Callable[[], Awaitable[int]]) -> tuple[float, int]:
    times, size = [], 0
    for _ in range(9):
        begin = time.perf_counter()
        size = await fetch()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times), size


def _resume_row(system: str, scenario: str, ms: float, ratio: float | None) -> dict[str, Any]:
    return {
        "system": system,
        "scenario": scenario,
        "sessions": 1,
        "subscribers": 1,
        "ms": round(ms, 1),
        "bytes_ratio": round(ratio, 2) if ratio else None,
    }


# Putting it together

STREAMS = {
    # name: sessions, subscribers of each, tokens of each
    "stream-1": (1, 1, 1_000),
    "stream-10": (10, 1, 1_000),
    "stream-50": (50, 1, 500),
    "fan-out-25": (1, 25, 1_000),
    "fan-out-200": (1, 200, 1_000),
}
PEER_SKIPS = {"fan-out-200": "its updates for 200 subscribers pass Temporal's limit of 10 in flight"}


async def run_stream(world: World, name: str, rounds: int) -> list[dict[str, Any]]:
    """Rounds of both, alternating, so that whatever else the machine does meets both."""
    sessions, subscribers, tokens = STREAMS[name]
    systems: dict[str, Callable[[World, int, int, int], Awaitable[Measured]]] = {"waystation": stream_ours}
    if name not in PEER_SKIPS:
        systems["workflow_streams"] = stream_peer
    totals = {system: Measured(expected=0) for system in systems}
    for _ in range(rounds):
        for system, measure in systems.items():
            totals[system].add(await measure(world, sessions, subscribers, tokens))
            await asyncio.sleep(SETTLE_SECONDS)
    return [_stream_row(system, name, sessions, subscribers, total) for system, total in totals.items()]


def _stream_row(
    system: str, name: str, sessions: int, subscribers: int, measured: Measured
) -> dict[str, Any]:
    ordered = sorted(measured.latencies)

    def percentile(share: float) -> float | None:
        return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 2) if ordered else None

    return {
        "system": system,
        "scenario": name,
        "sessions": sessions,
        "subscribers": subscribers,
        "delivered": round(len(ordered) / measured.expected, 5),
        "p50_ms": percentile(0.5),
        "p99_ms": percentile(0.99),
        "history_events_per_1k_tokens": round(measured.history_events / measured.tokens * 1_000),
    }


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """The table, with the peer's numbers as multiples of ours."""
    table = Table(title="Sessions", caption="Peer: temporalio.contrib.workflow_streams, 100 ms batches")
    columns = [
        "scenario", "system", "sessions", "subscribers", "delivered", "p50_ms", "p99_ms",
        "history_events_per_1k_tokens", "ms", "bytes_ratio",
    ]  # fmt: skip
    for column in columns:
        table.add_column(
            column.replace("_", " "), justify="left" if column in ("scenario", "system") else "right"
        )
    ours = {row["scenario"]: row for row in rows if row["system"] == "waystation"}
    for row in rows:
        table.add_row(*(_cell(row, column, ours.get(row["scenario"])) for column in columns))
    console.print(table)


def _cell(row: dict[str, Any], column: str, ours: dict[str, Any] | None) -> str:
    value = row.get(column)
    if value is None:
        return ""
    base = ours.get(column) if ours and row is not ours else None
    if base and column in ("p50_ms", "p99_ms", "history_events_per_1k_tokens"):
        return f"{value} ({value / base:.1f}x)"
    return str(value)


async def run(only: str | None, rounds: int) -> list[dict[str, Any]]:
    """Runs the scenarios and answers their rows."""
    rows: list[dict[str, Any]] = []
    async with world() as running:
        await stream_ours(running, 1, 1, 50)
        for name in STREAMS:
            if only in (None, name):
                rows += await run_stream(running, name, rounds)
                print(f"{name}: {json.dumps(rows[-2:] if name not in PEER_SKIPS else rows[-1:])}", flush=True)
        if only in (None, "resume"):
            rows += await resume_ours(running, messages=200, tokens=20_000)
            rows += await resume_peer(running, tokens=20_000)
    return rows


def record(rows: list[dict[str, Any]]) -> None:
    """Replaces the recorded rows of the scenarios that were run."""
    ran = {row["scenario"] for row in rows}
    known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    kept = [row for row in known if row["scenario"] not in ran]
    RESULTS.write_text(json.dumps({"rows": kept + rows}, indent=2) + "\n")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[*STREAMS, "resume"], help="one scenario")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-record", action="store_true", help=f"leave {RESULTS.name} as it is")
    args = parser.parse_args()
    rows = asyncio.run(run(args.only, args.rounds))
    show(rows, Console(width=160))
    if not args.no_record:
        record(rows)
        print(f"Recorded in {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
