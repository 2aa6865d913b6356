"""Runs a plan: starts the world, lets actors act and faults strike, waits for calm, reads what is left."""

import asyncio
import time
import traceback
from pathlib import Path
from typing import Final

import httpx

from tests.torture.actors import KINDS
from tests.torture.actors.base import Acting
from tests.torture.evidence import Evidence
from tests.torture.evidence import Final as FinalState
from tests.torture.faults import strike_all
from tests.torture.plan import Plan
from tests.torture.reading import end_all, read_final
from tests.torture.reading_money import read_money
from tests.torture.record import Recorder, read_record
from tests.torture.world import World, running_world

CALM_SECONDS: Final = 150.0
"""How long actors may take to finish after the last fault: hosts wait for turns, devices read to the end."""
READ_MONEY_SECONDS: Final = 180.0


async def run(plan: Plan, folder: Path) -> Evidence:
    """Runs the plan in a folder, which then has everything that was noted and printed."""
    (folder / "plan.json").write_text(plan.to_json())
    record = Recorder(folder / "record.jsonl")
    async with (
        httpx.AsyncClient(
            verify=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, keepalive_expiry=2.0),
        ) as http,
        running_world(plan, folder, record) as world,
    ):
        await _act(world, http)
        final = await read_final(world, http)
        if world.market is not None:
            await _read_market(world, http, final)
        await end_all(world, final)
        logs = world.logs()
    record.close()
    evidence = Evidence(plan, list(read_record(record.path)), final, logs)
    evidence.keep(folder)
    return evidence


async def _read_market(world: World, http: httpx.AsyncClient, final: FinalState) -> None:
    """Reads what is left of money; what can't be read fails the run, and leaves the rest to be judged."""
    try:
        async with asyncio.timeout(READ_MONEY_SECONDS):
            await read_money(world, http, final)
    except Exception:
        world.record.note("reading", "actor_failed", traceback=traceback.format_exc())


async def _act(world: World, http: httpx.AsyncClient) -> None:
    """Lets everybody act, with faults; then without faults until everybody is done."""
    plan, began = world.plan, time.monotonic()
    acting = [KINDS[actor.kind](actor, world, http, began) for actor in plan.actors]
    tasks = {asyncio.create_task(_one(actor, began)): actor for actor in acting}
    world.record.note("run", "begin", wall=time.time())
    await strike_all(world, plan.faults, began)
    await asyncio.sleep(max(0.0, began + plan.seconds - time.monotonic()))
    try:
        await world.calm()
    except AssertionError as error:
        world.record.note("run", "never_calm", why=str(error)[-2_000:])
    world.record.note("run", "calm")
    for actor in acting:
        actor.calm.set()
    _, late = await asyncio.wait(tasks, timeout=CALM_SECONDS)
    for task in late:
        world.record.note(tasks[task].name, "unfinished", kind=tasks[task].actor.kind)
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    world.record.note("run", "over")


async def _one(actor: Acting, began: float) -> None:
    await asyncio.sleep(max(0.0, began + actor.actor.begins_seconds - time.monotonic()))
    try:
        await actor.run()
    except Exception:
        # A fault of the actor's own: the run has failed, and says where.
        actor.note("actor_failed", traceback=traceback.format_exc())
