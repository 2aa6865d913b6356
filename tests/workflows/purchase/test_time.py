"""What happens when nobody does anything for long: on a server that skips time. And long lives."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.checkouts import SellerCredentials
from activities.registration import purchase_activities
from activities.webhooks import WebhookRegistry
from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Buyer
from tests.workflows.purchase.test_loop import AUTO, TOTAL, nothing_happened, paid_once
from tests.world.keys import TRUSTING, VAULT
from tests.world.sandbox import Processor
from tests.world.time_skipping import running_time_skipping
from waystation.models.purchases import OrderEventReceived, Revise
from waystation.stripe_http import open_stripe
from worker import PURCHASE_WORKFLOWS, WORKFLOW_RUNNER
from workflows.purchase import Purchase
from workflows.purchase import workflow as purchase_module


@contextlib.asynccontextmanager
async def working(
    client: Client, processor: Processor, *, instead: Sequence[Callable[..., Any]] = (), **options: Any
) -> AsyncIterator[str]:
    """Runs a worker for purchases, with the activities of ``instead`` for those of their names."""
    names = {one.__name__ for one in instead}
    queue = f"time-{uuid.uuid4()}"
    stripe, connections = open_stripe("sk_test_agent", api_base=processor.url)
    async with httpx.AsyncClient() as http:
        activities = purchase_activities(
            client,
            http=http,
            sellers=SellerCredentials({}, default=SecretStr("key")),
            processor=stripe,
            verifier=TRUSTING,
            vault=VAULT,
        )
        async with Worker(
            client,
            task_queue=queue,
            workflows=PURCHASE_WORKFLOWS,
            activities=[
                *(one for one in activities if one.__name__ not in names),
                WebhookRegistry(client).webhook_subscribers,
                *instead,
            ],
            workflow_runner=WORKFLOW_RUNNER,
            **options,
        ):
            yield queue
    await connections.close_async()


@pytest.fixture
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    async with running_time_skipping() as server:
        yield server


async def test_an_approval_that_nobody_gives_expires(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    async with working(skipping.client, processor) as queue:
        buyer = Buyer(skipping.client, queue, seller.origin)
        bought = await buyer.buy(approval_timeout_seconds=3600)
        await bought.until("awaiting_approval")
        assert await bought.balance() == (0, TOTAL)
        await skipping.sleep(timedelta(minutes=50))
        assert (await bought.view()).status == "awaiting_approval"
        await skipping.sleep(timedelta(minutes=11))
        view = await bought.until("expired")
        assert view.refusal is not None
        assert view.refusal.rule == "approval_expired"
        assert seller.steps()[-1] == "cancel"
        await nothing_happened(bought, processor)


async def test_a_revision_that_never_comes_ends_the_purchase(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    async with working(skipping.client, processor) as queue:
        buyer = Buyer(skipping.client, queue, seller.origin)
        bought = await buyer.buy(terms=AUTO, fulfillment_details=None)
        await bought.until("needs_revision")
        await skipping.sleep(timedelta(minutes=31))
        view = await bought.until("refused")
        assert view.refusal is not None
        assert view.refusal.rule == "missing"
        await nothing_happened(bought, processor)


async def test_an_authentication_that_nobody_does_expires_and_revokes_the_token(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    async with working(skipping.client, processor) as queue:
        buyer = Buyer(skipping.client, queue, seller.origin)
        bought = await buyer.buy(terms={**AUTO, "payment_methods": ["pm_card_authenticationRequired"]})
        await bought.until("authentication_required")
        await skipping.sleep(timedelta(hours=25))
        view = await bought.until("expired")
        assert view.refusal is not None
        assert view.refusal.rule == "authentication_expired"
        await nothing_happened(bought, processor)


async def test_a_seller_that_never_answers_the_completion_is_given_up_after_revoking_the_token(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.before["complete"] = lambda: PlainTextResponse("busy", 503)
    async with working(skipping.client, processor) as queue:
        buyer = Buyer(skipping.client, queue, seller.origin)
        bought = await buyer.buy(terms=AUTO)
        await bought.until("confirming")

        async def given_up() -> bool:
            await skipping.sleep(timedelta(seconds=30))
            return (await bought.view()).final

        await eventually(given_up, within=60, what="the purchase is given up")
        view = await bought.view()
        assert (view.status, view.refusal.rule if view.refusal else None) == (
            "failed",
            "completion_unconfirmed",
        )
        assert seller.keys("complete") == {f"{bought.id}:complete:1"}
        await nothing_happened(bought, processor)


async def test_an_order_is_followed_for_ninety_days(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    async with working(skipping.client, processor) as queue:
        buyer = Buyer(skipping.client, queue, seller.origin)
        bought = await buyer.buy(terms=AUTO)
        view = await bought.until("completed")
        assert view.order is not None
        await skipping.sleep(timedelta(days=89))
        refunded = view.order.model_copy(update={"status": "refunded"})
        event = OrderEventReceived(event_id="e1", sent_at=1, type="order_update", order=refunded)
        await bought.handle.signal(Purchase.order_event, event)
        final = await bought.handle.result()
        assert (final.status, final.order.status if final.order else None) == ("completed", "refunded")


async def test_a_long_purchase_is_renewed_and_goes_on(
    encrypted: Client, seller: ScriptedSeller, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purchase_module, "MAX_EVENTS_BEFORE_ROLLOVER", 60)
    async with working(encrypted, processor) as queue:
        buyer = Buyer(encrypted, queue, seller.origin)
        bought = await buyer.buy()
        waiting = asyncio.create_task(bought.outcome())
        first = (await bought.handle.describe()).run_id
        for quantity in range(1, 9):
            before = (await bought.until("awaiting_approval")).digest
            items = [{"id": "tea", "quantity": quantity}]
            await bought.handle.signal(Purchase.revise, Revise.model_validate({"by": "a", "items": items}))

            async def changed(before: str | None = before) -> bool:
                view = await bought.view()
                return view.status == "awaiting_approval" and view.digest != before

            await eventually(changed, what="the revised cart waits")

            async def marked() -> bool:
                run = await encrypted.get_workflow_handle(bought.id).describe()
                return (await run.memo()).get("waits_for") == "approval"

            await eventually(marked, what="lists find it in whatever run it waits")
        assert (await encrypted.get_workflow_handle(bought.id).describe()).run_id != first
        await bought.approve()
        view = await asyncio.wait_for(waiting, 20)
        total = 8 * 450 + 360 + 500
        assert (view.status, view.receipt.amount if view.receipt else None) == ("completed", total)
        await paid_once(bought, processor, total)
        await bought.trail()
        assert seller.keys("create") == {f"{bought.id}:create"}
        changes = {f"{bought.id}:update:{number}" for number in range(2, 10)}
    assert seller.keys("update") == {f"{bought.id}:select:1", *changes}
