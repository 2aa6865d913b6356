"""Somebody's own workflows on a real Waystation, with payloads encrypted and in Temporal's sandbox."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from pydantic import SecretStr
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHandle
from temporalio.worker import Replayer, Worker

from tests.support import eventually
from tests.workflow.somebodys import Echo, Job, Visitor, look_up
from tests.world.stack import Stack
from waystation.client import Client, Session
from waystation.errors import NotFound
from waystation.models.events import Event
from waystation.settings import Settings
from waystation.temporal.connect import data_converter

WORKFLOWS = [Echo, Visitor]


class Somebody:
    """A worker of their own, which knows their workflows and nothing of ours."""

    def __init__(self, temporal: TemporalClient, queue: str, client: Client) -> None:
        self.temporal, self.queue, self.client = temporal, queue, client
        self.started: list[WorkflowHandle[object, object]] = []

    async def echo(self, **changes: object) -> tuple[WorkflowHandle[Echo, list[str]], Session]:
        """Starts one, and returns it with its session once it has written there."""
        job = Job.model_validate({"session_id": f"s-{uuid.uuid4().hex}", **changes})
        handle = await self.temporal.start_workflow(
            Echo.run, job, id=f"echo-{job.session_id}", task_queue=self.queue
        )
        self.started.append(handle)
        session = self.client.attach(job.session_id)
        await eventually(lambda: has(session, "data.ready"), what="the workflow has written")
        return handle, session

    async def visit(self, session_id: str, deed: str, agent: str = "visitor") -> str:
        job = Job(session_id=session_id, agent=agent)
        handle = await self.temporal.start_workflow(
            Visitor.run, args=[job, deed], id=f"visit-{uuid.uuid4().hex}", task_queue=self.queue
        )
        self.started.append(handle)
        return await asyncio.wait_for(handle.result(), 30)


async def events(session: Session) -> list[Event]:
    try:
        return list((await session.replay()).events)
    except NotFound:
        return []


async def has(session: Session, kind: str, count: int = 1) -> bool:
    return sum(event.type == kind for event in await events(session)) >= count


async def texts(session: Session) -> list[str]:
    return [str(e.data["text"]) for e in await events(session) if e.type == "message.completed"]


async def last(session: Session, kind: str) -> Event:
    await eventually(lambda: has(session, kind), what=kind)
    return [event for event in await events(session) if event.type == kind][-1]


@asynccontextmanager
async def encrypted(stack: Stack) -> AsyncIterator[TemporalClient]:
    """A client as ``connect`` makes it for a worker of this installation."""
    settings = Settings(
        encryption_keys=[SecretStr(stack.encryption_key)], storage_dir=stack.folder / "payloads"
    )
    async with AsyncExitStack() as resources:
        converter = await data_converter(settings, resources)
        yield await TemporalClient.connect(stack.temporal.address, data_converter=converter)


@pytest.fixture
async def somebody(stack: Stack, client: Client) -> AsyncIterator[Somebody]:
    async with encrypted(stack) as temporal:
        queue = f"somebody-{uuid.uuid4().hex}"
        somebody = Somebody(temporal, queue, client)
        async with Worker(temporal, task_queue=queue, workflows=WORKFLOWS, activities=[look_up]):
            yield somebody
        replayer = Replayer(workflows=WORKFLOWS, data_converter=temporal.data_converter)
        for handle in somebody.started:
            for run in {handle.first_execution_run_id, None}:
                whole = temporal.get_workflow_handle(handle.id, run_id=run)
                await replayer.replay_workflow(await whole.fetch_history())


async def test_people_talk_with_a_workflow(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("hello")
    completed = await last(session, "turn.completed")
    assert completed.actor.id == "claims"
    assert await texts(session) == ["I am here.", "hello", "test-service said: hello"]
    await session.close()
    assert await asyncio.wait_for(workflow.result(), 30) == ["t1"]
