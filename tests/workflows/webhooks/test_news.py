"""Who has news tells those that want it, and nobody else. Nothing is lost, and nobody waits for it."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType as HistoryType
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from tests.support import eventually
from tests.workflows.webhooks.recorded import FOLDER, keep, replay
from tests.workflows.webhooks.test_endpoint import OPENING, Endpoint, Outside
from waystation.models.events import Actor, Role
from waystation.models.sessions import Close, Membership, SessionLimits, TakeOver
from waystation.models.webhooks import NewsTypes, Subscription, SubscriptionList, news_of_money
from waystation.temporal.messages import ANNOUNCE
from worker import WORKFLOW_RUNNER
from workflows.session import AgentSession
from workflows.session.state import SessionInput
from workflows.session.turn import AgentTurn
from workflows.webhooks import WebhookEndpoint
from workflows.webhooks.news import WebhookOutbox

UPDATED, REQUESTED = "purchase.updated", "approval.requested"


@workflow.defn
class Steps:
    """Takes one step after another, as a purchase does; those that come with a signal come at some time."""

    def __init__(self) -> None:
        self._webhooks = WebhookOutbox(gathers=True)
        self._ended = False
        self._taken = 0

    @workflow.run
    async def run(self, kinds: list[str]) -> None:
        telling = self._webhooks.start()
        for kind in kinds:
            self.step(kind)
            await asyncio.sleep(0)
        await workflow.wait_condition(lambda: self._ended)
        self._webhooks.hurry()
        await workflow.wait_condition(lambda: self._webhooks.empty)
        telling.cancel()

    @workflow.signal
    def step(self, kind: str) -> None:
        self._taken += 1
        self._webhooks.put(news_of_money("p", kind, workflow.now(), {"amount": self._taken}))

    @workflow.signal
    def end(self) -> None:
        self._ended = True


OLGA = Actor(id="olga", role=Role.OPERATOR)
SIGNALS = HistoryType.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED


class House(Outside):
    """A registry whose answers a test chooses, beside the rest."""

    def __init__(self, client: Client, queue: str) -> None:
        super().__init__()
        self.client, self.queue = client, queue
        self.subscribed: list[Subscription] = []
        self.asked: list[tuple[str, ...]] = []
        self.failures = 0

    @activity.defn(name="webhook_subscribers")
    async def subscribers(self, news: NewsTypes) -> SubscriptionList:
        self.asked.append(news.types)
        if self.failures:
            self.failures -= 1
            raise ApplicationError("Temporal is away")
        return SubscriptionList(subscriptions=tuple(self.subscribed))

    async def endpoint(self, *events: str, details: bool = False) -> Endpoint:
        webhook_id = f"webhook-{uuid.uuid4()}"
        handle = await self.client.start_workflow(
            WebhookEndpoint.run, OPENING, id=webhook_id, task_queue=self.queue
        )
        self.subscribe(webhook_id, *events, details=details)
        return await Endpoint(handle, self).opened()

    def subscribe(self, webhook_id: str, *events: str, details: bool = False) -> None:
        self.subscribed.append(
            Subscription(webhook_id=webhook_id, events=events, details=details, enabled=True, revision=1)
        )

    async def session(self, **limits: int) -> WorkflowHandle[AgentSession, None]:
        return await self.client.start_workflow(
            AgentSession.run,
            SessionInput(agent="nobody", limits=SessionLimits(**limits)),
            id=f"s-{uuid.uuid4().hex}",
            task_queue=self.queue,
        )


@activity.defn(name=ANNOUNCE.name)
async def announce(_: str) -> None:
    return None


@asynccontextmanager
async def working(client: Client) -> AsyncIterator[House]:
    house = House(client, f"news-{uuid.uuid4()}")
    async with Worker(
        client,
        task_queue=house.queue,
        workflows=[AgentSession, AgentTurn, WebhookEndpoint, Steps],
        activities=[announce, house.deliver, house.make_secret, house.register, house.subscribers],
        workflow_runner=WORKFLOW_RUNNER,
    ):
        yield house


@pytest.fixture
async def house(temporal: Client) -> AsyncIterator[House]:
    async with working(temporal) as house:
        yield house


async def told(endpoint: Endpoint) -> list[str]:
    return [one.type for one in reversed(await endpoint.settled())]


async def signals(session: WorkflowHandle[AgentSession, None]) -> int:
    return sum(event.event_type == SIGNALS for event in (await session.fetch_history()).events)


async def test_an_endpoint_hears_what_it_wants(house: House, request: pytest.FixtureRequest) -> None:
    all_of_it, some = await house.endpoint("*", details=True), await house.endpoint("takeover.*")
    session = await house.session()
    await session.execute_update(AgentSession.take_over, TakeOver(operator=OLGA, reason="quiet"))
    await session.execute_update(AgentSession.leave, Membership(participant=OLGA))
    await session.signal(AgentSession.close, Close(reason="enough"))
    await session.result()
    assert await told(all_of_it) == ["takeover.started", "takeover.released", "session.closed"]
    assert await told(some) == ["takeover.started", "takeover.released"]
    [closed, *_] = await all_of_it.deliveries()
    found = await all_of_it.handle.query(WebhookEndpoint.delivery, closed.delivery_id)
    assert found is not None
    assert '"details":{"reason":"enough"}' in (found.body or "")
    [thin, *_] = await some.deliveries()
    found = await some.handle.query(WebhookEndpoint.delivery, thin.delivery_id)
    assert found is not None
    assert "quiet" not in (found.body or "")
    await keep(request, session, all_of_it.handle)


async def test_with_nobody_to_tell_a_session_sends_nothing(house: House) -> None:
    session = await house.session()
    await session.signal(AgentSession.close)
    await session.result()
    assert house.asked == [("session.closed",)]
    assert await signals(session) == 0


async def test_nobody_is_asked_about_what_no_webhook_says(house: House) -> None:
    session = await house.session()
    await session.execute_update(AgentSession.join, Membership(participant=OLGA))
    assert house.asked == []


async def test_whoever_cannot_be_asked_now_is_asked_again(house: House) -> None:
    endpoint = await house.endpoint("session.closed")
    house.failures = 3
    session = await house.session()
    await session.signal(AgentSession.close)
    await session.result()
    assert await told(endpoint) == ["session.closed"]


async def test_an_endpoint_that_is_gone_is_passed_over(house: House) -> None:
    house.subscribe(f"gone-{uuid.uuid4()}", "*")
    endpoint = await house.endpoint("*")
    session = await house.session()
    await session.signal(AgentSession.close)
    await session.result()
    assert await told(endpoint) == ["session.closed"]


async def test_a_session_that_continues_as_new_has_told_everything(house: House) -> None:
    endpoint = await house.endpoint("takeover.*")
    session = await house.session(events_per_run=20)
    latest = house.client.get_workflow_handle_for(AgentSession.run, session.id)
    for _ in range(8):
        await latest.execute_update(AgentSession.take_over, TakeOver(operator=OLGA))
        await latest.execute_update(AgentSession.leave, Membership(participant=OLGA))

    async def all_told() -> bool:
        return len(await endpoint.deliveries()) == 16

    async def told_again() -> bool:
        return len(await endpoint.deliveries()) == 17

    async def continued() -> bool:
        return (await latest.query(AgentSession.snapshot)).runs > 1

    await eventually(all_told, what="everything is told")
    await eventually(continued, what="the session has continued as new")
    await latest.execute_update(AgentSession.take_over, TakeOver(operator=OLGA))
    await eventually(told_again, what="its next run tells too")
    await latest.signal(AgentSession.close)


async def steps(house: House, *kinds: str) -> WorkflowHandle[Steps, None]:
    return await house.client.start_workflow(
        Steps.run, [*kinds], id=f"steps-{uuid.uuid4()}", task_queue=house.queue
    )


async def test_steps_that_follow_each_other_are_asked_about_once(house: House) -> None:
    endpoint = await house.endpoint("*")
    handle = await steps(house, UPDATED, "approval.granted", UPDATED)
    # Nothing else comes: what there is isn't kept for the end.
    await eventually(lambda: house.asked, what="it is asked a moment later")
    assert house.asked == [("approval.granted", UPDATED)]
    await handle.signal(Steps.step, UPDATED)
    await handle.signal(Steps.end)
    await handle.result()
    assert house.asked[1:] == [(UPDATED,)]
    assert sorted(await told(endpoint)) == ["approval.granted", UPDATED, UPDATED, UPDATED]


async def test_what_people_are_waited_for_is_told_at_once(house: House) -> None:
    handle = await steps(house, UPDATED, REQUESTED)
    await eventually(lambda: house.asked)
    assert house.asked == [(REQUESTED, UPDATED)]
    fired = HistoryType.EVENT_TYPE_TIMER_FIRED
    assert not any(event.event_type == fired for event in (await handle.fetch_history()).events)
    await handle.signal(Steps.end)
    await handle.result()
    assert len(house.asked) == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
async def test_recorded_histories_still_replay(name: str) -> None:
    """Record anew with WAYSTATION_RECORD_HISTORIES=<folder> when a test's history is to be kept."""
    await replay(name)
