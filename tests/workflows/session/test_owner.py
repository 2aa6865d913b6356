"""A session and the workflow that it belongs to, message by message; every history is replayed."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from tests.support import eventually
from tests.workflows.session.test_workflow import ADA, Harness, replay, send, snapshot
from tests.workflows.session.test_workflow import harness as harness
from tests.workflows.session.test_workflow import ran as ran
from waystation.models.owners import SessionNews
from waystation.models.sessions import SessionLimits, SessionOwner, Steer, Stop, TurnEnded
from waystation.temporal.calls import tell
from waystation.temporal.messages import OWNER_NEWS, SESSION_STEER, SESSION_STOP, SESSION_TURN_ENDED
from worker import WORKFLOW_RUNNER
from workflows.session import AgentSession, SessionInput


@workflow.defn
class Listener:
    """An owner that only listens."""

    def __init__(self) -> None:
        self._heard: list[SessionNews] = []

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal(name=OWNER_NEWS.name)
    def listen(self, news: SessionNews) -> None:
        self._heard.append(news)

    @workflow.query
    def heard(self) -> list[SessionNews]:
        return self._heard


@pytest.fixture
async def listener(temporal: Client) -> AsyncIterator[WorkflowHandle[Listener, None]]:
    queue = f"listener-{uuid.uuid4().hex}"
    async with Worker(temporal, task_queue=queue, workflows=[Listener], workflow_runner=WORKFLOW_RUNNER):
        handle = await temporal.start_workflow(Listener.run, id=f"l-{uuid.uuid4().hex}", task_queue=queue)
        yield handle
        await handle.terminate()


async def owned(harness: Harness, owner: str, **limits: Any) -> WorkflowHandle[AgentSession, None]:
    handle = await harness.client.start_workflow(
        AgentSession.run,
        SessionInput(
            agent="claims",
            limits=SessionLimits(**limits),
            owner=SessionOwner(workflow_id=owner, takes_turns=True),
        ),
        id=f"s-{uuid.uuid4().hex}",
        task_queue=harness.task_queue,
    )
    harness.started.append(handle)
    return handle


async def hears(listener: WorkflowHandle[Listener, None], *kinds: str) -> list[SessionNews]:
    async def heard() -> list[SessionNews] | None:
        news = await listener.query(Listener.heard)
        return news if [one.news.kind for one in news] == list(kinds) else None

    found: list[SessionNews] = await eventually(heard, what=f"the owner hears {kinds}")
    return found


async def test_an_owner_is_told_of_turns_steers_stops_and_the_end(
    harness: Harness, listener: WorkflowHandle[Listener, None]
) -> None:
    session = await owned(harness, listener.id, events_per_run=25)
    await send(session, "hello")
    [given] = await hears(listener, "turn")
    assert given.news.kind == "turn"
    assert (given.session_id, given.news.turn.text, given.news.turn.actor) == (session.id, "hello", ADA)
    await tell(session, SESSION_STEER, Steer(text="rather this", actor=ADA))
    await hears(listener, "turn", "steer")
    await tell(session, SESSION_STOP, Stop())
    await hears(listener, "turn", "steer", "stop")
    await tell(session, SESSION_TURN_ENDED, TurnEnded(turn_id="t1", outcome="completed"))
    # The steer that nobody took up is a turn of its own.
    await hears(listener, "turn", "steer", "stop", "turn")
    for number in range(2, 10):  # through several runs of the session
        await tell(session, SESSION_TURN_ENDED, TurnEnded(turn_id=f"t{number}", outcome="completed"))
        await send(session, f"message {number}")
    latest = harness.client.get_workflow_handle_for(AgentSession.run, session.id)

    async def goes_on_in_another_run() -> bool:
        return (await snapshot(latest)).runs > 1

    await eventually(goes_on_in_another_run, what="the session has continued as new, with its turn")
    await latest.signal(AgentSession.close)
    # A turn that ends in the same moment need not be stopped, and its owner isn't told to.
    await hears(listener, "turn", "steer", "stop", *["turn"] * 9, "stop")
    await tell(latest, SESSION_TURN_ENDED, TurnEnded(turn_id="t10", outcome="completed"))
    await hears(listener, "turn", "steer", "stop", *["turn"] * 9, "stop", "closed")
    ended = [event.type for event in (await replay(latest)).events if event.type.startswith("turn.")]
    assert ended.count("turn.stopped") == 2
    assert ended.count("turn.completed") == 8


@pytest.mark.parametrize("owner", ["there-is-none", "x" * 1_000, "ü" * 900, "itself"])
async def test_an_owner_that_is_not_there_loses_the_turn(harness: Harness, owner: str) -> None:
    session = await owned(harness, owner)
    await send(session, "hello")

    async def has_ended() -> bool:
        return (await replay(session)).events[-1].type == "turn.failed"

    await eventually(has_ended, what="the turn has failed")
    assert (await replay(session)).events[-1].data["code"] == "turn_lost"
    await session.signal(AgentSession.close)
    await session.result()


async def test_a_session_that_owns_itself_goes_on(harness: Harness) -> None:
    session_id = f"s-{uuid.uuid4().hex}"
    session = await harness.client.start_workflow(
        AgentSession.run,
        SessionInput(agent="claims", owner=SessionOwner(workflow_id=session_id, takes_turns=True)),
        id=session_id,
        task_queue=harness.task_queue,
    )
    harness.started.append(session)
    await send(session, "hello")
    await tell(session, SESSION_TURN_ENDED, TurnEnded(turn_id="t1", outcome="completed"))
    assert (await snapshot(session)).status == "idle"
    await session.signal(AgentSession.close)
    await session.result()
