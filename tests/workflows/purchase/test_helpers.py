"""``waystation.workflow.buy`` in somebody's own workflow, within Temporal's sandbox."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError, ChildWorkflowError
from temporalio.worker import Worker

from tests.support import eventually
from tests.workflow.buying import Restock
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_buy import is_known, status_of
from tests.workflows.purchase.test_loop import TOTAL, nothing_happened, paid_once
from tests.world.replays import AS_IT_IS, replayer_of
from tests.world.sandbox import Processor
from waystation.temporal.names import PURCHASE_ID_TAKEN
from waystation.workflow import money
from workflows.purchase import Purchase


@pytest.fixture
async def queue(buyer: Buyer, encrypted: Client, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(money, "SESSION_TASK_QUEUE", buyer.queue)
    queue = f"restock-{uuid.uuid4()}"
    async with Worker(encrypted, task_queue=queue, workflows=[Restock]):
        yield queue


async def test_it_returns_once_the_purchase_is_final(
    buyer: Buyer, queue: str, encrypted: Client, processor: Processor
) -> None:
    purchase_id = f"purchase-{uuid.uuid4()}"
    request = buyer.request((await buyer.mandate()).id)
    parent = await encrypted.start_workflow(
        Restock.run, args=[request, purchase_id], id=f"r-{uuid.uuid4()}", task_queue=queue
    )
    bought = Bought(buyer.client.get_workflow_handle_for(Purchase.run, purchase_id))
    await eventually(lambda: is_known(bought), what="the purchase is there")
    await bought.approve()
    view = await asyncio.wait_for(parent.result(), 30)
    assert (view.status, view.purchase_id) == ("completed", purchase_id)
    bought.mandate = buyer.client.get_workflow_handle(request.mandate_id)
    await paid_once(bought, processor, TOTAL)
    assert await status_of(bought.handle) == WorkflowExecutionStatus.RUNNING, "it follows its order"
    replayer = replayer_of([Restock], encrypted.data_converter, AS_IT_IS)
    await replayer.replay_workflow(await parent.fetch_history())

    again = await encrypted.start_workflow(
        Restock.run, args=[request, purchase_id], id=f"r-{uuid.uuid4()}", task_queue=queue
    )
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(again.result(), 30)
    assert isinstance(failure.value.cause, ChildWorkflowError)
    assert isinstance(failure.value.cause.cause, ApplicationError)
    assert failure.value.cause.cause.type == PURCHASE_ID_TAKEN


async def test_a_workflow_that_is_canceled_cancels_what_is_not_being_paid(
    buyer: Buyer, queue: str, encrypted: Client, processor: Processor
) -> None:
    purchase_id = f"purchase-{uuid.uuid4()}"
    mandate = await buyer.mandate()
    parent = await encrypted.start_workflow(
        Restock.run,
        args=[buyer.request(mandate.id), purchase_id],
        id=f"r-{uuid.uuid4()}",
        task_queue=queue,
    )
    bought = Bought(buyer.client.get_workflow_handle_for(Purchase.run, purchase_id))
    bought.mandate = mandate
    await eventually(lambda: is_known(bought), what="the purchase is there")
    await bought.until("awaiting_approval")
    await parent.cancel()
    with pytest.raises(WorkflowFailureError) as failure:
        await asyncio.wait_for(parent.result(), 30)
    assert isinstance(failure.value.cause, CancelledError)
    assert (await bought.until("canceled")).final
    await nothing_happened(bought, processor)
