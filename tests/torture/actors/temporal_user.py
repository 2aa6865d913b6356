"""Somebody with Temporal's own client: asks, signals, cancels, and ends a turn's workflow."""

import asyncio
import time
from typing import Final

from temporalio.exceptions import TemporalError
from temporalio.service import RPCError

from tests.torture.actors.base import Acting

CALL_SECONDS: Final = 10.0
ODD: Final = (
    17,
    None,
    [],
    {"a": {"b": []}},
    "x",
    {"text": ""},
    {"operator": {"id": "root"}},
    {"turn_id": {}},
)


class TemporalUser(Acting):
    """Uses the documented names (docs/operations.md)."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        number = 0
        while self.goes_on:
            number += 1
            did = self.chance.choices(
                ["query", "stop", "steer", "bad signal", "bad update", "terminate turn", "cancel"],
                [8, 4, 4, 3, 3, 2, 1],
            )[0]
            began, error = time.monotonic(), None
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._do(did, f"{self.name}-{number}")
            except (
                RPCError,
                TemporalError,
                TimeoutError,
                RuntimeError,
            ) as failure:
                error = f"{type(failure).__name__}: {failure}"[:300]
            self.note("temporal", did=did, id=f"{self.name}-{number}", began=round(began, 3), error=error)
            await self.rest(1, 6)

    async def _do(self, what: str, id_: str) -> None:
        assert self.world.client is not None, "the world has started"
        session = self.world.client.get_workflow_handle(self.session)
        match what:
            case "query":
                await session.query("snapshot")
                await session.query("replay", args=[0, 100])
            case "stop":
                await session.signal("stop", {"request_id": id_, "reason": f"stop {id_}"})
            case "steer":
                await session.signal("steer", {"request_id": id_, "text": f"steer {id_}"})
            case "bad signal":
                name = self.chance.choice(["stop", "steer", "publish", "turn_ended", "turn_attempt", "note"])
                await session.signal(name, self.chance.choice(ODD))
            case "bad update":
                name = self.chance.choice(["send", "spawn", "join", "leave", "take_over", "release"])
                await session.execute_update(name, self.chance.choice(ODD))
            case "terminate turn":
                snapshot = await session.query("snapshot")
                for turn in snapshot["running"][:1]:
                    turn_workflow = f"{self.session}/{turn['turn_id']}"
                    self.note("terminates", turn=turn["turn_id"])
                    await self.world.client.get_workflow_handle(turn_workflow).terminate("torture")
            case "cancel":
                await session.cancel()
