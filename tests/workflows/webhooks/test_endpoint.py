"""An endpoint's workflow: days of retries, an end to them, a queue that outlives its runs."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

import workflows.webhooks.endpoint as endpoint_module
from activities.contract import NewSecret, SecretCall, WebhookCall, WebhookOutcome
from tests.support import eventually
from tests.workflows.webhooks.recorded import keep
from tests.world.time_skipping import running_time_skipping
from waystation.models.webhooks import (
    DeliveriesWanted,
    DeliveryWanted,
    NewsTypes,
    SecretMade,
    SecretWanted,
    Subscription,
    SubscriptionList,
    WebhookAttempt,
    WebhookChange,
    WebhookDelivery,
    WebhookEvent,
    WebhookNews,
    WebhookSettings,
    WebhookView,
    event_id,
)
from worker import WORKFLOW_RUNNER
from workflows.policies import WEBHOOK_RETRY_DELAYS
from workflows.webhooks import WebhookEndpoint
from workflows.webhooks.endpoint import MAX_AT_ONCE, EndpointStart

OPENING = EndpointStart(settings=WebhookSettings(url="https://receiver.example/", events=("*",)))


class Outside:
    """The registry, the keys and a receiver, as an endpoint sees them."""

    def __init__(self) -> None:
        self.status = 204
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self.registered: list[Subscription] = []
        self.open = asyncio.Event()
        self.open.set()
        self.at_once = self.most_at_once = 0

    @activity.defn(name="deliver_webhook")
    async def deliver(self, call: WebhookCall) -> WebhookOutcome:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await self.open.wait()
        self.at_once -= 1
        self.sent.append((call.delivery_id, call.secrets))
        attempt = WebhookAttempt(time=datetime.now(UTC), milliseconds=1, status=self.status)
        return WebhookOutcome(attempt=attempt, delivered=self.status < 300, gone=self.status == 410)

    @activity.defn(name="make_webhook_secret")
    async def make_secret(self, _: SecretCall) -> NewSecret:
        return NewSecret(sealed=f"sealed:k:{uuid.uuid4().hex}", made=SecretMade(box="box"))

    @activity.defn(name="register_webhook")
    async def register(self, subscription: Subscription) -> None:
        self.registered.append(subscription)

    @activity.defn(name="webhook_subscribers")
    async def subscribers(self, _: NewsTypes) -> SubscriptionList:
        return SubscriptionList()


class Endpoint:
    """One endpoint, and what it is told."""

    def __init__(self, handle: WorkflowHandle[WebhookEndpoint, None], outside: Outside) -> None:
        self.handle, self.outside = handle, outside

    async def opened(self) -> "Endpoint":
        made = await self.handle.execute_update(
            WebhookEndpoint.make_secret, SecretWanted(recipient="r", first=True)
        )
        assert made.box == "box"
        return self

    async def tell(self, *numbers: int) -> None:
        events = tuple(
            WebhookEvent(id=event_id(str(n)), type="turn.failed", time=datetime(2026, 1, 1, tzinfo=UTC))
            for n in numbers
        )
        await self.handle.signal(WebhookEndpoint.news, WebhookNews(events=events))

    async def view(self) -> WebhookView:
        return await self.handle.query(WebhookEndpoint.status)

    async def deliveries(self) -> tuple[WebhookDelivery, ...]:
        page = await self.handle.query(WebhookEndpoint.deliveries, DeliveriesWanted(limit=100))
        return page.deliveries

    async def settled(self) -> tuple[WebhookDelivery, ...]:
        """Once nothing waits."""

        async def nothing_waits() -> bool:
            return (await self.view()).waiting == 0

        await eventually(nothing_waits, what="nothing waits")
        return await self.deliveries()


@asynccontextmanager
async def working(client: Client, request: pytest.FixtureRequest) -> AsyncIterator[Endpoint]:
    queue, outside = f"webhooks-{uuid.uuid4()}", Outside()
    async with Worker(
        client,
        task_queue=queue,
        workflows=[WebhookEndpoint],
        activities=[outside.deliver, outside.make_secret, outside.register, outside.subscribers],
        workflow_runner=WORKFLOW_RUNNER,
    ):
        handle = await client.start_workflow(WebhookEndpoint.run, OPENING, id=queue, task_queue=queue)
        yield await Endpoint(handle, outside).opened()
        await keep(request, client.get_workflow_handle(queue))


@pytest.fixture
async def endpoint(temporal: Client, request: pytest.FixtureRequest) -> AsyncIterator[Endpoint]:
    async with working(temporal, request) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    async with running_time_skipping() as server:
        yield server


@pytest.fixture
async def for_days(skipping: WorkflowEnvironment, request: pytest.FixtureRequest) -> AsyncIterator[Endpoint]:
    async with working(skipping.client, request) as endpoint:
        yield endpoint


async def passes(skipping: WorkflowEnvironment, time: timedelta) -> None:
    """Lets time pass, in parts: a call in which much happens would take longer than it may."""
    while time > timedelta(0):
        part = min(time, timedelta(hours=2))
        await skipping.sleep(part)
        time -= part


async def test_what_it_is_told_is_sent_once_and_logged(endpoint: Endpoint) -> None:
    await endpoint.tell(1, 2)
    await endpoint.tell(2, 3)
    logged = await endpoint.settled()
    assert sorted(one for one, _ in endpoint.outside.sent) == sorted(event_id(str(n)) for n in (1, 2, 3))
    assert {one.status for one in logged} == {"delivered"}
    assert (await endpoint.view()).last_delivered is not None


async def test_a_slow_answer_holds_up_no_more_than_its_own(endpoint: Endpoint) -> None:
    endpoint.outside.open.clear()
    await endpoint.tell(*range(10))
    await eventually(lambda: endpoint.outside.at_once == MAX_AT_ONCE, what="several are under way")
    endpoint.outside.open.set()
    assert len(await endpoint.settled()) == 10
    assert endpoint.outside.most_at_once == MAX_AT_ONCE


async def test_it_signs_with_both_secrets_during_an_overlap(endpoint: Endpoint) -> None:
    wanted = SecretWanted(recipient="r", overlap_seconds=60)
    await endpoint.handle.execute_update(WebhookEndpoint.make_secret, wanted)
    await endpoint.tell(1)
    await endpoint.settled()
    assert [len(secrets) for _, secrets in endpoint.outside.sent] == [2]
    await endpoint.handle.execute_update(
        WebhookEndpoint.make_secret, SecretWanted(recipient="r", overlap_seconds=0)
    )
    await endpoint.tell(2)
    await endpoint.settled()
    assert [len(secrets) for _, secrets in endpoint.outside.sent] == [2, 1]


async def test_a_receiver_that_is_gone_is_sent_no_more(endpoint: Endpoint) -> None:
    endpoint.outside.status = 410
    await endpoint.tell(1)

    async def disabled() -> bool:
        return (await endpoint.view()).status == "disabled"

    await eventually(disabled, what="it is disabled")
    assert (await endpoint.view()).disabled_because == "the receiver answered 410 (Gone)"
    await eventually(lambda: not endpoint.outside.registered[-1].enabled, what="the registry knows")


async def test_the_queue_outlives_its_runs(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_EVENTS_BEFORE_ROLLOVER", 40)
    first = (await endpoint.handle.describe()).run_id
    for number in range(0, 60, 10):
        await endpoint.tell(*range(number, number + 10))
    assert len(await endpoint.settled()) == 60
    sent = [one for one, _ in endpoint.outside.sent]
    assert len(sent) == len(set(sent)) == 60
    latest = endpoint.handle._client.get_workflow_handle(endpoint.handle.id)
    assert (await latest.describe()).run_id != first


async def test_it_ends_when_it_is_removed(endpoint: Endpoint) -> None:
    endpoint.outside.status = 500
    await endpoint.tell(1)
    assert (await endpoint.handle.execute_update(WebhookEndpoint.remove)).status == "deleted"
    await asyncio.wait_for(endpoint.handle.result(), 30)
    assert endpoint.outside.registered[-1].deleted


async def test_a_receiver_that_is_down_is_tried_for_a_day(
    for_days: Endpoint, skipping: WorkflowEnvironment
) -> None:
    for_days.outside.status = 500
    began = await skipping.get_current_time()
    await for_days.tell(1)
    await passes(skipping, sum(WEBHOOK_RETRY_DELAYS, timedelta(minutes=5)))
    [given_up] = await for_days.settled()
    assert (given_up.status, given_up.tried) == ("failed", len(WEBHOOK_RETRY_DELAYS) + 1)
    assert (await for_days.view()).status == "enabled", "a day is not for days"
    assert (await skipping.get_current_time()) - began < timedelta(hours=27)


async def test_a_receiver_that_is_back_is_sent_what_waited(
    for_days: Endpoint, skipping: WorkflowEnvironment
) -> None:
    for_days.outside.status = 500
    await for_days.tell(*range(5))
    await passes(skipping, timedelta(hours=1))
    assert for_days.outside.most_at_once <= MAX_AT_ONCE
    for_days.outside.status = 204
    await passes(skipping, timedelta(hours=12))
    assert {one.status for one in await for_days.settled()} == {"delivered"}
    assert (await for_days.view()).failing_since is None


async def test_an_endpoint_that_fails_for_days_is_disabled_and_can_be_enabled(
    for_days: Endpoint, skipping: WorkflowEnvironment
) -> None:
    for_days.outside.status = 500
    for day in range(5):
        await for_days.tell(day)
        await passes(skipping, timedelta(days=1))
    view = await for_days.view()
    assert view.status == "disabled"
    assert (view.disabled_because or "").startswith("nothing was delivered since ")
    assert not for_days.outside.registered[-1].enabled
    for_days.outside.status, before = 204, len(for_days.outside.sent)
    await passes(skipping, timedelta(days=2))
    assert len(for_days.outside.sent) == before, "nothing is sent while it is disabled"
    await for_days.handle.execute_update(WebhookEndpoint.change, WebhookChange(enabled=True))
    assert for_days.outside.registered[-1].enabled
    await for_days.settled()
    assert len(for_days.outside.sent) > before


async def test_what_was_given_up_can_be_delivered_again(
    for_days: Endpoint, skipping: WorkflowEnvironment
) -> None:
    for_days.outside.status = 500
    await for_days.tell(1)
    await passes(skipping, timedelta(days=2))
    for_days.outside.status = 204
    wanted = DeliveryWanted(delivery_id=event_id("1"))
    again = await for_days.handle.execute_update(WebhookEndpoint.redeliver, wanted)
    assert again.status == "waiting"
    [delivered] = await for_days.settled()
    assert (delivered.delivery_id, delivered.status) == (event_id("1"), "delivered")
