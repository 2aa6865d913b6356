"""A question that waits for days: nothing runs meanwhile, and nothing is forgotten."""

import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from tests.support import eventually
from tests.workflows.session.test_workflow import ADA, agent_of, is_idle, replay, replayer, snapshot, written
from tests.world.time_skipping import running_time_skipping
from waystation.models.events import Event, EventType
from waystation.models.questions import AnswerQuestion
from waystation.models.sessions import Steer, TurnInput, TurnResult
from worker import build_worker
from workflows.session import AgentSession, SessionInput


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    async with running_time_skipping() as server:
        yield server


async def news(session_id: str) -> None:
    """Nobody listens."""


class Asked:
    """An agent that asks once, is parked, and returns what became of it when its turn goes on."""

    def __init__(self, skipping: WorkflowEnvironment, **question: Any) -> None:
        self.skipping, self.question = skipping, {"question_id": "q", "prompt": "Which?", **question}
        self.attempts: list[TurnInput] = []

    async def run(self, turn: TurnInput) -> TurnResult:
        self.attempts.append(turn)
        session = self.skipping.client.get_workflow_handle(turn.session_id)
        if turn.waited_for:
            view = await session.query(AgentSession.question, "q")
            assert view is not None
            assert view.outcome is not None
            return TurnResult(outcome="completed", result=view.outcome.model_dump(mode="json"))
        await session.signal(
            AgentSession.publish, written(turn, (EventType.INPUT_REQUESTED, None, self.question))
        )
        return TurnResult(outcome="waiting", waiting_for=("q",))


async def parked(handle: WorkflowHandle[Any, Any]) -> None:
    async def waits() -> bool:
        return (await snapshot(handle)).status == "waiting"

    await eventually(waits)


async def started(skipping: WorkflowEnvironment, agent: str, queue: str) -> WorkflowHandle[Any, Any]:
    handle = await skipping.client.start_workflow(
        AgentSession.run, SessionInput(agent=agent), id=f"s-{uuid.uuid4().hex}", task_queue=queue
    )
    await handle.signal(AgentSession.steer, Steer(text="go", actor=ADA))
    await parked(handle)
    return handle


async def one(handle: WorkflowHandle[Any, Any], kind: str) -> Event:
    (found,) = [event for event in (await replay(handle)).events if event.type == kind]
    return found


async def replays(skipping: WorkflowEnvironment, handle: WorkflowHandle[Any, Any]) -> None:
    for workflow_id in (handle.id, f"{handle.id}/t1"):
        history = await skipping.client.get_workflow_handle(workflow_id).fetch_history()
        await replayer().replay_workflow(history)


async def test_an_answer_after_three_days_costs_nothing_until_then(skipping: WorkflowEnvironment) -> None:
    asked = Asked(skipping)
    async with (
        agent_of(skipping.client, asked.run) as agent,
        build_worker(skipping.client, news, task_queue="days"),
    ):
        handle = await started(skipping, agent, "days")
        turn = skipping.client.get_workflow_handle(f"{handle.id}/t1")
        before = [(await one.describe()).history_length for one in (handle, turn)]
        await skipping.sleep(timedelta(days=3))
        assert [(await one.describe()).history_length for one in (handle, turn)] == before
        assert len(asked.attempts) == 1
        assert (await snapshot(handle)).status == "waiting"
        answer = AnswerQuestion(question_id="q", value="the blue one", actor=ADA)
        await handle.signal(AgentSession.answer, answer)
        await eventually(lambda: is_idle(handle))
        completed = await one(handle, "turn.completed")
        assert completed.data["attempt"] == 2
        assert completed.data["result"]["value"] == "the blue one"  # type: ignore[index,call-overload]
        waited = (await one(handle, "turn.resumed")).time - (await one(handle, "turn.waiting")).time
        assert waited >= timedelta(days=3)
        assert [turn.waited_for for turn in asked.attempts] == [(), ("q",)]
        await replays(skipping, handle)


async def test_nobody_answers_for_two_days(skipping: WorkflowEnvironment) -> None:
    asked = Asked(skipping, expires_in_seconds=2 * 86_400)
    async with (
        agent_of(skipping.client, asked.run) as agent,
        build_worker(skipping.client, news, task_queue="days"),
    ):
        handle = await started(skipping, agent, "days")
        await skipping.sleep(timedelta(days=1, hours=23))
        assert (await snapshot(handle)).status == "waiting"
        await skipping.sleep(timedelta(hours=2))
        await eventually(lambda: is_idle(handle))
        expired, completed = await one(handle, "input.expired"), await one(handle, "turn.completed")
        deadline = datetime.fromisoformat(str((await one(handle, "input.requested")).data["deadline"]))
        assert timedelta(0) <= expired.time - deadline < timedelta(minutes=1)
        assert completed.data["result"]["outcome"] == "expired"  # type: ignore[index,call-overload]
        await handle.signal(AgentSession.answer, AnswerQuestion(question_id="q", value="late", actor=ADA))
        assert "input.answered" not in [event.type for event in (await replay(handle)).events]
        await replays(skipping, handle)
