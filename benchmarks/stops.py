"""From a person's stop to the last token on the screen."""

import asyncio
import time
from dataclasses import dataclass

from benchmarks.figures import percentile, rounded
from benchmarks.ours import Waystation, close, each, patiently, running, send
from benchmarks.readers import STAMP, reading
from benchmarks.scenario import OURS, Aim, Column, Row, Say, Scenario, Size
from benchmarks.streaming import RATE_PER_SECOND
from waystation.client import Session

SESSIONS = {Size.QUICK: (3,), Size.DEFAULT: (50, 100), Size.LONG: (200,)}
STOPS = {Size.QUICK: 3, Size.DEFAULT: 50, Size.LONG: 200}
ENDS = '"type":"turn.stopped"'
LIVE = r'data: \{"type":"message\.delta"[^\n]*?' + STAMP
"""A token in a live delta; the copy in the completed message doesn't count."""
STREAM_SECONDS = 2.0
"""How long all of them stream before the first is stopped."""
PAUSE_SECONDS = 0.1
DEADLINE_SECONDS = 300.0


@dataclass
class Stop:
    """When a stop was requested and answered, in nanoseconds of the machine's monotonic clock."""

    asked_ns: int
    answered_ns: int


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by the number of streaming sessions."""
    rows = []
    async with running() as system:
        for sessions in SESSIONS[size]:
            say(f"  {sessions} sessions stream, {STOPS[size]} are stopped")
            rows.append(await _measure(system, sessions, STOPS[size]))
    return rows


async def _measure(system: Waystation, count: int, stops: int) -> Row:
    sessions = await system.sessions(count)
    watched = sessions[:stops]
    subscriptions = [system.subscription(session.id, ends=ENDS, tokens=LIVE) for session in watched]
    async with reading(subscriptions, DEADLINE_SECONDS) as readers:
        await each(sessions, lambda session: send(session, f"tokens=100000 rate={RATE_PER_SECOND}"))
        await asyncio.sleep(STREAM_SECONDS)
        asked = [await _stop(session) for session in watched]
        readings = await readers.finished()
    await each(sessions[stops:], lambda session: patiently(session.stop))
    await each(sessions, close)
    pairs = list(zip(asked, readings.last_token_ns, readings.ended_ns, strict=True))
    last = [max(token - stop.asked_ns, 0) / 1e6 for stop, token, _ in pairs]
    shown = [(ended - stop.asked_ns) / 1e6 for stop, _, ended in pairs if ended]
    answered = [(stop.answered_ns - stop.asked_ns) / 1e6 for stop in asked]
    return {
        "system": OURS,
        "sessions": count,
        "last_delta_p50_ms": rounded(percentile(last, 0.5)),
        "last_delta_p99_ms": rounded(percentile(last, 0.99)),
        "shown_p50_ms": rounded(percentile(shown, 0.5)),
        "answered_p50_ms": rounded(percentile(answered, 0.5)),
        "after_the_answer": sum(token > stop.answered_ns for stop, token, _ in pairs),
    }


async def _stop(session: Session) -> Stop:
    asked = time.monotonic_ns()
    await patiently(session.stop)
    answered = time.monotonic_ns()
    await asyncio.sleep(PAUSE_SECONDS)
    return Stop(asked, answered)


SCENARIO = Scenario(
    name="stops",
    title="Stop to last token",
    shows="""
        Sessions stream 50 tokens a second each; 50 of them are stopped, one after the other. Measured
        from the request to the last live delta at the subscriber's socket, to `turn.stopped` there
        (what was written before the stop is complete by then), and to the response. `after the answer` counts
        the streams on which a delta arrived even later.
        """,
    does_not_show=(
        "A peer: none of them has a stop. Closing a connection doesn't stop a writer.",
        "What a model's provider charges until it notices: that depends on the agent's own code.",
    ),
    keys=(Column("sessions", "sessions streaming"),),
    columns=(
        Column("last_delta_p50_ms", "last delta p50 ms", "lower", grain=5),
        Column("last_delta_p99_ms", "last delta p99 ms", "lower", grain=20),
        Column("shown_p50_ms", "turn.stopped p50 ms", "lower", grain=10),
        Column("answered_p50_ms", "answer p50 ms", "lower", grain=10),
        Column("after_the_answer", "after the answer", "lower", grain=1),
    ),
    aims=(Aim({"sessions": 50}, "last_delta_p99_ms", 100), Aim({"sessions": 50}, "after_the_answer", 0)),
    run=run,
)
