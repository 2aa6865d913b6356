"""A person's workflow: it ends with its last browser, and goes on over retries, tokens and runs."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

import workflows.push.subscriber as subscriber_module
from activities.contract import PushCall, PushOutcome
from tests.support import eventually
from tests.world.time_skipping import running_time_skipping
from waystation.models.attention import AttentionItem, AttentionKind
from waystation.models.push import (
    MAX_BROWSERS,
    PushPerson,
    PushRemoval,
    PushTarget,
    PushView,
    PushWaiting,
)
from waystation.models.webhooks import WebhookAttempt
from worker import WORKFLOW_RUNNER
from workflows.policies import PUSH_OPENING_TIMEOUT, PUSH_RETRY_DELAYS
from workflows.push import PushSubscriber
from workflows.push.subscriber import SubscriberStart

A_TASK_LOST = timedelta(seconds=10)
"""A worker without a cache may lose a task, which its server gives out again after this time."""
OLGA = PushPerson(subject="olga", role="operator", sessions=None, by_key=True)


@pytest.fixture(scope="module")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    async with running_time_skipping() as environment:
        yield environment


class Service:
    """A push service."""

    def __init__(self) -> None:
        self.status = 201
        self.sent: list[PushCall] = []
        self.times: list[datetime] = []

    @activity.defn(name="deliver_push")
    async def deliver(self, call: PushCall) -> PushOutcome:
        self.sent.append(call)
        self.times.append(activity.info().started_time)
        attempt = WebhookAttempt(time=self.times[-1], milliseconds=1, status=self.status)
        return PushOutcome(attempt=attempt, delivered=self.status < 300, gone=self.status == 410)


class Subscriber:
    def __init__(
        self, environment: WorkflowEnvironment, handle: WorkflowHandle[PushSubscriber, None], service: Service
    ) -> None:
        self.environment, self.handle, self.service = environment, handle, service

    async def subscribe(self, name: str, ends_in: timedelta | None = None) -> PushView:
        ends = None if ends_in is None else await self.environment.get_current_time() + ends_in
        target = PushTarget(
            subscription_id=name, endpoint=f"https://push.example/{name}", p256dh="p", auth="a", ends=ends
        )
        return await self.handle.execute_update(PushSubscriber.subscribe, target)

    async def waits(self, *names: str) -> None:
        now = await self.environment.get_current_time() + timedelta(seconds=1)
        items = tuple(
            AttentionItem(kind=AttentionKind.QUESTION, id=one, session_id="s", line=one, since=now)
            for one in names
        )
        await self.handle.signal(PushSubscriber.attention, PushWaiting(items=items))

    async def view(self) -> PushView:
        return await self.handle.query(PushSubscriber.status)

    async def told(self, count: int) -> None:
        # Not by queries: the time-skipping server loses one that comes while a run continues as new.
        await eventually(lambda: len(self.service.sent) == count, what=f"{count} are told")

    async def ends(self) -> None:
        await self.handle.result()
        assert (await self.handle.describe()).status == WorkflowExecutionStatus.COMPLETED


@asynccontextmanager
async def running(environment: WorkflowEnvironment) -> AsyncIterator[Subscriber]:
    service, queue = Service(), f"push-{uuid.uuid4()}"
    async with Worker(
        environment.client,
        task_queue=queue,
        workflows=[PushSubscriber],
        activities=[service.deliver],
        workflow_runner=WORKFLOW_RUNNER,
        max_cached_workflows=0,
    ):
        handle = await environment.client.start_workflow(
            PushSubscriber.run, SubscriberStart(person=OLGA), id=queue, task_queue=queue
        )
        try:
            yield Subscriber(environment, handle, service)
        finally:
            # One that is left behind keeps the time of the others' server from being skipped.
            with contextlib.suppress(RPCError):
                await handle.terminate()


async def test_it_tries_again_and_ends_with_the_token(skipping: WorkflowEnvironment) -> None:
    async with running(skipping) as olga:
        await olga.subscribe("a", ends_in=timedelta(hours=1))
        olga.service.status = 503
        await olga.waits("x")
        await olga.ends()
    in_an_hour = sum(
        sum(PUSH_RETRY_DELAYS[:n], timedelta()) < timedelta(hours=1)
        for n in range(len(PUSH_RETRY_DELAYS) + 1)
    )
    assert len(olga.service.sent) == in_an_hour
    gaps = [later - earlier for earlier, later in pairwise(olga.service.times)]
    for gap, delay in zip(gaps, PUSH_RETRY_DELAYS, strict=False):
        assert delay <= gap <= delay + A_TASK_LOST + timedelta(seconds=2)
    assert len({one.topic for one in olga.service.sent}) == 1
    assert "auth" not in repr(olga.service.sent[0])


async def test_it_ends_with_a_browser_that_is_gone_and_without_any(skipping: WorkflowEnvironment) -> None:
    async with running(skipping) as olga:
        await olga.subscribe("a")
        await olga.subscribe("b")
        await olga.handle.execute_update(PushSubscriber.unsubscribe, PushRemoval(subscription_id="b"))
        olga.service.status = 410
        await olga.waits("x", "y")
        await olga.ends()
        assert {one.endpoint for one in olga.service.sent} == {"https://push.example/a"}
    async with running(skipping) as nobody:
        began = await skipping.get_current_time()
        await nobody.ends()
        assert await skipping.get_current_time() - began >= PUSH_OPENING_TIMEOUT


async def test_nobody_is_told_twice_over_many_runs(
    skipping: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "MAX_EVENTS_BEFORE_ROLLOVER", 20)
    with skipping.auto_time_skipping_disabled():
        async with running(skipping) as olga:
            await olga.subscribe("a")
            names = [f"q{n}" for n in range(6)]
            for n, name in enumerate(names, 1):
                await olga.waits(*names[:n][-3:])
                await olga.told(n)
                assert olga.service.sent[-1].body.count(f'"{name}"') == 2
            assert len(olga.service.sent) == len(names)
            first = olga.handle.first_execution_run_id
            assert (await olga.handle.describe()).run_id != first


async def test_one_browser_too_many_is_refused(skipping: WorkflowEnvironment) -> None:
    async with running(skipping) as olga:
        told = await asyncio.gather(
            *(olga.subscribe(f"b{n}") for n in range(MAX_BROWSERS + 1)), return_exceptions=True
        )
        [refused] = [one for one in told if isinstance(one, WorkflowUpdateFailedError)]
        assert "remove one first" in str(refused.cause)
        assert len((await olga.view()).subscriptions) == MAX_BROWSERS
