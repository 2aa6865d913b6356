"""Somebody with Temporal's own client: asks, signals, cancels, ends a turn's workflow; resets sessions."""

import asyncio
import time
import uuid
from typing import Final

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError

from tests.torture.actors.base import Acting

CALL_SECONDS: Final = 10.0
RESET_TASKS: Final = 10
"""Somebody who resets goes back to one of so many tasks."""
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
                ["query", "stop", "steer", "answer", "bad signal", "bad update", "terminate turn", "cancel"],
                [8, 4, 4, 8, 3, 3, 2, 1],
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
            case "answer":
                for question in (await session.query("snapshot"))["questions"][:1]:
                    # Whether it fits is the session's business; an approval counts only with a proof.
                    value = {"decision": "approve"} if question["kind"] == "approval" else id_
                    actor = {"id": self.name, "role": "user"}
                    self.note("signals_answer", question=question["question_id"], value=value)
                    answer = {"question_id": question["question_id"], "value": value, "actor": actor}
                    await session.signal("answer", answer)
            case "bad signal":
                name = self.chance.choice(
                    ["stop", "steer", "answer", "publish", "turn_ended", "turn_attempt", "note"]
                )
                await session.signal(name, self.chance.choice(ODD))
            case "bad update":
                name = self.chance.choice(
                    ["send", "spawn", "join", "leave", "take_over", "release", "answer_question"]
                )
                await session.execute_update(name, self.chance.choice(ODD))
            case "terminate turn":
                snapshot = await session.query("snapshot")
                for turn in snapshot["running"][:1]:
                    turn_workflow = f"{self.session}/{turn['turn_id']}"
                    self.note("terminates", turn=turn["turn_id"])
                    await self.world.client.get_workflow_handle(turn_workflow).terminate("torture")
            case "cancel":
                await session.cancel()


class Resetter(Acting):
    """Resets its session to the end of an earlier task, as ``temporal workflow reset`` does."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        while self.goes_on:
            await self.rest(2, 12)
            began, error = time.monotonic(), None
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    await self._reset()
            except (RPCError, TimeoutError) as failure:
                error = f"{type(failure).__name__}: {failure}"[:300]
            self.note("reset", began=round(began, 3), error=error)

    async def _reset(self) -> None:
        client = self.world.client
        assert client is not None, "the world has started"
        run = (await client.get_workflow_handle(self.session).describe()).run_id
        history = await client.get_workflow_handle(self.session, run_id=run).fetch_history()
        ends = [
            event.event_id
            for event in history.events
            if event.HasField("workflow_task_completed_event_attributes")
        ]
        if not ends:
            return
        task = self.chance.choice(ends[-RESET_TASKS:])
        self.note("resets", task=task)
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=self.session, run_id=run),
                workflow_task_finish_event_id=task,
                request_id=uuid.uuid4().hex,
                reason="torture",
            )
        )
