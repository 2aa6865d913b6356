"""Calls of a paid request that are quick enough to be made within a workflow task.

A local activity saves two round trips to Temporal; what it gave is in the history before the next
activity begins. One that doesn't answer at once is left to an ordinary activity: a mandate's own
workflow may be waiting for the very slot that this task takes up.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    from activities.mandates import (
        CommitFor,
        MandateActivities,
        MandateQuestion,
        ReleaseFor,
        ReserveFor,
    )
    from waystation.models.mandates import MandateView, Reservation, ReserveAnswer
    from workflows.purchase.calls import CallFailure

T = TypeVar("T")

_AT_ONCE: dict[str, Any] = {
    "schedule_to_close_timeout": policies.AT_ONCE_TIMEOUT,
    "retry_policy": policies.AT_ONCE_RETRY,
}
_MANDATE: dict[str, Any] = {
    "start_to_close_timeout": policies.MANDATE_CALL_TIMEOUT,
    "heartbeat_timeout": policies.ACTIVITY_HEARTBEAT_TIMEOUT,
    "retry_policy": policies.MANDATE_CALL_RETRY,
}


async def at_once(method: Callable[..., Any], call: Any, otherwise: dict[str, Any]) -> Any:
    """The result of an activity, within this task if it can be had at once.

    Raises:
        CallFailure: it failed for good.
    """
    try:
        return await workflow.execute_local_activity_method(method, call, **_AT_ONCE)
    except FailureError as error:
        cause = error.cause if isinstance(error, ActivityError) else error
        if isinstance(cause, ApplicationError) and cause.non_retryable:
            code = str(cause.details[0]) if cause.details and cause.details[0] else (cause.type or "failed")
            raise CallFailure(cause.type or "Failed", code, cause.message) from None
        if isinstance(cause, CancelledError):
            raise asyncio.CancelledError from None
    return await purchase_calls.settle(workflow.execute_activity_method(method, call, **otherwise))


async def read_mandate(mandate_id: str) -> MandateView:
    """The mandate as it stands."""
    question = MandateQuestion(mandate_id=mandate_id)
    view: MandateView = await at_once(MandateActivities.read_mandate, question, _MANDATE)
    return view


async def reserve(call: ReserveFor) -> ReserveAnswer:
    """Reserve, or confirm that a reservation still stands."""
    answer: ReserveAnswer = await at_once(MandateActivities.reserve_from_mandate, call, _MANDATE)
    return answer


async def commit(call: CommitFor) -> Reservation:
    """Record what was spent."""
    settled: Reservation = await at_once(MandateActivities.commit_to_mandate, call, _MANDATE)
    return settled


async def release(call: ReleaseFor) -> Reservation | None:
    """Give room back."""
    settled: Reservation | None = await at_once(MandateActivities.release_to_mandate, call, _MANDATE)
    return settled
