"""What an idle session costs in memory."""

import time
from collections.abc import Sequence

from benchmarks.figures import percentile, rounded, slope
from benchmarks.ours import Waystation, each, running, send
from benchmarks.processes import memory_bytes
from benchmarks.readers import reading
from benchmarks.scenario import OURS, Column, Row, Say, Scenario, Size
from tests.world.process import Process
from waystation.client import Session

STEPS = {
    Size.QUICK: (50, 100),
    Size.DEFAULT: (250, 500, 1_000, 3_000, 10_000),
    Size.LONG: (250, 500, 1_000, 3_000, 10_000),
}
BUDGET_SECONDS = {Size.QUICK: 60, Size.DEFAULT: 360, Size.LONG: 3_600}
"""A step that would take longer than this is left out; most of the time goes into starting sessions."""
FOLLOWED = {Size.QUICK: 20, Size.DEFAULT: 500, Size.LONG: 1_000}
WOKEN = 20
CACHED_WORKFLOWS = 1_000
"""Temporal's default for how many workflows a worker keeps in memory."""
NEVER = "this is never in a stream"
HOLD_SECONDS = 90.0


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by the number of sessions without clients, and one row for sessions with a client each."""
    rows: list[Row] = []
    sessions: list[Session] = []
    starting_seconds = 0.0
    async with running(idle_poll_seconds=600) as system:
        for count in STEPS[size]:
            if sessions and starting_seconds * count / len(sessions) > BUDGET_SECONDS[size]:
                say(f"  {count} are left out: starting them would take too long on this machine")
                break
            say(f"  {count} idle sessions")
            began = time.monotonic()
            new = range(count - len(sessions))
            sessions += await each(new, lambda _: system.start())
            took = time.monotonic() - began
            starting_seconds += took
            per_second = len(new) / took
            row: Row = {"system": OURS, "sessions": count, "followed": 0, **_memory(system)}
            row |= {"started_per_second": rounded(per_second), "wake_p50_ms": await _wake(sessions[:WOKEN])}
            rows.append(row)
        rows.append(await _followed(system, sessions[-FOLLOWED[size] :], len(sessions)))
    return rows


async def _followed(system: Waystation, followed: Sequence[Session], count: int) -> Row:
    """Returns the row for sessions that each have an event stream open."""
    subscriptions = [system.subscription(session.id, ends=NEVER) for session in followed]
    async with reading(subscriptions, HOLD_SECONDS):
        return {"system": OURS, "sessions": count, "followed": len(followed), **_memory(system)}


async def _wake(sessions: Sequence[Session]) -> float:
    """Returns how long the oldest sessions take to accept a message; the worker has to read them again."""
    times = []
    for session in sessions:
        began = time.perf_counter()
        await send(session, "echo=1 Again.")
        times.append((time.perf_counter() - began) * 1e3)
    return rounded(percentile(times, 0.5))


def _memory(system: Waystation) -> Row:
    return {f"{name}_mb": rounded(memory_bytes(process) / 1e6) for name, process in _parts(system)}


def _parts(system: Waystation) -> list[tuple[str, Process]]:
    api, worker, _ = system.stack.processes
    return [("worker", worker), ("api", api), ("temporal", system.stack.temporal)]


def kilobytes_per_session(rows: Sequence[Row]) -> dict[str, float]:
    """Returns, by process, what one more session takes, from the slope over the rows.

    The worker's is taken while its cache fills (``worker``) and after (``worker, full``); ``api,
    followed`` is what a session with an open stream takes in the API.
    """
    alone = [row for row in rows if row["followed"] == 0]
    filling = [row for row in alone if row["sessions"] <= CACHED_WORKFLOWS]
    full = [row for row in alone if row["sessions"] >= CACHED_WORKFLOWS]
    found = {"worker": _slope(filling, "worker_mb"), "temporal": _slope(alone, "temporal_mb")}
    found["api"] = _slope(alone, "api_mb")
    if len(full) > 1:
        found["worker, full"] = _slope(full, "worker_mb")
    for row in rows:
        if row["followed"]:
            found["api, followed"] = (row["api_mb"] - alone[-1]["api_mb"]) * 1e3 / row["followed"]
    return found


def _slope(rows: Sequence[Row], column: str) -> float:
    return slope([(row["sessions"], row[column]) for row in rows]) * 1e3


def _notes(rows: list[Row]) -> list[str]:
    found = kilobytes_per_session(rows)
    each_kb = found["worker"]
    text = (
        f"From the slope, an idle session takes {each_kb:.0f} kB of a worker while it is among the "
        f"{CACHED_WORKFLOWS:,} that a worker keeps (**{_per_gb(each_kb)} per GB**), and "
        f"{max(found['api'], 0):.1f} kB of the API."
    )
    if "worker, full" in found:
        text += (
            f" Beyond these, {max(found['worker, full'], 0):.1f} kB each: a worker evicts those that have "
            "been idle longest and reads their history again when they wake, so idle sessions are bounded by "
            "Temporal's database and not by memory."
        )
    lines = [text]
    if "api, followed" in found:
        kb = found["api, followed"]
        lines.append(
            f"A session that someone watches takes {kb:.0f} kB of the API, its open stream included "
            f"({_per_gb(kb)} per GB)."
        )
    return lines


def _per_gb(kilobytes: float) -> str:
    return f"{1e6 / kilobytes:,.0f}" if kilobytes > 0 else "any number"


SCENARIO = Scenario(
    name="idle_sessions",
    title="Idle sessions and memory",
    shows="""
        Sessions have been started and wait for a first message: the resident memory of the worker, the API
        and Temporal's dev server, with more and more sessions; then the same with an open event stream to the
        last of them. `wake` is how long the oldest sessions take to accept a message.
        """,
    does_not_show=(
        """Temporal's dev server is not a cluster: it keeps SQLite and all services in one process, and its
        memory says nothing about Cassandra's or PostgreSQL's.""",
        "Conversations: a session's memory in the worker grows with its log.",
        """Ten thousand sessions if the table ends earlier: a machine that takes too long to start them skips
        the last step, and then only the slope says anything about larger numbers.""",
        """Released memory: resident memory is what the process has requested, including what Python and the
        allocator hold in reserve.""",
    ),
    keys=(Column("sessions", "sessions"), Column("followed", "with a client")),
    columns=(
        Column("worker_mb", "worker MB", "lower", grain=20),
        Column("api_mb", "API MB", "lower", grain=20),
        Column("temporal_mb", "Temporal MB"),
        Column("started_per_second", "started/s", "higher", grain=5),
        Column("wake_p50_ms", "wake p50 ms", "lower", grain=10),
    ),
    run=run,
    notes=_notes,
)
