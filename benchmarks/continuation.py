"""Sessions that continue as new in the middle of streaming."""

from benchmarks.latency import LATENCY_COLUMNS
from benchmarks.ours import Waystation, close, each, running, send
from benchmarks.scenario import OURS, Aim, Column, Row, Say, Scenario, Size
from benchmarks.streaming import RATE_PER_SECOND, Load, Measured, subscribed

EVENTS_PER_RUN = {Size.QUICK: (0, 40), Size.DEFAULT: (0, 100, 25), Size.LONG: (0, 100, 25)}
TOKENS = {Size.QUICK: 100, Size.DEFAULT: 500, Size.LONG: 2_000}
SESSIONS = 10


async def run(size: Size, say: Say) -> list[Row]:
    """Returns a row for each number of history events after which a session continues as new."""
    rows = []
    for limit in EVENTS_PER_RUN[size]:
        say(f"  continue as new after {limit or 'as many events as Temporal likes'}")
        async with running(limits__events_per_run=limit) as system:
            rows.append(await _measure(system, limit, TOKENS[size]))
    return rows


async def _measure(system: Waystation, limit: int, tokens: int) -> Row:
    load = Load(streams=SESSIONS, subscribers=1, tokens=tokens)
    sessions = await system.sessions(SESSIONS)

    async def begin() -> None:
        await each(sessions, lambda session: send(session, f"tokens={tokens} rate={RATE_PER_SECOND}"))

    measured = Measured()
    measured.add(load, await subscribed([system.subscription(s.id) for s in sessions], load, begin))
    runs = [(await session.snapshot()).runs for session in sessions]
    await each(sessions, close)
    return {
        "system": OURS,
        "events_per_run": limit or "Temporal's choice",
        "continued": round(sum(runs) / len(runs) - 1, 1),
        **measured.columns(),
    }


SCENARIO = Scenario(
    name="continuation",
    title="Continue-as-new under load",
    shows="""
        Ten sessions stream 50 tokens a second each and continue as new after a given number of history
        events, mid-answer. In production that happens after thousands of events; here it is forced, to see
        whether a screen notices.
        """,
    does_not_show=(
        """A large state: what is carried over grows with the conversation, and above a threshold goes to
        external storage. These conversations are one answer long.""",
        "A peer: `workflow_streams` leaves continuing as new to the workflow that hosts it.",
    ),
    keys=(Column("events_per_run", "history events a run"),),
    columns=(Column("continued", "times continued"), *LATENCY_COLUMNS),
    aims=(Aim({"events_per_run": 25}, "delivered", 1.0, "at least"),),
    run=run,
)
