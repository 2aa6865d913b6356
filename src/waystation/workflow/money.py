"""Purchases and paid requests as children of a workflow: they return when they are final."""

from temporalio.common import WorkflowIDReusePolicy
from temporalio.workflow import ParentClosePolicy

from waystation.models.base import replaced
from waystation.models.payments import PaidRequestStart, PaidRequestView
from waystation.models.purchases import BuyStart, PurchaseRequest, PurchaseView
from waystation.temporal.calls import start_child_workflow
from waystation.temporal.messages import BUY, PAID_REQUEST
from waystation.temporal.names import SESSION_TASK_QUEUE
from waystation.workflow.session import Session, Turn


async def buy(
    request: PurchaseRequest,
    *,
    purchase_id: str,
    shown_in: Session | Turn | None = None,
    parent_close_policy: ParentClosePolicy = ParentClosePolicy.REQUEST_CANCEL,
) -> PurchaseView:
    """Makes one purchase and returns it once its transaction is final, however it ends.

    ``purchase_id`` is the root of its idempotency keys: choose one for what is to be bought, and never use it
    again. People approve by it, in the session that it is ``shown_in`` or elsewhere. A cancellation is heeded
    until the purchase is being paid. The order is followed by a workflow of its own.

    Raises:
        ChildWorkflowError: With the cause ``PurchaseIdTaken``: the id was used before.
    """
    buying = await start_child_workflow(
        BUY,
        BuyStart(purchase_id=purchase_id, request=replaced(request, **_place(shown_in))),
        id=f"{purchase_id}-buy",
        task_queue=SESSION_TASK_QUEUE,
        parent_close_policy=parent_close_policy,
    )
    return await buying


async def pay(
    start: PaidRequestStart,
    *,
    payment_id: str,
    shown_in: Session | Turn | None = None,
    parent_close_policy: ParentClosePolicy = ParentClosePolicy.REQUEST_CANCEL,
) -> PaidRequestView:
    """Makes a request, pays for it if that is asked for (HTTP 402), and returns it once it is final.

    ``payment_id`` is the root of its idempotency keys: the request is paid once under it.

    Raises:
        WorkflowAlreadyStartedError: The id was used before.
    """
    start = replaced(start, **_place(shown_in))
    paying = await start_child_workflow(
        PAID_REQUEST,
        start,
        id=payment_id,
        task_queue=SESSION_TASK_QUEUE,
        parent_close_policy=parent_close_policy,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        memo={"session_id": start.session_id, "agent": start.agent},
    )
    return await paying


def _place(shown_in: Session | Turn | None) -> dict[str, str | None]:
    if shown_in is None:
        return {}
    return {"session_id": shown_in.ref.session_id, "turn_id": shown_in.ref.turn_id}
