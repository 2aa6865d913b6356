"""A workflow of somebody's own buys: ``Buy`` returns how the purchase ended, however it ends."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError, ChildWorkflowError
from temporalio.worker import Worker
from temporalio.workflow import ParentClosePolicy

from tests.docs.support import blocks, page
from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_loop import AUTO, TOTAL, nothing_happened, paid_once
from tests.workflows.purchase.test_time import working
from tests.workflows.purchase.town import Town
from tests.world.replays import replayer_of
from tests.world.sandbox import Processor
from waystation.models.base import Frozen
from waystation.models.purchases import BuyStart, Charge, PurchaseView, Revise
from waystation.temporal.messages import BUY, BUY_ENDED
from waystation.temporal.names import PURCHASE_ID_TAKEN
from worker import WORKFLOW_RUNNER
from workflows.purchase import Buy, Purchase
from workflows.purchase import workflow as purchase_module


class Errand(Frozen):
    """What the parent is to do."""

    queue: str
    start: BuyStart
    policy: ParentClosePolicy = ParentClosePolicy.TERMINATE


@workflow.defn
class Parent:
    """Somebody's own workflow."""

    @workflow.run
    async def run(self, errand: Errand) -> PurchaseView:
        view: PurchaseView = await workflow.execute_child_workflow(
            BUY.name,
            errand.start,
            id=f"{errand.start.purchase_id}-buy",
            task_queue=errand.queue,
            result_type=PurchaseView,
            parent_close_policy=errand.policy,
        )
        return view


Started = WorkflowHandle[Any, PurchaseView]


@pytest.fixture(scope="module")
async def parents(encrypted: Client) -> AsyncIterator[str]:
    """The queue of a worker that knows the parent and nothing of ours."""
    queue = f"parents-{uuid.uuid4()}"
    async with Worker(encrypted, task_queue=queue, workflows=[Parent], workflow_runner=WORKFLOW_RUNNER):
        yield queue


async def send_out(
    buyer: Buyer, parents: str, *, terms: dict[str, Any] | None = None, **changes: Any
) -> tuple[Started, Bought]:
    """Starts a parent, and returns it with the purchase that it makes under a mandate of its own."""
    mandate = await buyer.mandate(**(terms or {}))
    policy = changes.pop("policy", ParentClosePolicy.TERMINATE)
    purchase_id = changes.pop("purchase_id", f"purchase-{uuid.uuid4()}")
    start = BuyStart(purchase_id=purchase_id, request=buyer.request(mandate.id, **changes))
    errand = Errand(queue=buyer.queue, start=start, policy=policy)
    parent = await buyer.client.start_workflow(
        Parent.run, errand, id=f"parent-{uuid.uuid4()}", task_queue=parents
    )
    bought = Bought(buyer.client.get_workflow_handle_for(Purchase.run, purchase_id))
    bought.mandate = mandate
    await eventually(lambda: is_known(bought), what="the purchase is there")
    return parent, bought


async def is_known(bought: Bought) -> bool:
    try:
        return await bought.view() is not None
    except Exception:
        return False


async def status_of(handle: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus | None:
    return (await handle.describe()).status


async def test_it_returns_once_it_is_paid_while_the_order_is_followed(
    buyer: Buyer, parents: str, processor: Processor
) -> None:
    parent, bought = await send_out(buyer, parents)
    await bought.approve()
    view = await asyncio.wait_for(parent.result(), 30)
    assert (view.status, view.final, view.purchase_id) == ("completed", True, bought.id)
    assert view.order is not None
    assert view.receipt is not None
    await paid_once(bought, processor, TOTAL)
    assert await status_of(bought.handle) == WorkflowExecutionStatus.RUNNING
    memo = await (await bought.handle.describe()).memo()
    assert (memo["seller"], memo["agent"]) == (buyer.seller, "shopper")


async def test_a_refused_purchase_returns_why(buyer: Buyer, parents: str, processor: Processor) -> None:
    parent, bought = await send_out(buyer, parents, terms={"cap": {"amount": 100, "currency": "usd"}})
    view = await asyncio.wait_for(parent.result(), 30)
    assert view.status == "refused"
    assert view.refusal is not None
    await nothing_happened(bought, processor)


async def test_a_seller_that_fails_ends_it(
    buyer: Buyer, parents: str, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.before["create"] = lambda: JSONResponse({"type": "invalid_request", "code": "x"}, 400)
    parent, bought = await send_out(buyer, parents)
    view = await asyncio.wait_for(parent.result(), 30)
    assert (view.status, view.money_moved) == ("refused", False)
    await nothing_happened(bought, processor)


async def test_a_parent_that_is_canceled_cancels_what_is_not_being_paid(
    buyer: Buyer, parents: str, processor: Processor
) -> None:
    parent, bought = await send_out(buyer, parents)
    await bought.until("awaiting_approval")
    await parent.cancel()
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(parent.result(), 30)
    assert isinstance(failure.value.cause, CancelledError)
    assert await status_of(parent) == WorkflowExecutionStatus.CANCELED
    assert (await bought.view()).status == "canceled"
    assert "cancel.received" in await bought.actions()
    await nothing_happened(bought, processor)


async def test_a_cancellation_that_comes_too_late_returns_what_was_paid(
    buyer: Buyer, parents: str, seller: ScriptedSeller, processor: Processor
) -> None:
    canceled: list[bool] = []

    def not_before_it_is_canceled() -> JSONResponse | None:
        return None if canceled else JSONResponse({}, 503)

    seller.before["complete"] = not_before_it_is_canceled
    parent, bought = await send_out(buyer, parents, terms=AUTO)
    await eventually(lambda: "complete" in seller.steps(), what="it is being paid")
    await parent.cancel()

    async def heard() -> bool:
        return "cancel.received" in await bought.actions()

    await eventually(heard, what="the purchase was told")
    canceled.append(True)
    view = await asyncio.wait_for(parent.result(), 30)
    assert view.status == "completed"
    await paid_once(bought, processor, TOTAL)


async def test_a_false_report_of_the_end_is_not_believed(
    buyer: Buyer, parents: str, processor: Processor
) -> None:
    parent, bought = await send_out(buyer, parents)
    await bought.until("awaiting_approval")
    child = buyer.client.get_workflow_handle(f"{bought.id}-buy")
    await child.signal(BUY_ENDED.name)

    async def looked() -> bool:
        looks = [
            e async for e in child.fetch_history_events() if e.HasField("marker_recorded_event_attributes")
        ]
        return len(looks) > 0

    await eventually(looked, what="it has asked the purchase")
    assert await status_of(child) == WorkflowExecutionStatus.RUNNING
    await bought.approve()
    assert (await asyncio.wait_for(parent.result(), 30)).status == "completed"
    await paid_once(bought, processor, TOTAL)


async def test_a_purchase_that_an_operator_terminates_is_not_waited_for(buyer: Buyer, parents: str) -> None:
    parent, bought = await send_out(buyer, parents)
    await bought.until("awaiting_approval")
    await bought.handle.terminate("by an operator")
    view = await asyncio.wait_for(parent.result(), 30)
    assert (view.status, view.final) == ("failed", True)
    assert view.refusal is not None
    assert view.refusal.rule == "ended_in_temporal"
    assert view.charge == Charge(status="unknown")


@pytest.mark.parametrize("ended", [False, True], ids=["that waits", "that has ended"])
async def test_the_id_of_another_purchase_is_refused(buyer: Buyer, parents: str, ended: bool) -> None:
    first = await buyer.buy(terms={"cap": {"amount": 100, "currency": "usd"}} if ended else {})
    before = await first.until("refused" if ended else "awaiting_approval")
    if ended:
        before = await first.handle.result()
    parent, _ = await send_out(buyer, parents, purchase_id=first.id)
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(parent.result(), 30)
    assert isinstance(failure.value.cause, ChildWorkflowError)
    refused = failure.value.cause.cause
    assert isinstance(refused, ApplicationError)
    assert refused.type == PURCHASE_ID_TAKEN
    assert await first.view() == before


@pytest.mark.parametrize(
    ("policy", "ends_as"),
    [(ParentClosePolicy.TERMINATE, None), (ParentClosePolicy.REQUEST_CANCEL, "canceled")],
)
async def test_what_becomes_of_it_when_its_parent_ends(
    buyer: Buyer, parents: str, policy: ParentClosePolicy, ends_as: str | None, processor: Processor
) -> None:
    parent, bought = await send_out(buyer, parents, policy=policy)
    await bought.until("awaiting_approval")
    await parent.terminate()
    child = buyer.client.get_workflow_handle(f"{bought.id}-buy")

    async def child_ended() -> bool:
        return await status_of(child) != WorkflowExecutionStatus.RUNNING

    await eventually(child_ended, what="the child has ended")
    if ends_as is None:
        await bought.approve()
    view = await bought.until(ends_as or "completed")
    await (paid_once(bought, processor, TOTAL) if ends_as is None else nothing_happened(bought, processor))
    assert view.final


async def test_a_purchase_that_was_renewed_reports_too_and_only_once(
    encrypted: Client, seller: ScriptedSeller, parents: str, processor: Processor, monkeypatch: Any
) -> None:
    monkeypatch.setattr(purchase_module, "MAX_EVENTS_BEFORE_ROLLOVER", 30)
    async with working(encrypted, processor) as queue:
        parent, bought = await send_out(Buyer(encrypted, queue, seller.origin), parents)
        first = (await bought.handle.describe()).run_id

        async def renewed() -> bool:
            return (await encrypted.get_workflow_handle(bought.id).describe()).run_id != first

        for quantity in range(1, 20):
            before = (await bought.until("awaiting_approval")).digest
            if await renewed():
                break
            revision = {"by": "a", "items": [{"id": "tea", "quantity": quantity}]}
            await bought.handle.signal(Purchase.revise, Revise.model_validate(revision))

            async def changed(before: str | None = before) -> bool:
                view = await bought.view()
                return view.status == "awaiting_approval" and view.digest != before

            await eventually(changed, what="the revised cart waits")
        assert await renewed()
        await bought.approve()
        view = await asyncio.wait_for(parent.result(), 30)
        assert view.status == "completed"
        child = await encrypted.get_workflow_handle(f"{bought.id}-buy").fetch_history()
        reports = [e for e in child.events if e.HasField("workflow_execution_signaled_event_attributes")]
        assert len(reports) == 1


async def test_what_was_just_bought_replays(buyer: Buyer, parents: str, encrypted: Client) -> None:
    parent, bought = await send_out(buyer, parents, terms=AUTO)
    await asyncio.wait_for(parent.result(), 30)
    replayer = replayer_of([Buy, Purchase], encrypted.data_converter)
    for workflow_id in (bought.id, f"{bought.id}-buy"):
        await replayer.replay_workflow(await encrypted.get_workflow_handle(workflow_id).fetch_history())


async def test_the_documented_workflow_buys_though_the_worker_is_killed(town: Town, tmp_path: Path) -> None:
    """docs/purchases.md shows a parent with its worker; here it runs as a process of its own."""
    [shown] = [code for code in blocks(page("purchases.md"), "python") if "class Restock" in code]
    program = tmp_path / "restock.py"
    program.write_text(shown)
    mandate = await town.buyer.mandate()
    request = town.buyer.request(mandate.id, items=[{"id": "ebook_tides"}])
    with town.worker_of(program):
        restock_id = f"restock-{uuid.uuid4()}"
        parent = await town.client.start_workflow(
            "Restock", request, id=restock_id, task_queue="restock", result_type=str
        )
        bought = Bought(town.client.get_workflow_handle_for(Purchase.run, f"{restock_id}-1"))
        await eventually(lambda: is_known(bought), within=60, what="the purchase is there")
        await bought.until("awaiting_approval", within=60)
        town.worker.kill()
        town.worker.start()
        await bought.approve()
        said = await asyncio.wait_for(parent.result(), 90)
    assert said.startswith("ordered: ")
