"""The calls of a purchase: activities with their policies, and what their failures mean."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError, FailureError

with workflow.unsafe.imports_passed_through():
    import activities.failures as failures
    import workflows.policies as policies
    from activities.checkouts import (
        CancelCheckout,
        ChangeCheckout,
        CheckoutActivities,
        CheckoutRef,
        CompleteCheckout,
        OpenCheckout,
        OrderRoute,
        OrderRouting,
        PurchaseAnnouncements,
        PurchaseNote,
        Told,
    )
    from activities.mandates import (
        MANDATE_REFUSED,
        CommitFor,
        MandateActivities,
        MandateQuestion,
        RefundFor,
        ReleaseFor,
        ReserveFor,
    )
    from activities.payment_tokens import IssueToken, PaymentTokenActivities, RevokeToken, TokenRef
    from waystation.models.mandates import MandateView, Reservation, ReserveAnswer
    from waystation.models.purchases import CheckoutAnswer, PaymentToken
    from waystation.models.trail import NoteEvents
    from workflows.purchase.rules import PurchaseRefusal

T = TypeVar("T")


class CallFailure(Exception):
    """An activity failed for good. ``kind`` is its error type, ``code`` the peer's or rule's own name."""

    def __init__(self, kind: str, code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code


def refusal_for(failure: CallFailure) -> PurchaseRefusal:
    """Returns what a failure means for a purchase in which no money can have moved."""
    if failure.kind in (failures.SELLER_REFUSED, MANDATE_REFUSED):
        return PurchaseRefusal(failure.code, str(failure))
    if failure.kind == failures.SELLER_ANSWER_INVALID:
        return PurchaseRefusal("seller_answer_invalid", str(failure))
    if failure.kind == failures.PAYMENT_METHOD_DECLINED:
        return PurchaseRefusal("payment_declined", str(failure), "failed")
    rule = {
        failures.SELLER_UNAVAILABLE: "seller_unavailable",
        failures.PROCESSOR_UNAVAILABLE: "processor_unavailable",
        failures.PROCESSOR_REFUSED: "processor_refused",
    }.get(failure.kind, "call_failed")
    return PurchaseRefusal(rule, str(failure), "failed")


async def settle(call: Awaitable[T]) -> T:
    """Await an activity; turn its failure into :class:`CallFailure`, a cancellation into itself."""
    try:
        return await call
    except FailureError as error:
        cause = _cause(error)
        if isinstance(cause, CancelledError):
            raise asyncio.CancelledError from None
        if isinstance(cause, ApplicationError):
            raise _failure(cause) from None
        raise CallFailure(
            failures.SELLER_UNAVAILABLE, "no_answer_in_time", "the call got no answer in time"
        ) from None


def _cause(error: FailureError) -> BaseException | None:
    """Why an activity failed. A local activity's failure comes as it is, without a wrapper."""
    return error.cause if isinstance(error, ActivityError) else error


def _failure(cause: ApplicationError) -> CallFailure:
    code = str(cause.details[0]) if cause.details and cause.details[0] else (cause.type or "failed")
    return CallFailure(cause.type or "Failed", code, cause.message)


def _options(timeout: timedelta, retry: RetryPolicy) -> dict[str, Any]:
    return {
        "start_to_close_timeout": timeout,
        "heartbeat_timeout": policies.ACTIVITY_HEARTBEAT_TIMEOUT,
        "retry_policy": retry,
    }


_MANDATE = _options(policies.MANDATE_CALL_TIMEOUT, policies.MANDATE_CALL_RETRY)
_SELLER = _options(policies.SELLER_CALL_TIMEOUT, policies.SELLER_CALL_RETRY)
_READ = _options(policies.SELLER_CALL_TIMEOUT, policies.READ_CALL_RETRY)
_COMPLETE = _options(policies.COMPLETE_CALL_TIMEOUT, policies.COMPLETE_CALL_RETRY)
_CANCEL = _options(policies.SELLER_CALL_TIMEOUT, policies.UNDO_CALL_RETRY)
_TOKEN = _options(policies.TOKEN_CALL_TIMEOUT, policies.TOKEN_CALL_RETRY)
_REVOKE = _options(policies.TOKEN_CALL_TIMEOUT, policies.TOKEN_REVOKE_RETRY)
_ANNOUNCE = _options(policies.PURCHASE_NOTE_TIMEOUT, policies.PURCHASE_NOTE_RETRY)


async def _durable(method: Any, call: Any, options: dict[str, Any]) -> Any:
    """An activity of its own: what led to it is durable before it begins. For what moves money or room."""
    return await settle(workflow.execute_activity_method(method, call, **options))


async def _quick(method: Any, call: Any, options: dict[str, Any]) -> Any:
    """Tried once within the workflow task, which spares Temporal a task and this workflow a wait.

    Only for calls that may be made twice, and made for nothing if this worker dies: what led to them is not
    durable when they begin. What takes longer or fails becomes an ordinary activity, with the same key.
    """
    try:
        return await workflow.execute_local_activity_method(
            method,
            call,
            schedule_to_close_timeout=policies.QUICK_CALL_TIMEOUT,
            retry_policy=policies.ONE_ATTEMPT,
        )
    except FailureError as error:
        cause = _cause(error)
        if isinstance(cause, CancelledError):
            raise asyncio.CancelledError from None
        if isinstance(cause, ApplicationError):
            if cause.non_retryable:
                raise _failure(cause) from None
            retry: RetryPolicy = options["retry_policy"]
            await workflow.sleep(cause.next_retry_delay or retry.initial_interval)
    return await _durable(method, call, options)


async def read_mandate(mandate_id: str) -> MandateView:
    """The mandate as it stands."""
    question = MandateQuestion(mandate_id=mandate_id)
    view: MandateView = await _quick(MandateActivities.read_mandate, question, _MANDATE)
    return view


async def reserve(call: ReserveFor) -> ReserveAnswer:
    """Set an amount aside."""
    answer: ReserveAnswer = await _durable(MandateActivities.reserve_from_mandate, call, _MANDATE)
    return answer


async def confirm_reservation(call: ReserveFor) -> ReserveAnswer:
    """The same request once more, to see that the reservation still stands."""
    answer: ReserveAnswer = await _quick(MandateActivities.reserve_from_mandate, call, _MANDATE)
    return answer


async def commit(call: CommitFor) -> Reservation:
    """Record what was spent. Quick: that it was spent is durable, and the same key commits once."""
    settled: Reservation = await _quick(MandateActivities.commit_to_mandate, call, _MANDATE)
    return settled


async def release(call: ReleaseFor) -> Reservation | None:
    """Give room back."""
    settled: Reservation | None = await _durable(MandateActivities.release_to_mandate, call, _MANDATE)
    return settled


async def refund(call: RefundFor) -> Reservation | None:
    """Tell the mandate what has come back; ``None`` if it has ended."""
    settled: Reservation | None = await _quick(MandateActivities.refund_to_mandate, call, _MANDATE)
    return settled


async def open_checkout(call: OpenCheckout) -> CheckoutAnswer:
    """Create a checkout."""
    answer: CheckoutAnswer = await _durable(CheckoutActivities.open_checkout, call, _SELLER)
    return answer


async def update_checkout(call: ChangeCheckout) -> CheckoutAnswer:
    """Change a checkout."""
    answer: CheckoutAnswer = await _quick(CheckoutActivities.update_checkout, call, _SELLER)
    return answer


async def read_checkout(call: CheckoutRef) -> CheckoutAnswer:
    """Read a checkout that the purchase can't go on without."""
    answer: CheckoutAnswer = await _quick(CheckoutActivities.read_checkout, call, _SELLER)
    return answer


async def look_at_checkout(call: CheckoutRef) -> CheckoutAnswer:
    """Read a checkout; a few attempts only, because the purchase will look again."""
    answer: CheckoutAnswer = await _quick(CheckoutActivities.read_checkout, call, _READ)
    return answer


async def complete_checkout(call: CompleteCheckout) -> CheckoutAnswer:
    """Pay and order; the same key on every attempt."""
    answer: CheckoutAnswer = await _durable(CheckoutActivities.complete_checkout, call, _COMPLETE)
    return answer


async def cancel_checkout(call: CancelCheckout) -> CheckoutAnswer | None:
    """Give a checkout up."""
    answer: CheckoutAnswer | None = await _durable(CheckoutActivities.cancel_checkout, call, _CANCEL)
    return answer


async def issue_token(call: IssueToken) -> PaymentToken:
    """Issue a payment token."""
    token: PaymentToken = await _durable(PaymentTokenActivities.issue_payment_token, call, _TOKEN)
    return token


async def read_token(token: PaymentToken) -> PaymentToken:
    """What the processor says of a token."""
    seen: PaymentToken = await _quick(
        PaymentTokenActivities.read_payment_token, TokenRef(token=token), _TOKEN
    )
    return seen


async def revoke_token(call: RevokeToken) -> PaymentToken:
    """Revoke a token; its answer tells whether money moved."""
    token: PaymentToken = await _durable(PaymentTokenActivities.revoke_payment_token, call, _REVOKE)
    return token


async def announce(session_id: str, note: NoteEvents) -> Told:
    """Tell a session."""
    call = PurchaseNote(session_id=session_id, note=note)
    told: Told = await _quick(PurchaseAnnouncements.announce_purchase, call, _ANNOUNCE)
    return told


async def route_order_events(route_id: str, purchase_id: str) -> None:
    """See that the order's webhooks find this purchase."""
    call = OrderRoute(route_id=route_id, purchase_id=purchase_id, lasts=policies.FOLLOW_ORDER)
    await _quick(OrderRouting.route_order_events, call, _CANCEL)
