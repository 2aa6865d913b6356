"""Scenarios of turns, from the API's side: stops, steers, sub-agents, and what people see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from temporalio import activity
from temporalio.client import Client as TemporalClient
from temporalio.worker import Worker

from waystation.conformance.api_bench import FLUSH_SECONDS, RECORDED, ApiBench
from waystation.conformance.played_api import until
from waystation.conformance.scenarios import scenario
from waystation.models.events import Event, LiveDelta
from waystation.temporal.messages import RUN_TURN
from waystation.temporal.names import agent_task_queue

HOLD_AFTER_STOP_SECONDS: Final = 1.5
"""How long the scripted agent keeps a stopped turn: less than a session's grace."""
TAKEN_SECONDS: Final = 1.0
"""After this a process has the turn: else nothing would wind down."""
ROUNDS: Final = 5


@asynccontextmanager
async def holding_turns(temporal: TemporalClient, agent: str) -> AsyncIterator[None]:
    """Takes the turns of the scripted agent, and keeps them a little when they are stopped."""

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(given: dict[str, Any]) -> dict[str, Any]:
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            await asyncio.sleep(HOLD_AFTER_STOP_SECONDS)
            return {"outcome": "stopped"}

    async with Worker(
        temporal,
        task_queue=agent_task_queue(agent),
        activities=[run_turn],
        graceful_shutdown_timeout=timedelta(seconds=0),
    ):
        yield


@scenario("S-40", "S-42", "S-43", "S-44")
async def the_turn_is_controlled(bench: ApiBench) -> None:
    """Steered twice, once taken up, then stopped; another connection hears all of it again."""
    pen, report = await bench.pen(message="Wait."), bench.report
    for text in ("taken", "left"):
        bench.aside(pen.session.steer(text))
        steer = await pen.line.hears("steer", text=text)
        report.demand(
            "S-43",
            bool(steer and steer.get("steer_id") and steer.get("actor")),
            f"a steer is told as {steer}",
        )
    steer_id = pen.line.heard("steer", text="taken")[0]["steer_id"]
    fates = await pen.settled(await pen.write(("steer.consumed", None, {"steer_id": steer_id})))
    consumed = [e.data for e in await bench.events(pen.session) if e.type == "steer.consumed"]
    report.check("S-43", (fates, consumed) == ([RECORDED], [{"steer_id": steer_id}]), f"consumed: {consumed}")
    again = await bench.pen(session=pen.session, message="Wait.", line=await bench.line())
    report.check(
        "S-44", await again.line.hears("steer", text="left") is not None, "the steer isn't told again"
    )
    bench.aside(pen.session.stop(reason="enough"))
    stop = await pen.line.hears("stop", writer=pen.writer)
    as_it_should = bool(stop) and (stop["turn_id"], stop["reason"]) == ("t1", "enough") if stop else False
    report.check("S-40", as_it_should, f"the stop is told as {stop}")
    fenced = await pen.line.hears("fenced", writer=pen.writer)
    report.check("S-42", fenced is not None, f"the end is told as {fenced}")
    later = await bench.pen(session=pen.session, message="Wait.", line=await bench.line())
    stopped = await later.line.hears("stop", turn_id="t1")
    report.check("S-44", stopped is not None, f"to a later connection the stop is told as {stopped}")


@scenario("S-37", "S-41")
async def a_stopped_turn_writes_on(bench: ApiBench) -> None:
    """While its process winds down, only text of what it had begun counts."""
    pen, report = await bench.pen(message="Wait."), bench.report
    await asyncio.sleep(TAKEN_SECONDS)
    await pen.settled(await pen.write(("message.delta", "m", {"offset": 0, "text": "He"})))
    bench.aside(pen.session.stop())
    await pen.line.hears("stop", turn_id="t1")
    tail = ("message.delta", "m", {"offset": 2, "text": "llo"})
    fates = await pen.settled(await pen.write(tail, ("data.new", None, {}), ("message.started", "m2", {})))
    report.check("S-37", fates[1:] == ["turn-stopped"] * 2, f"an event and a new message became {fates[1:]}")
    await pen.line.hears("fenced")
    said = [e.data.get("text") for e in await bench.events(pen.session) if e.message_id == "m"]
    report.check(
        "S-41",
        (fates[0], said) == (RECORDED, ["Hello"]),
        f"its text became {fates[0]}, and the message {said}",
    )


@scenario("S-45", "S-46", "S-47")
async def a_sub_agent_is_spawned(bench: ApiBench) -> None:
    """Twice under one key, and once of a turn that isn't there."""
    pen, report = await bench.pen(message="Wait."), bench.report
    spawn = {"parent_turn_id": "t1", "attempt": 1, "key": "k", "agent": bench.agent, "text": "Wait, too."}
    turns = []
    for request, parent in (("r1", "t1"), ("r2", "t1"), ("r3", "t9")):
        asked = {"op": "spawn", "writer": pen.writer, "session_id": pen.session.id, "request": request}
        await pen.line.send({**asked, "spawn": {**spawn, "parent_turn_id": parent}})
        if parent == "t1":
            turns.append(await pen.line.hears("spawned", request=request))
    ids = [frame and frame.get("turn_id") for frame in turns]
    report.check("S-45", ids == ["t1.1", "t1.1"], f"the spawns of one key are told as {ids}")
    problem = await pen.line.hears("problem", request="r3")
    report.check("S-47", problem is not None, f"the spawn of no turn is answered with {problem}")
    bench.aside(pen.session.stop(turn_id="t1.1"))
    finished = await pen.line.hears("finished", turn_id="t1.1")
    report.check(
        "S-46",
        bool(finished) and finished["outcome"] == "stopped" if finished else False,
        f"told as {finished}",
    )


@scenario("S-60", "S-61")
async def somebody_watches(bench: ApiBench) -> None:
    """Text comes early, but not before what was written before it."""
    pen, report = await bench.pen(), bench.report
    seen: list[Event | LiveDelta] = []

    async def watch() -> None:
        async for one in pen.session.events():
            seen.append(one)  # noqa: PERF401 - it is looked at meanwhile

    bench.aside(watch())
    await until(lambda: seen, FLUSH_SECONDS)
    await pen.write(("message.delta", "early", {"offset": 0, "text": "soon"}), flush=False)
    await until(lambda: _place(seen, "early") is not None, FLUSH_SECONDS)
    first = _place(seen, "early")
    live = first is not None and isinstance(seen[first], LiveDelta)
    report.check("S-61", live, "text came live" if live else "text came with the log")
    for at in range(ROUNDS):
        told: Any = ("data.told", None, {"at": at})
        last = await pen.write(told, ("message.delta", f"m{at}", {"offset": 0, "text": "then "}), flush=False)
        await pen.settled(last)
    await until(lambda: _place(seen, f"m{ROUNDS - 1}") is not None, FLUSH_SECONDS)
    wrong = []
    for at in range(ROUNDS):
        place = _place(seen, f"m{at}")
        told_at = next(
            (i for i, one in enumerate(seen) if one.type == "data.told" and one.data.get("at") == at), None
        )
        if place is None or told_at is None or place < told_at:
            wrong.append((told_at, place))
    report.check("S-60", not wrong, f"of {ROUNDS} texts after an event, out of order: {wrong or 'none'}")


def _place(seen: list[Event | LiveDelta], message_id: str) -> int | None:
    return next(
        (at for at, one in enumerate(seen) if one.message_id == message_id and one.type == "message.delta"),
        None,
    )
