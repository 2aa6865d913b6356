"""What a session says of itself in Temporal's search attributes and its memo, and how often."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType as HistoryEvent
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from api.gateways.index import SearchIndex
from api.gateways.sessions import Gateway
from tests.support import eventually
from tests.workflows.session.test_workflow import ADA, OPERATOR, agent_of, replayer, send, written
from waystation.models.events import Actor, Role
from waystation.models.listing import SessionRow
from waystation.models.questions import AnswerQuestion
from waystation.models.sessions import (
    AddNote,
    Release,
    SessionLimits,
    SessionOwner,
    StartSession,
    TakeOver,
    TurnInput,
    TurnResult,
)
from waystation.temporal import search_attributes as attributes
from waystation.temporal.names import LISTED
from waystation.temporal.terms import Terms
from worker import build_worker
from workflows.session import AgentSession, SessionInput

KEY = "ab" * 32
GRACE = Actor(id="grace", role=Role.OPERATOR)
TERMS = Terms(KEY)


class Bench:
    def __init__(self, client: Client, queue: str) -> None:
        self.client, self.queue = client, queue
        self.gateway = Gateway(client, 10.0, index=SearchIndex(client, [KEY]))

    async def start(
        self, agent: str, title: str | None = None, **limits: Any
    ) -> WorkflowHandle[AgentSession, None]:
        start = StartSession(agent=agent, title=title, started_by=ADA, limits=SessionLimits(**limits))
        session_id = f"s-{uuid.uuid4().hex}"
        await self.gateway.start(session_id, start, task_queue=self.queue)
        return self.gateway.handle(session_id)


@pytest.fixture
async def bench(temporal: Client) -> AsyncIterator[Bench]:
    bench = Bench(temporal, f"test-{uuid.uuid4().hex}")

    async def announce(session_id: str) -> None:
        pass

    async with build_worker(temporal, announce, task_queue=bench.queue, search_key=KEY):
        yield bench


async def described(handle: WorkflowHandle[Any, Any]) -> WorkflowExecutionDescription:
    return await handle.describe()


async def says(handle: WorkflowHandle[Any, Any], key: Any) -> Any:
    return (await described(handle)).typed_search_attributes.get(key)


async def row(handle: WorkflowHandle[Any, Any]) -> SessionRow:
    return SessionRow.model_validate((await (await described(handle)).memo())[LISTED])


async def comes_to(handle: WorkflowHandle[Any, Any], status: str) -> None:
    async def does() -> bool:
        return bool(await says(handle, attributes.STATUS) == status)

    await eventually(does, what=f"the session is {status}")


async def events(handle: WorkflowHandle[Any, Any]) -> tuple[int, int]:
    """How many events set our search attributes, and how many the memo."""
    history = (await handle.fetch_history()).events
    kind = HistoryEvent.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES
    upserts = [
        event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
        for event in history
        if event.event_type == kind
    ]
    memos = sum(event.event_type == HistoryEvent.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED for event in history)
    # Temporal's SDK sets one of its own for each patch.
    return sum(not attributes.TYPES.keys().isdisjoint(fields) for fields in upserts), memos


@asynccontextmanager
async def answering(client: Client, *says: str, fails: bool = False, thinks: str = "") -> AsyncIterator[str]:
    async def run(turn: TurnInput) -> TurnResult:
        session = client.get_workflow_handle(turn.session_id)
        for number, text in enumerate(says):
            item = ("message.completed", f"{turn.turn_id}-{number}", {"text": text})
            await session.signal(AgentSession.publish, written(turn, item))
        if thinks:
            thought = ("message.completed", f"{turn.turn_id}-thought", {"text": thinks, "kind": "reasoning"})
            await session.signal(AgentSession.publish, written(turn, thought))
        if fails:
            raise RuntimeError("it can't")
        return TurnResult(outcome="completed")

    async with agent_of(client, run) as agent:
        yield agent


async def replays(handle: WorkflowHandle[Any, Any]) -> None:
    await replayer().replay_workflow(await handle.fetch_history())


async def test_a_session_is_found_by_what_it_does_and_shows_the_last_line(bench: Bench) -> None:
    async with answering(bench.client, "It is on its\n way.", thinks="Was that right?") as agent:
        session = await bench.start(agent, "Order 17")
        assert await says(session, attributes.STATUS) == "idle"
        assert await says(session, attributes.AGENT) == agent
        await send(session, "Where is it?")
        await comes_to(session, "running")
        await comes_to(session, "idle")
    shown = await row(session)
    assert shown.last_line is not None
    assert (shown.last_line.text, shown.last_line.actor.id) == ("It is on its way.", agent)
    assert [one.id for one in shown.people] == ["ada"]
    assert (await says(session, attributes.LAST_ACTIVITY)).microsecond % 2000 == 1000
    terms = await says(session, attributes.TERMS)
    assert {TERMS.person("ada"), TERMS.word("order"), TERMS.word("ord"), TERMS.word("17")} <= set(terms)
    await replays(session)


async def test_a_turn_costs_two_events_and_one_more_for_what_is_shown(bench: Bench) -> None:
    async with answering(bench.client, "one", "two", "three") as agent:
        session = await bench.start(agent)
        assert await events(session) == (0, 0), "what the start says needs no event"
        for turn in (1, 2, 3):
            await send(session, "go on")
            await comes_to(session, "running")
            await comes_to(session, "idle")
            assert await events(session) == (2 * turn, turn)


async def test_a_failed_turn_shows_until_the_next_one(bench: Bench) -> None:
    async with answering(bench.client, fails=True) as agent:
        session = await bench.start(agent, max_attempts=1)
        await send(session, "try")
        await comes_to(session, "failed")
    await replays(session)


async def test_a_takeover_shows_and_so_does_the_end(bench: Bench) -> None:
    session = await bench.start("nobody")
    await session.execute_update(AgentSession.take_over, TakeOver(operator=OPERATOR))
    await comes_to(session, "paused")
    shown = await row(session)
    assert shown.taken_over_by == OPERATOR
    assert TERMS.person("olga") in await says(session, attributes.TERMS)
    await session.execute_update(AgentSession.release, Release(operator=OPERATOR))
    await comes_to(session, "idle")
    await session.signal(AgentSession.close)
    await session.result()
    assert await says(session, attributes.STATUS) == "closed"
    await replays(session)


async def test_whose_answer_is_waited_for(bench: Bench) -> None:
    asked = {
        "question_id": "size",
        "prompt": "Which size?",
        "audience": {"roles": ["operator"], "ids": ["grace"]},
    }

    async def run(turn: TurnInput) -> TurnResult:
        handle = bench.client.get_workflow_handle(turn.session_id)
        if turn.attempt == 1:
            await handle.signal(AgentSession.publish, written(turn, ("input.requested", None, asked)))
            return TurnResult(outcome="waiting", waiting_for=("size",))
        return TurnResult(outcome="completed")

    grace = Actor(id="grace", role=Role.USER, name="Grace")
    async with agent_of(bench.client, run) as agent:
        session = await bench.start(agent)
        await send(session, "a shirt, please")
        await comes_to(session, "waiting")
        waits = await says(session, attributes.WAITS_FOR)
        assert set(waits) == {"role:operator", TERMS.person("grace")}
        shown = await row(session)
        assert shown.awaited is not None
        assert [one.id for one in shown.awaited.people] == ["grace"]
        answer = AnswerQuestion(question_id="size", value="M", actor=grace)
        await session.execute_update(AgentSession.answer_question, answer)
        await comes_to(session, "idle")
    assert await says(session, attributes.WAITS_FOR) is None
    assert (await row(session)).awaited is None
    await replays(session)


async def test_a_next_run_is_found_from_its_first_moment(bench: Bench) -> None:
    async with answering(bench.client, "one") as agent:
        session = await bench.start(agent, "Order 17", events_per_run=20)
        first = (await described(session)).run_id
        await send(session, "go on")

        async def has_continued() -> bool:
            return (await described(session)).run_id != first

        await eventually(has_continued, what="the session has continued as new")
        started = (await session.fetch_history()).events[0].workflow_execution_started_event_attributes
    assert set(attributes.TYPES) - set(started.search_attributes.indexed_fields) == {
        attributes.SESSION.name,
        attributes.WAITS_FOR.name,
    }
    assert LISTED in started.memo.fields
    assert (await row(session)).last_line is not None
    await replays(session)


async def test_a_session_that_a_workflow_starts_asks_its_worker(bench: Bench) -> None:
    session = await bench.client.start_workflow(
        AgentSession.run,
        SessionInput(agent="claims", owner=SessionOwner(workflow_id="nobody"), title="Claim 4"),
        id=f"s-{uuid.uuid4().hex}",
        task_queue=bench.queue,
    )
    await comes_to(session, "idle")
    assert await says(session, attributes.AGENT) == "claims"
    assert TERMS.word("claim") in await says(session, attributes.TERMS)
    await replays(session)


async def test_one_that_was_started_with_a_status_that_there_is_not_sets_its_own(bench: Bench) -> None:
    session = await bench.client.start_workflow(
        AgentSession.run,
        SessionInput(agent="nobody", search_key=KEY),
        id=f"s-{uuid.uuid4().hex}",
        task_queue=bench.queue,
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(attributes.STATUS, "asleep"),
                SearchAttributePair(attributes.LAST_ACTIVITY, datetime.now(UTC)),
            ]
        ),
    )
    await comes_to(session, "idle")


async def test_one_that_was_started_without_sets_none(bench: Bench) -> None:
    async with answering(bench.client, "one") as agent:
        session = await bench.client.start_workflow(
            AgentSession.run, SessionInput(agent=agent), id=f"s-{uuid.uuid4().hex}", task_queue=bench.queue
        )
        await send(session, "go on")
        handle: WorkflowHandle[AgentSession, None] = bench.gateway.handle(session.id)
        await session.signal(AgentSession.close)
        await session.result()
    assert await events(handle) == (0, 0)
    assert (await described(handle)).typed_search_attributes.get(attributes.STATUS) is None


async def test_an_index_that_is_not_there_is_asked_for_again(temporal: Client) -> None:
    asked: list[str] = []

    class Away:
        namespace = "elsewhere"

        async def count_workflows(self, query: str, *, rpc_timeout: timedelta) -> None:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")

    away = SearchIndex(Away(), [KEY])  # type: ignore[arg-type]
    assert not await away.may_be_set(), "what is started goes on without"
    with pytest.raises(RPCError):  # but that isn't an answer
        await away.is_there()

    class Without:
        namespace = "elsewhere"

        async def count_workflows(self, query: str, *, rpc_timeout: timedelta) -> None:
            asked.append(query)
            await temporal.count_workflows("WaystationNowhere='x'")

    index = SearchIndex(Without(), [KEY])  # type: ignore[arg-type]
    assert not await index.is_there()
    assert not await index.is_there()
    assert len(asked) == 1, "not at each request"
    index._ask_at_seconds = 0.0
    assert not await index.is_there()
    assert len(asked) == 2
    assert await SearchIndex(temporal, [KEY]).is_there()


async def test_what_is_among_staff_shows_in_no_list(bench: Bench) -> None:
    session = await bench.start("nobody")
    await session.execute_update(AgentSession.add_note, AddNote(author=OPERATOR, text="a difficult customer"))
    await session.execute_update(AgentSession.take_over, TakeOver(operator=GRACE))
    await comes_to(session, "paused")
    shown = await row(session)
    assert shown.last_line is None
    assert [one.id for one in shown.people] == ["grace", "ada"]
    assert TERMS.person("olga") not in await says(session, attributes.TERMS)
    await replays(session)
