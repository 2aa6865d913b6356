"""What sellers and the processor do wrong: they lie, change prices, are slow, lose answers after acting."""

import asyncio
import contextlib
from typing import Any, Final

import httpx

from tests.torture.plan import Fault
from tests.torture.world import World
from tests.world.process import HttpProcess

TELL_SECONDS: Final = 2.0
ITEM: Final = "mug_blue"


async def trouble(world: World, fault: Fault) -> bool:
    """The next request of a kind meets trouble: before what it asks for is done, or after."""
    settings = fault.settings
    if settings["trouble"]["kind"] == "die":
        world.expect_end(fault.target)
    return await _tell(world, fault, "/sandbox/troubles", {"match": settings["match"], **settings["trouble"]})


async def misbehave(world: World, fault: Fault) -> bool:
    """A shop lies, overcharges, changes its prices, or dies at the worst moment; then it is honest again."""
    behaviour = fault.settings["behaviour"]
    if "die_in" in behaviour:
        world.expect_end(fault.target)
    told = await _tell(world, fault, "/sandbox/behaviour", behaviour)
    await asyncio.sleep(fault.lasts_seconds)
    await _tell(world, fault, "/sandbox/behaviour", {})
    return told


async def restock(world: World, fault: Fault) -> bool:
    """A shop has sold out, or gets more; then it has plenty."""
    told = await _tell(world, fault, f"/sandbox/stock/{ITEM}/{fault.settings['on_hand']}", None)
    await asyncio.sleep(fault.lasts_seconds)
    await _tell(world, fault, f"/sandbox/stock/{ITEM}/100", None)
    return told


async def _tell(world: World, fault: Fault, where: str, body: dict[str, Any] | None) -> bool:
    """Tells a seller how to behave, and returns whether it heard. Who is away comes back honest."""
    process = world.processes[fault.target]
    assert isinstance(process, HttpProcess), "sellers and the processor serve HTTP"
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=TELL_SECONDS) as http:
        with contextlib.suppress(httpx.HTTPError):
            headers = {"Content-Type": "application/json"}
            await http.request("POST", process.url + where, json=body, headers=headers)
            return True
    return False
