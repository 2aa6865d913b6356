"""What a step of a turn costs: from its function's end to the next line, with the result durable."""

from typing import Any

from benchmarks.figures import percentile, rounded
from benchmarks.ours import Waystation, close, running, send
from benchmarks.scenario import OURS, Aim, Column, Row, Say, Scenario, Size
from tests.support import eventually
from waystation.client import Session

AT_ONCE = {Size.QUICK: (1,), Size.DEFAULT: (1, 8, 50), Size.LONG: (1, 8, 50)}
STEPS = {Size.QUICK: 20, Size.DEFAULT: 400, Size.LONG: 1_000}
"""Of one turn."""
DEADLINE_SECONDS = 300.0


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by how many steps of a turn run side by side."""
    rows = []
    async with running() as system:
        for at_once in AT_ONCE[size]:
            say(f"  {STEPS[size]} steps, {at_once} at once")
            rows.append(await _measure(system, STEPS[size], at_once))
    return rows


async def _measure(system: Waystation, steps: int, at_once: int) -> Row:
    session = await system.start()
    await send(session, f"steps={steps} at_once={at_once}")
    found: Any = await eventually(lambda: _result(session), within=DEADLINE_SECONDS)
    await close(session)
    ms = [took / 1e6 for took in found["took_ns"]]
    return {
        "system": OURS,
        "at_once": at_once,
        "p50_ms": rounded(percentile(ms, 0.5)),
        "p99_ms": rounded(percentile(ms, 0.99)),
        "per_second": rounded(steps / (found["all_ns"] / 1e9)),
    }


async def _result(session: Session) -> object:
    events = (await session.replay()).events
    return next((event.data["result"] for event in events if event.type == "turn.completed"), None)


SCENARIO = Scenario(
    name="steps",
    title="A step of a turn",
    shows="""
        A turn runs `turn.step` 400 times with a function that does nothing, one after the other and side by
        side. Measured in the agent's process around each call: that is one update of the turn's own workflow,
        and its answer. When it is there, a later attempt gets the result back.
        """,
    does_not_show=("A Temporal elsewhere: here everything is on one machine.",),
    keys=(Column("at_once", "steps at once"),),
    columns=(
        Column("p50_ms", "p50 (ms)", better="lower", grain=2),
        Column("p99_ms", "p99 (ms)", better="lower", grain=10),
        Column("per_second", "steps per second", better="higher", grain=10),
    ),
    run=run,
    aims=(Aim({"at_once": 1}, "p50_ms", 20),),
)
