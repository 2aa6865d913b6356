"""What goes wrong: a function for each kind of fault, which strikes, waits, and makes it good again.

A new kind is a function here, its name in ``KINDS``, and its weight in a profile.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from tests.torture import misdeeds
from tests.torture.disk import fill
from tests.torture.plan import Fault
from tests.torture.world import World

TERMINATE_PATIENCE_SECONDS: Final = 30.0
Strike = Callable[[World, Fault], Awaitable[None]]


async def kill(world: World, fault: Fault) -> None:
    """kill -9; the process is away for as long as the fault lasts."""
    world.hold(fault.target)
    try:
        world.kill(fault.target)
        await asyncio.sleep(fault.lasts_seconds)
    finally:
        world.let_go(fault.target)


async def terminate(world: World, fault: Fault) -> None:
    """SIGTERM, as a deployment sends it."""
    world.hold(fault.target)
    try:
        seconds = await world.terminate(fault.target, TERMINATE_PATIENCE_SECONDS)
        world.record.note(fault.target, "terminated", seconds=seconds, fault=fault.name)
        await asyncio.sleep(fault.lasts_seconds)
    finally:
        world.let_go(fault.target)


async def deploy(world: World, fault: Fault) -> None:
    """A rolling deployment: each process of a kind is told to end and started again, one after another."""
    for name in [name for name in world.processes if name.startswith(f"{fault.target}-")]:
        seconds = await world.terminate(name, TERMINATE_PATIENCE_SECONDS)
        world.record.note(name, "terminated", seconds=seconds, fault=fault.name)
        await world.until_started_again(name)


async def pause(world: World, fault: Fault) -> None:
    """SIGSTOP and SIGCONT."""
    await world.pause(fault.target, fault.lasts_seconds)


async def cut(world: World, fault: Fault) -> None:
    """Ends every connection of a wire, and takes none for a while."""
    wire = world.wires[fault.target]
    wire.closed = True
    wire.cut()
    await asyncio.sleep(fault.lasts_seconds)
    wire.closed = False


async def delay(world: World, fault: Fault) -> None:
    """Holds back every piece for a moment."""
    wire = world.wires[fault.target]
    wire.delay_seconds = fault.settings["seconds"]
    await asyncio.sleep(fault.lasts_seconds)
    wire.delay_seconds = 0.0


async def tear(world: World, fault: Fault) -> None:
    """Cuts the next piece at a byte, and its connection with it."""
    world.wires[fault.target].tear_after_bytes = fault.settings["bytes"]


async def answer_502(world: World, fault: Fault) -> None:
    """A load balancer that finds nobody."""
    await _answer(world, fault, 502)


async def answer_401(world: World, fault: Fault) -> None:
    """A proxy that knows nobody."""
    await _answer(world, fault, 401)


async def _answer(world: World, fault: Fault, status: int) -> None:
    wire = world.wires[fault.target]
    wire.answer_status = status
    wire.cut()
    await asyncio.sleep(fault.lasts_seconds)
    wire.answer_status = None


async def payloads_away(world: World, fault: Fault) -> None:
    """The folder of large payloads can be neither read nor written."""
    away = world.payloads.with_name("payloads-away")
    if not world.payloads.is_dir() or away.exists():
        return
    world.payloads.rename(away)
    world.payloads.touch()
    try:
        await asyncio.sleep(fault.lasts_seconds)
    finally:
        world.payloads.unlink()
        away.rename(world.payloads)


async def disk_full(world: World, fault: Fault) -> None:
    """There is no room for large payloads."""
    if world.has_disk:
        await fill(world.disk, fault.lasts_seconds)
    else:
        world.record.note("faults", "left_out", fault=fault.name, why="no disk may be mounted here")


KINDS: Final[dict[str, Strike]] = {
    function.__name__: function
    for function in (
        kill, terminate, deploy, pause, cut, delay, tear, answer_502, answer_401, payloads_away, disk_full,
        misdeeds.trouble, misdeeds.misbehave, misdeeds.restock,
    )
}  # fmt: skip


async def strike_all(world: World, faults: tuple[Fault, ...], began: float) -> None:
    """Lets each fault strike at its time; one target is struck by one fault at a time."""
    free: dict[str, asyncio.Lock] = {fault.target: asyncio.Lock() for fault in faults}

    async def strike(fault: Fault) -> None:
        await asyncio.sleep(max(0.0, began + fault.at_seconds - asyncio.get_running_loop().time()))
        about = {"fault": fault.name, "kind": fault.kind, "target": fault.target}
        async with free[fault.target]:
            world.record.note("faults", "fault", **about)
            try:
                await KINDS[fault.kind](world, fault)
            finally:
                world.record.note("faults", "fault_over", **about)

    tasks = [asyncio.create_task(strike(fault)) for fault in faults]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
