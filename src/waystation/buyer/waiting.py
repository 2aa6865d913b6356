"""Starts a paid request, or finds the one with its id, and waits for the answer."""

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from waystation.models.payments import PaidRequestStart, PaidRequestView
from waystation.temporal.calls import ask, result_of, start_and_update, update
from waystation.temporal.messages import PAID_REQUEST, PAID_REQUEST_ANSWERED, PAID_REQUEST_STATUS


async def answered(
    client: Client, payment_id: str, start: PaidRequestStart, *, task_queue: str, is_new: bool
) -> PaidRequestView:
    """Returns a paid request once it has an answer or a refusal, begun by this call or by an earlier one.

    However often it is asked for, at most one update is under way: Temporal lets ten wait, and an approval is
    one of them. ``is_new`` says that no earlier call can have begun it.
    """
    try:
        view = await _started(client, payment_id, start, task_queue=task_queue)
        if view.final or is_new:
            return view
        return await _as_it_stands(client, payment_id)
    except WorkflowAlreadyStartedError:
        pass  # it has ended: its result is the answer
    except RPCError as error:
        if error.status not in (RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.NOT_FOUND):
            raise
    return await result_of(client, PAID_REQUEST, payment_id)


async def _started(
    client: Client, payment_id: str, start: PaidRequestStart, *, task_queue: str
) -> PaidRequestView:
    return await start_and_update(
        client,
        PAID_REQUEST,
        start,
        PAID_REQUEST_ANSWERED,
        update_id=PAID_REQUEST_ANSWERED.name,
        id=payment_id,
        task_queue=task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        memo={"session_id": start.session_id, "agent": start.agent},
    )


async def _as_it_stands(client: Client, payment_id: str) -> PaidRequestView:
    """Returns what is known by now, or waits for it.

    Under its id, Temporal repeats an update's first answer for ever, and that may be of before all was known.
    Each state is waited in under an id of its own.
    """
    handle = client.get_workflow_handle(payment_id)
    while True:
        view = await ask(handle, PAID_REQUEST_STATUS)
        if view.final or view.answer is not None or view.refusal is not None:
            return view
        update_id = f"{PAID_REQUEST_ANSWERED.name}-{view.updated_at.isoformat()}"
        await update(handle, PAID_REQUEST_ANSWERED, update_id=update_id)
