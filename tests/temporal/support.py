"""A session's workflow and an agent that writes a lot, over any data converter."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.update.v1 import UpdateRef
from temporalio.api.workflowservice.v1 import PollWorkflowExecutionUpdateRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from api.gateways.calls import execute_update
from tests.support import eventually
from tests.world.temporal import TemporalServer
from waystation.models.events import Actor, Item, Publish, Role, Write
from waystation.models.sessions import (
    ReplayPage,
    SendMessage,
    SessionLimits,
    Snapshot,
    TurnInput,
    TurnResult,
)
from waystation.temporal.connect import open_client
from waystation.temporal.messages import RUN_TURN
from waystation.temporal.names import agent_task_queue
from worker import build_worker
from workflows.session import AgentSession, SessionInput

ADA = Actor(id="ada", role=Role.USER)
UPDATE_TIMEOUT = timedelta(seconds=25)
"""Longer than a workflow task lasts, ten seconds: these workers keep no workflow in memory, and Temporal's
SDK may drop a task that comes while it lets go of one. Temporal then repeats it."""
MESSAGE_CHARACTERS = 20_000
MESSAGES_PER_TURN = 10
BIG_CHARACTERS = 200_000


async def until_admitted(temporal: Client, workflow_id: str, update_id: str) -> None:
    """Waits until Temporal has an update, of which no history says anything before a worker has taken it."""
    execution = WorkflowExecution(workflow_id=workflow_id)
    request = PollWorkflowExecutionUpdateRequest(
        namespace=temporal.namespace,
        update_ref=UpdateRef(workflow_execution=execution, update_id=update_id),
    )

    async def is_there() -> bool:
        try:
            await temporal.workflow_service.poll_workflow_execution_update(request)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    await eventually(is_there, what="the update has come to Temporal")


class Session:
    """One session, on a task queue of its own."""

    def __init__(self, client: Client, handle: WorkflowHandle[AgentSession, None]) -> None:
        self.client, self.handle = client, handle

    async def say(self, text: str) -> None:
        """Sends, and waits for the answer's end."""
        message = SendMessage(text=text, actor=ADA)
        await execute_update(self.handle, AgentSession.send, message, UPDATE_TIMEOUT)
        await eventually(self.idle, what="the session is idle")

    async def idle(self) -> bool:
        return (await self.snapshot()).status == "idle"

    async def runs(self) -> int:
        return (await self.snapshot()).runs

    async def snapshot(self) -> Snapshot:
        return await self.handle.query(AgentSession.snapshot)

    async def texts(self) -> list[str]:
        after, found, more = 0, [], True
        while more:
            page = await self._page(after)
            found += [str(e.data["text"]) for e in page.events if e.type == "message.completed"]
            after, more = page.next_after, page.more
        return found

    async def _page(self, after: int) -> ReplayPage:
        return await self.handle.query(AgentSession.replay, args=[after, 2_000])


@asynccontextmanager
async def running(
    server: TemporalServer,
    converter: DataConverter,
    *,
    events_per_run: int = 40,
    limits: SessionLimits | None = None,
) -> AsyncIterator[Session]:
    client = await open_client(server.address, data_converter=converter)
    name, queue = f"bot-{uuid.uuid4().hex[:8]}", f"test-{uuid.uuid4().hex}"

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(turn: TurnInput) -> TurnResult:
        session = client.get_workflow_handle(turn.session_id)
        size = BIG_CHARACTERS if turn.text == "big" else MESSAGE_CHARACTERS
        for number in range(1 if turn.text == "big" else MESSAGES_PER_TURN):
            text = f"{turn.turn_id}.{number} ".ljust(size, "x")
            item = Item(n=number + 1, type="message.completed", message_id=f"{turn.turn_id}-{number}",
                        data={"text": text})  # fmt: skip
            write = Write(writer=turn.turn_id, actor=Actor(id=turn.agent, role=Role.AGENT),
                          turn_id=turn.turn_id, attempt=turn.attempt, items=(item,))  # fmt: skip
            await session.signal(AgentSession.publish, Publish(writes=(write,)))
        return TurnResult(outcome="completed")

    async def announce(session_id: str) -> None:
        pass

    async with (
        build_worker(client, announce, task_queue=queue, max_cached_workflows=0),
        Worker(client, task_queue=agent_task_queue(name), activities=[run_turn]),
    ):
        limits = (limits or SessionLimits()).model_copy(update={"events_per_run": events_per_run})
        start = SessionInput(agent=name, limits=limits)
        handle = await client.start_workflow(
            AgentSession.run, start, id=f"s-{uuid.uuid4().hex}", task_queue=queue
        )
        yield Session(client, client.get_workflow_handle_for(AgentSession.run, handle.id))
