"""What goes wrong: a function for each kind of fault, which strikes, waits, and makes it good again.

A fault counts if it struck something that was going on, which its function returns. Those that befall one
connection wait for one that carries something; many may happen at the same time.
A new kind is a function here, its name in ``KINDS``, and its weight in a profile.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tests.torture import misdeeds
from tests.torture.disk import fill
from tests.torture.plan import Fault
from tests.torture.proxy import Harm, Mishap
from tests.torture.world import World

TERMINATE_PATIENCE_SECONDS: Final = 30.0
MISHAP_PATIENCE_SECONDS: Final = 3.0
"""How long a mishap waits for a connection that it can befall."""
USED_SECONDS: Final = 5.0
"""A payload storage that was written to in this time was in use."""
Strike = Callable[[World, Fault], Awaitable[bool]]


async def kill(world: World, fault: Fault) -> bool:
    """kill -9; the process is away for as long as the fault lasts."""
    world.hold(fault.target)
    try:
        served = world.serves(fault.target)
        world.kill(fault.target)
        await asyncio.sleep(fault.lasts_seconds)
    finally:
        world.let_go(fault.target)
    return served


async def terminate(world: World, fault: Fault) -> bool:
    """SIGTERM, as a deployment sends it."""
    world.hold(fault.target)
    try:
        served = await _terminate(world, fault, fault.target)
        await asyncio.sleep(fault.lasts_seconds)
    finally:
        world.let_go(fault.target)
    return served


async def deploy(world: World, fault: Fault) -> bool:
    """A rolling deployment: each process of a kind is told to end and started again, one after another."""
    served = False
    for name in [name for name in world.processes if name.startswith(f"{fault.target}-")]:
        served |= await _terminate(world, fault, name)
        await world.until_started_again(name)
    return served


async def _terminate(world: World, fault: Fault, name: str) -> bool:
    served = world.serves(name)
    seconds = await world.terminate(name, TERMINATE_PATIENCE_SECONDS)
    world.record.note(name, "terminated", seconds=seconds, fault=fault.name)
    return served


async def pause(world: World, fault: Fault) -> bool:
    """SIGSTOP and SIGCONT."""
    served = world.serves(fault.target)
    await world.pause(fault.target, fault.lasts_seconds)
    return served


async def cut(world: World, fault: Fault) -> bool:
    """Ends every connection of a wire, and takes none for a while."""
    wire = world.wires[fault.target]
    before, wire.closed = wire.struck, True
    wire.cut()
    await asyncio.sleep(fault.lasts_seconds)
    wire.closed = False
    return wire.struck > before


async def delay(world: World, fault: Fault) -> bool:
    """Holds back every piece for a moment."""
    wire = world.wires[fault.target]
    before, wire.delay_seconds = wire.struck, fault.settings["seconds"]
    await asyncio.sleep(fault.lasts_seconds)
    wire.delay_seconds = 0.0
    return wire.struck > before


async def answer_502(world: World, fault: Fault) -> bool:
    """A load balancer that finds nobody."""
    return await _answer(world, fault, 502)


async def answer_401(world: World, fault: Fault) -> bool:
    """A proxy that knows nobody."""
    return await _answer(world, fault, 401)


async def _answer(world: World, fault: Fault, status: int) -> bool:
    wire = world.wires[fault.target]
    before, wire.answer_status = wire.struck, status
    wire.cut()
    await asyncio.sleep(fault.lasts_seconds)
    wire.answer_status = None
    return wire.struck > before


async def payloads_away(world: World, fault: Fault) -> bool:
    """The folder of large payloads can be neither read nor written."""
    away = world.payloads.with_name("payloads-away")
    if not world.payloads.is_dir() or away.exists():
        return False
    used = _in_use(world)
    world.payloads.rename(away)
    world.payloads.touch()
    try:
        await asyncio.sleep(fault.lasts_seconds)
    finally:
        world.payloads.unlink()
        away.rename(world.payloads)
    return used


async def disk_full(world: World, fault: Fault) -> bool:
    """There is no room for large payloads."""
    if not world.has_disk:
        world.record.note("faults", "left_out", fault=fault.name, why="no disk may be mounted here")
        return False
    used = _in_use(world)
    await fill(world.disk, fault.lasts_seconds)
    return used


def _in_use(world: World) -> bool:
    """Returns whether payloads have been stored lately."""
    return world.payloads.is_dir() and any(
        path.stat().st_mtime > time.time() - USED_SECONDS for path in world.payloads.rglob("*")
    )


# What befalls one connection


async def tear(world: World, fault: Fault) -> bool:
    """A connection ends at some byte of what it carries."""
    return await _befall(world, fault, "tear")


async def cut_connection(world: World, fault: Fault) -> bool:
    """A connection is reset, and what it carried is lost."""
    return await _befall(world, fault, "cut")


async def delay_piece(world: World, fault: Fault) -> bool:
    """A piece of what a connection carries is late."""
    return await _befall(world, fault, "delay", fault.settings["seconds"])


async def stall_connection(world: World, fault: Fault) -> bool:
    """A connection carries nothing more, and ends only after a while."""
    return await _befall(world, fault, "stall", fault.lasts_seconds)


async def trickle(world: World, fault: Fault) -> bool:
    """A piece arrives in many small parts."""
    return await _befall(world, fault, "trickle")


async def refuse_502(world: World, fault: Fault) -> bool:
    """One connection meets a load balancer that finds nobody."""
    return await _befall(world, fault, "answer", status=502)


async def refuse_401(world: World, fault: Fault) -> bool:
    """One connection meets a proxy that knows nobody."""
    return await _befall(world, fault, "answer", status=401)


async def _befall(world: World, fault: Fault, harm: Harm, seconds: float = 0.0, *, status: int = 0) -> bool:
    mishap = Mishap(harm, bytes=fault.settings["bytes"], seconds=seconds, status=status)
    if not await world.wires[fault.target].befall(mishap, MISHAP_PATIENCE_SECONDS):
        return False
    note_begin(world, fault)
    await mishap.over.wait()
    return True


MISHAPS: Final[dict[str, Strike]] = {
    function.__name__: function
    for function in (
        tear, cut_connection, delay_piece, stall_connection, trickle, refuse_502, refuse_401,
    )
}  # fmt: skip
KINDS: Final[dict[str, Strike]] = MISHAPS | {
    function.__name__: function
    for function in (
        kill, terminate, deploy, pause, cut, delay, answer_502, answer_401, payloads_away, disk_full,
        misdeeds.trouble, misdeeds.misbehave, misdeeds.restock,
    )
}  # fmt: skip


def note_begin(world: World, fault: Fault) -> None:
    """Notes that a fault strikes now; a mishap does when it has found its connection."""
    about = {"fault": fault.name, "kind": fault.kind, "target": fault.target}
    world.record.note("faults", "fault", mishap=fault.kind in MISHAPS, **about)


async def strike_all(world: World, faults: tuple[Fault, ...], began: float) -> None:
    """Lets each fault strike at its time; one target is struck by one fault at a time, mishaps aside."""
    free: dict[str, asyncio.Lock] = {fault.target: asyncio.Lock() for fault in faults}

    async def strike(fault: Fault) -> None:
        await asyncio.sleep(max(0.0, began + fault.at_seconds - asyncio.get_running_loop().time()))
        if fault.kind in MISHAPS:
            note_end(fault, await MISHAPS[fault.kind](world, fault))
            return
        async with free[fault.target]:
            note_begin(world, fault)
            struck = False
            try:
                struck = await KINDS[fault.kind](world, fault)
            finally:
                note_end(fault, struck)

    def note_end(fault: Fault, struck: bool) -> None:
        world.record.note("faults", "fault_over", fault=fault.name, struck=struck)

    tasks = [asyncio.create_task(strike(fault)) for fault in faults]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
