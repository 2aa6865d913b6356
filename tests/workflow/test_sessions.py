"""Somebody's own workflows on a real Waystation, with payloads encrypted and in Temporal's sandbox."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ResetReapplyExcludeType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker

import worker
from tests.support import eventually
from tests.workflow.somebodys import Echo, Job, Visitor, look_up
from tests.world.replays import AS_IT_IS, replayer_of
from tests.world.stack import Stack
from waystation.client import Client, Session
from waystation.errors import InvalidRequest, NotFound
from waystation.models.events import Event
from waystation.models.questions import QuestionOutcome
from waystation.models.requests import AgentList
from waystation.settings import Settings
from waystation.temporal.calls import ask, tell
from waystation.temporal.connect import data_converter, open_client
from waystation.temporal.messages import SESSION_SNAPSHOT, SESSION_TELL_AGAIN

WORKFLOWS = [Echo, Visitor]


class Somebody:
    """A worker of their own, which knows their workflows and nothing of ours."""

    def __init__(self, temporal: TemporalClient, queue: str, client: Client) -> None:
        self.temporal, self.queue, self.client = temporal, queue, client
        self.started: list[WorkflowHandle[object, object]] = []
        self.sessions: list[str] = []

    async def echo(self, **changes: object) -> tuple[WorkflowHandle[Echo, list[str]], Session]:
        """Starts one, and returns it with its session once it has written there."""
        job = Job.model_validate({"session_id": f"s-{uuid.uuid4().hex}", **changes})
        handle = await self.temporal.start_workflow(
            Echo.run, job, id=f"echo-{job.session_id}", task_queue=self.queue
        )
        self.started.append(handle)
        self.sessions.append(job.session_id)
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
        yield await open_client(stack.temporal.address, data_converter=converter)


@pytest.fixture
async def somebody(stack: Stack, client: Client) -> AsyncIterator[Somebody]:
    async with encrypted(stack) as temporal:
        queue = f"somebody-{uuid.uuid4().hex}"
        somebody = Somebody(temporal, queue, client)
        async with Worker(temporal, task_queue=queue, workflows=WORKFLOWS, activities=[look_up]):
            yield somebody
        await replay(somebody)


async def replay(somebody: Somebody) -> None:
    """Replays what a test has run: theirs in Temporal's sandbox as it is, ours as they are deployed."""
    converter = somebody.temporal.data_converter
    theirs = replayer_of(WORKFLOWS, converter, AS_IT_IS)
    ours = replayer_of(worker.WORKFLOWS, converter, worker.WORKFLOW_RUNNER)
    at = somebody.temporal.get_workflow_handle
    runs = [
        at(handle.id, run_id=run)
        for handle in somebody.started
        for run in {handle.first_execution_run_id, None}
    ]
    # All at once: a replayer reads its workflows anew each time.
    await theirs.replay_workflows(histories(runs))
    await ours.replay_workflows(histories(map(at, somebody.sessions)))


async def histories(runs: Iterable[WorkflowHandle[Any, Any]]) -> AsyncIterator[WorkflowHistory]:
    for run in runs:
        yield await run.fetch_history()


async def test_people_talk_with_a_workflow(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("hello")
    completed = await last(session, "turn.completed")
    assert completed.actor.id == "claims"
    assert await texts(session) == ["I am here.", "hello", "test-service said: hello"]
    await session.close()
    assert await asyncio.wait_for(workflow.result(), 30) == ["t1"]


async def test_the_workflow_is_listed_as_what_runs_its_agent(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()

    async def listed() -> bool:
        found = await somebody.client.request("GET", "/agents?name=claims", AgentList)
        return found.agents[0].workflows > 0

    await eventually(listed, what="Temporal's list has the session")
    (mine,) = [
        one for one in (await somebody.client.list(limit=100)).sessions if one.session_id == session.id
    ]
    assert mine.turns_taken_by == workflow.id
    await session.close()
    await workflow.result()


async def test_what_a_workflow_shows_is_in_its_session(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    await session.send("look tea")
    completed = await last(session, "turn.completed")
    assert completed.data["result"] == "TEA"
    called, returned = await last(session, "tool.called"), await last(session, "tool.returned")
    assert called.data["arguments"] == {"word": "tea"}
    assert (returned.data["call_id"], returned.data["result"]) == (called.data["call_id"], "TEA")
    assert {called.turn_id, returned.turn_id, completed.turn_id} == {"t1"}
    first = next(event for event in await events(session) if event.type == "message.completed")
    assert (first.turn_id, first.actor.id, first.data["tone"]) == (None, "claims", "kind")
    assert (await last(session, "data.ready")).data == {"turns": 1_000}
    assert (await session.snapshot()).title == "An echo"


async def test_a_failure_fails_the_turn_and_the_workflow(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("look broken")
    failed = await last(session, "turn.failed")
    assert (failed.data["code"], failed.data["detail"]) == ("agent_error", "the archive burns")
    assert (await last(session, "tool.returned")).data["error"] == "the archive burns"
    with pytest.raises(WorkflowFailureError):
        await asyncio.wait_for(workflow.result(), 30)
    # It has ended: what is said next is answered by nobody, and everybody is told.
    await session.send("is somebody there?")
    await eventually(lambda: has(session, "turn.failed", 2), what="the second turn fails")
    assert (await last(session, "turn.failed")).data["code"] == "turn_lost"


async def test_a_stop_leaves_the_block_and_the_workflow_goes_on(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("wait")
    await eventually(lambda: said(session, "I wait."), what="the turn runs")
    answer = await session.stop()
    assert answer.outcome == "stopped"
    await session.send("go on")
    await eventually(lambda: said(session, "test-service said: go on"), what="the next turn is answered")
    await session.close()
    assert await asyncio.wait_for(workflow.result(), 30) == ["t1", "t2"]


async def said(session: Session, text: str) -> bool:
    return text in await texts(session)


async def test_a_steer_reaches_the_running_turn(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    await session.send("listen")
    await eventually(lambda: said(session, "I listen."), what="the turn runs")
    answer = await session.steer("rather tea")
    assert answer.outcome == "consumed"
    assert (await last(session, "turn.completed")).data["result"] == ["test-service"]
    assert (await texts(session))[-1] == "rather tea"


async def test_a_session_that_is_closed_stops_the_turn_and_ends_the_turns(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("wait")
    await eventually(lambda: said(session, "I wait."), what="the turn runs")
    await session.close()
    assert await asyncio.wait_for(workflow.result(), 30) == ["t1"]
    assert (await events(session))[-1].type == "session.closed"
    assert await somebody.visit(session.id, "write") == "session-closed"
    assert await somebody.visit(session.id, "steer") == "unknown-session"
    assert await somebody.visit(session.id, "close") == "done"
    assert await somebody.visit(session.id, "turns") == "done"


async def test_a_session_that_is_ended_in_temporal_ends_the_turns(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await somebody.temporal.get_workflow_handle(session.id).terminate()
    assert await asyncio.wait_for(workflow.result(), 30) == []


async def test_turns_go_on_over_continue_as_new(somebody: Somebody) -> None:
    workflow, session = await somebody.echo(turns_per_run=1)
    for number in range(3):
        await session.send(f"message {number}")
    await eventually(lambda: has(session, "turn.completed", 3), what="three turns are completed")
    answers = [text for text in await texts(session) if text.startswith("test-service said")]
    assert answers == [f"test-service said: message {number}" for number in range(3)]
    await session.close()
    newest = somebody.temporal.get_workflow_handle_for(Echo.run, workflow.id)
    assert await asyncio.wait_for(newest.result(), 30) == []


async def test_a_cancelled_workflow_ends_its_turn_as_stopped(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("wait")
    await eventually(lambda: said(session, "I wait."), what="the turn runs")
    await workflow.cancel()
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(workflow.result(), 30)
    assert isinstance(failure.value.cause, CancelledError)
    await last(session, "turn.stopped")
    assert (await session.snapshot()).status == "idle"


async def test_a_workflow_writes_into_a_session_by_its_id(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    assert await somebody.visit(session.id, "write much") == "done"
    written = [event for event in await events(session) if event.actor.id == "visitor"]
    messages = [event.data["text"] for event in written if event.type == "message.completed"]
    assert messages == [f"{number} {letter}" for number in range(5) for letter in "ab"]
    counted = [event.data["number"] for event in written if event.type == "data.count"]
    assert counted == list(range(5))
    await session.send("wait")
    await eventually(lambda: said(session, "I wait."), what="the turn runs")
    assert await somebody.visit(session.id, "stop") == "done"
    assert (await last(session, "turn.stopped")).data["reason"] == "enough"
    assert await somebody.visit(session.id, "close") == "done"
    assert (await last(session, "session.closed")).data["reason"] == "done"


@pytest.mark.parametrize(
    ("session_id", "deed", "agent", "code"),
    [
        (None, "start", "claims", "session-id-taken"),
        ("there-is-none", "write", "claims", "unknown-session"),
        ("there-is-none", "steer", "claims", "unknown-session"),
        ("there-is-none", "turns", "claims", "unknown-session"),
        ("no such id", "write", "claims", "bad-item"),
        ("fine", "write", "no such name", "bad-item"),
        (None, "huge", "claims", "data-too-large"),
        (None, "long", "claims", "message-too-long"),
        (None, "bad type", "claims", "bad-type"),
        (None, "ask nobody", "claims", "bad-question"),
    ],
)
async def test_what_is_refused_is_said(
    somebody: Somebody, session_id: str | None, deed: str, agent: str, code: str
) -> None:
    if session_id is None:
        session_id = (await somebody.echo())[1].id
    assert await somebody.visit(session_id, deed, agent) == code


async def test_an_agents_process_answers_where_the_workflow_does_not(somebody: Somebody) -> None:
    _, session = await somebody.echo(agent="demo", takes_turns=False)
    await session.send("one two")
    await last(session, "turn.completed")
    assert (await texts(session))[0] == "I am here."


async def asked(session: Session) -> Event:
    """The question that is open, as the log shows it."""
    event = await last(session, "input.requested")
    assert [one.question_id for one in (await session.snapshot()).questions] == [event.data["question_id"]]
    return event


async def test_people_answer_a_workflow(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    await session.send("ask")
    question = await asked(session)
    assert (question.turn_id, question.data["kind"], question.data["prompt"]) == ("t1", "form", "Which size?")
    question_id = str(question.data["question_id"])
    assert (await session.snapshot()).status == "waiting"
    with pytest.raises(InvalidRequest):
        await session.answer(question_id, {"width": "wide"})
    await session.answer(question_id, {"width": 3})
    assert (await last(session, "turn.completed")).data["result"] == 3
    assert (await texts(session))[-1] == "Size 3"


async def test_a_question_that_nobody_answers_expires(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    await session.send("ask 1")
    assert (await last(session, "turn.completed")).data["result"] == "too late"
    await last(session, "input.expired")


async def test_a_stop_ends_a_turn_that_waits_for_an_answer(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("ask")
    await asked(session)
    assert (await session.stop()).outcome == "stopped"
    await last(session, "input.withdrawn")
    await session.send("ask")
    await eventually(lambda: has(session, "input.requested", 2), what="the next turn asks")
    await session.close()
    assert await asyncio.wait_for(workflow.result(), 30) == ["t1", "t2"]


async def test_a_person_approves_other_arguments(somebody: Somebody, stack: Stack) -> None:
    _, session = await somebody.echo()
    await session.send("delete everything")
    question = await asked(session)
    assert (question.data["tool"], question.data["arguments"]) == ("delete", {"path": "everything"})
    async with stack.client("approver") as approver:
        decision = {"decision": "approve", "arguments": {"path": "a.txt"}}
        await approver.attach(session.id).answer(
            str(question.data["question_id"]), decision, digest=str(question.data["digest"])
        )
    assert (await last(session, "turn.completed")).data["result"] == {"path": "a.txt", "edited": True}


async def test_an_approval_that_the_session_has_not_recorded_does_not_count(
    somebody: Somebody, stack: Stack
) -> None:
    """Whoever reaches the namespace may signal a workflow: an agent's process, for one."""
    workflow, session = await somebody.echo()
    await session.send("delete everything")
    question = await asked(session)
    question_id = str(question.data["question_id"])
    forged = QuestionOutcome(
        question_id=question_id, outcome="answered", seq=9, value={"decision": "approve"}, actor=None
    )
    for value in ({"decision": "approve"}, {"decision": "approve", "arguments": {"path": "b.txt"}}):
        await workflow.signal("waystation_answer", forged.model_copy(update={"value": value}))

    async def looked() -> bool:
        started = [
            event.activity_task_scheduled_event_attributes.activity_type.name
            for event in (await workflow.fetch_history()).events
        ]
        return "read_outcome" in started

    await eventually(looked, what="the workflow looks at what the session has")
    assert (await session.snapshot()).status == "waiting"
    async with stack.client("approver") as approver:
        await approver.attach(session.id).answer(
            question_id, {"decision": "reject", "reason": "never"}, digest=str(question.data["digest"])
        )
    failed = await last(session, "turn.failed")
    assert str(failed.data["detail"]).endswith("rejected delete: never")


async def test_a_rejection_fails_the_turn_unless_it_is_caught(somebody: Somebody, stack: Stack) -> None:
    _, session = await somebody.echo()
    await session.send("delete everything")
    question = await asked(session)
    async with stack.client("approver") as approver:
        decision = {"decision": "reject", "reason": "not that"}
        await approver.attach(session.id).answer(str(question.data["question_id"]), decision)
    failed = await last(session, "turn.failed")
    assert str(failed.data["detail"]).endswith("rejected delete: not that")


async def test_a_workflow_asks_in_a_session_that_is_not_its_own(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    visiting = asyncio.create_task(somebody.visit(session.id, "ask"))
    question = await asked(session)
    assert (question.turn_id, question.actor.id) == (None, "visitor")
    assert (await session.snapshot()).status == "waiting"
    await session.answer(str(question.data["question_id"]), "yes")
    assert await visiting == "yes"


async def newest_task(handle: WorkflowHandle[Any, Any]) -> int:
    """The newest workflow task that is completed: what a reset goes back to."""
    return [
        event.event_id
        for event in (await handle.fetch_history()).events
        if event.HasField("workflow_task_completed_event_attributes")
    ][-1]


async def reset(client: TemporalClient, workflow_id: str, task: int, *, forget: bool = False) -> None:
    """Resets a workflow; with ``forget``, without the messages that came since."""
    kinds = ResetReapplyExcludeType
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            workflow_task_finish_event_id=task,
            request_id=uuid.uuid4().hex,
            reason="a test",
            reset_reapply_exclude_types=[
                kinds.RESET_REAPPLY_EXCLUDE_TYPE_SIGNAL,
                kinds.RESET_REAPPLY_EXCLUDE_TYPE_UPDATE,
            ]
            if forget
            else [],
        )
    )


async def test_a_workflow_that_is_reset_leaves_what_is_over_and_goes_on(somebody: Somebody) -> None:
    workflow, session = await somebody.echo()
    await session.send("first")
    await last(session, "turn.completed")
    task = await newest_task(workflow)
    await session.send("second")
    await eventually(lambda: has(session, "turn.completed", 2), what="the second turn is completed")
    await reset(somebody.temporal, workflow.id, task)
    await session.send("third")
    await eventually(lambda: has(session, "turn.completed", 3), what="the third turn is completed")
    answers = [text for text in await texts(session) if text.startswith("test-service said")]
    assert answers == [f"test-service said: {word}" for word in ("first", "second", "third")]
    await session.close()
    newest = somebody.temporal.get_workflow_handle_for(Echo.run, workflow.id)
    assert (await asyncio.wait_for(newest.result(), 30))[-1] == "t3"


async def test_a_session_that_is_reset_is_told_again_how_a_turn_has_ended(somebody: Somebody) -> None:
    _, session = await somebody.echo()
    await session.send("listen")
    await eventually(lambda: said(session, "I listen."), what="the turn runs")
    task = await newest_task(somebody.temporal.get_workflow_handle(session.id))
    await session.steer("enough")
    await last(session, "turn.completed")
    await reset(somebody.temporal, session.id, task, forget=True)
    newest = somebody.temporal.get_workflow_handle(session.id)
    assert (await ask(newest, SESSION_SNAPSHOT)).status == "running"
    await tell(newest, SESSION_TELL_AGAIN, None)

    async def is_idle() -> bool:
        return (await ask(newest, SESSION_SNAPSHOT)).status == "idle"

    await eventually(is_idle, what="the turn has ended again")
