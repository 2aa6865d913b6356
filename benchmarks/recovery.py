"""Kills each process with ``kill -9`` during answers, and measures when the screens continue."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import rounded
from benchmarks.ours import Waystation, close, each, patiently, running
from benchmarks.peers import redis_streams
from benchmarks.scenario import OURS, Aim, Chart, Column, Row, Say, Scenario, Size
from tests.support import eventually
from tests.world.process import Process
from waystation.client import Session

PROCESSES = ("worker", "API", "agent", "Temporal", "Redis")
ROUNDS = {Size.QUICK: 1, Size.DEFAULT: 3, Size.LONG: 10}
SESSIONS = 5
WATCH_SECONDS = 2.0
"""How long everything runs before the kill."""
STEADY_SECONDS = 1.5
"""How long text must arrive without a pause on every screen until a process counts as recovered."""
DEADLINE_SECONDS = 60.0
FLOWING_SECONDS = 1.0
"""A gap between texts that is longer than this counts as a pause."""


@dataclass(frozen=True)
class Pauses:
    """The longest pause of any screen around a kill: of text, and of durable events."""

    screen_seconds: float
    durable_seconds: float


class Screen:
    """A client of a session that reconnects by itself and notes when something new arrived."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shown: list[float] = []
        self.durable: list[float] = []
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        cursor, length = 0, 0
        async for _ in self.session.events():
            now, transcript = time.monotonic(), self.session.transcript
            text = sum(len(message.text) for message in transcript.messages)
            # A retried turn withdraws what it had written, so text that became shorter is news, too.
            if text != length:
                length = text
                self.shown.append(now)
            if transcript.cursor != cursor:
                cursor = transcript.cursor
                self.durable.append(now)

    def flows_since(self, moment: float) -> bool:
        """Returns whether text has arrived without a pause for a while, all of it after ``moment``."""
        recent = [at for at in self.shown if at > time.monotonic() - STEADY_SECONDS]
        if not recent or recent[0] < moment or not self.durable or self.durable[-1] < recent[0]:
            return False
        edges = [time.monotonic() - STEADY_SECONDS, *recent, time.monotonic()]
        return longest_pause(edges) < FLOWING_SECONDS

    async def stop(self) -> None:
        """Disconnects."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def longest_pause(moments: Sequence[float]) -> float:
    """Returns the longest time between two consecutive moments, in seconds."""
    return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)


async def run(size: Size, say: Say) -> list[Row]:
    """Returns a row for each process that was killed."""
    async with AsyncExitStack() as resources:
        folder = Path(resources.enter_context(TemporaryDirectory()))
        settings = {}
        redis: Process | None = None
        try:
            redis = resources.enter_context(redis_streams.server(folder))
            settings["redis_url"] = redis.url
        except FileNotFoundError as missing:
            say(f"  Redis is left out: {missing}")
        system = await resources.enter_async_context(running(**settings))
        api, worker, agent = system.stack.processes
        processes = (worker, api, agent, system.stack.temporal, redis)
        rows = []
        for name, process in zip(PROCESSES, processes, strict=True):
            if process is None:
                continue
            say(f"  kill -9 of {name}")
            rounds = [await _kill(system, process) for _ in range(ROUNDS[size])]
            rows.append(_row(name, rounds))
    return rows


async def _kill(system: Waystation, process: Process) -> Pauses | None:
    """Returns the longest pauses of any screen around the kill, or ``None`` if a screen never continued."""
    sessions = await system.sessions(SESSIONS)
    screens = [Screen(session) for session in sessions]
    await each(sessions, lambda session: patiently(lambda: session.send("tokens=100000 rate=50")))
    began = time.monotonic()
    await eventually(lambda: all(screen.flows_since(began) for screen in screens), within=DEADLINE_SECONDS)
    await asyncio.sleep(WATCH_SECONDS)
    killed = time.monotonic()
    process.kill()
    process.start()
    pauses = None
    with contextlib.suppress(AssertionError):
        await eventually(
            lambda: all(screen.flows_since(killed) for screen in screens), within=DEADLINE_SECONDS
        )
        pauses = Pauses(
            max(_pause_around(screen.shown, killed) for screen in screens),
            max(_pause_around(screen.durable, killed) for screen in screens),
        )
    for screen in screens:
        await screen.stop()
    await each(sessions, lambda session: patiently(session.stop))
    await each(sessions, close)
    return pauses


def _pause_around(moments: Sequence[float], killed: float) -> float:
    before = [moment for moment in moments if moment <= killed][-1:]
    return longest_pause([*before, *(moment for moment in moments if moment > killed)])


def _row(name: str, rounds: Sequence[Pauses | None]) -> Row:
    recovered = [pauses for pauses in rounds if pauses]
    row: Row = {"system": OURS, "killed": name, "recovered": round(len(recovered) / len(rounds), 2)}
    if recovered:
        row |= {
            "screen_s": rounded(statistics.median(pauses.screen_seconds for pauses in recovered)),
            "screen_max_s": rounded(max(pauses.screen_seconds for pauses in recovered)),
            "durable_s": rounded(statistics.median(pauses.durable_seconds for pauses in recovered)),
        }
    return row


SCENARIO = Scenario(
    name="recovery",
    title="Recovery after kill -9",
    shows="""
        Five sessions stream 50 tokens a second each, each with a client that reconnects by itself. A process
        is killed and restarted immediately, as a supervisor would do. `screen` is the longest pause of text
        on any of the five screens, `durable` the longest pause between durable events there. Both include the
        start of the process. There is one process of each kind: the worst case.
        """,
    does_not_show=(
        """What a second process of the kind does: with two workers, APIs or agents the other one takes over
        without waiting for a start.""",
        """The agent's pause is its heartbeat timeout (5 seconds by default, a setting): Temporal can't know
        earlier that a silent process is dead. The turn then starts again.""",
        """Screens that stall while the worker is down: only the log pauses. A task that the dead worker had
        started goes to another one only after the task's 10 seconds; others wait 5 seconds for the worker
        that had their workflow in memory.""",
        """A server that starts instantly: most of the API's pause is Python loading it, and clients retry
        after a second.""",
        "A lost machine or disk. Temporal's dev server keeps its state in a file that survives the kill.",
        "A peer: none of them restarts a writer, so there is nothing to wait for.",
    ),
    keys=(Column("killed", "killed"),),
    columns=(
        Column("recovered", "recovered", "higher", grain=0.01),
        Column("screen_s", "screen pause s", "lower", grain=0.3),
        Column("screen_max_s", "longest s"),
        Column("durable_s", "durable pause s", "lower", grain=0.5),
    ),
    charts=(
        Chart(
            "Longest pause on a screen after kill -9",
            x="killed",
            y="screen_s",
            kind="bars",
            log_x=False,
            log_y=False,
        ),
    ),
    aims=tuple(Aim({"killed": name}, "recovered", 1.0, "at least") for name in PROCESSES),
    run=run,
)
