"""Somebody with Temporal's own client: asks, signals, cancels, resets, and ends a turn's workflow."""

import asyncio
import time
from typing import Any, Final

from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError

from tests.torture.actors.base import Acting
from tests.world.temporal import TEMPORAL

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
                ["query", "stop", "steer", "bad signal", "bad update", "terminate turn", "cancel", "reset"],
                [8, 4, 4, 3, 3, 2, 1, 3],
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
            case "reset":
                await self._reset(session)

    async def _reset(self, session: WorkflowHandle[Any, Any]) -> None:
        """Resets the session to its last good task, with Temporal's command line (docs/operations.md)."""
        assert self.world.client is not None, "the world has started"
        run_id = (await session.describe()).run_id
        completed = last_completed(await session.fetch_history())
        if completed is None:
            return
        command = await asyncio.create_subprocess_exec(
            TEMPORAL, "workflow", "reset", "--workflow-id", self.session, "--run-id", run_id, "--event-id",
            str(completed), "--reason", "torture", "--address", self.world.temporal_address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await command.communicate()
        reset = self.world.client.get_workflow_handle(self.session, run_id=run_id)
        went_back = begun_after(await reset.fetch_history(), completed)
        self.note("reset", run=run_id, task=completed, code=command.returncode, said=said.decode()[-300:],
                  went_back_before=went_back)  # fmt: skip


def last_completed(history: WorkflowHistory) -> int | None:
    """Returns the number of the last completed workflow task."""
    return max(
        (
            event.event_id
            for event in history.events
            if event.HasField("workflow_task_completed_event_attributes")
        ),
        default=None,
    )


def begun_after(history: WorkflowHistory, task: int) -> list[str]:
    """Returns which updates a reset to this task took back, to be sent again."""
    return [
        event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
        for event in history.events
        if event.event_id > task and event.HasField("workflow_execution_update_accepted_event_attributes")
    ]
