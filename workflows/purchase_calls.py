"""The calls of a purchase: activities with their policies, and what their failures mean."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError

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
        OrderRouting,
        PurchaseAnnouncements,
    )
    from activities.mandates import (
        MANDATE_REFUSED,
        CommitFor,
        MandateActivities,
        MandateQuestion,
        ReleaseFor,
        ReserveFor,
    )
    from activities.payment_tokens import IssueToken, PaymentTokenActivities, RevokeToken, TokenRef
    from waystation.models.mandates import MandateView, Reservation, ReserveAnswer
    from waystation.models.purchases import CheckoutAnswer, NoteEvents, PaymentToken
    from workflows.purchase_rules import PurchaseRefusal

T = TypeVar("T")


class CallFailure(Exception):
    """An activity failed for good. ``kind`` is its error type, ``code`` the peer's or rule's own name."""

    def __init__(self, kind: str, code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code

    def as_refusal(self) -> PurchaseRefusal:
        """What the failure means for a purchase in which no money can have moved."""
        if self.kind in (failures.SELLER_REFUSED, MANDATE_REFUSED):
            return PurchaseRefusal(self.code, str(self))
        if self.kind == failures.SELLER_ANSWER_INVALID:
            return PurchaseRefusal("seller_answer_invalid", str(self))
        if self.kind == failures.PAYMENT_METHOD_DECLINED:
            return PurchaseRefusal("payment_declined", str(self), "failed")
        rule = {
            failures.SELLER_UNAVAILABLE: "seller_unavailable",
            failures.PROCESSOR_UNAVAILABLE: "processor_unavailable",
            failures.PROCESSOR_REFUSED: "processor_refused",
        }.get(self.kind, "call_failed")
        return PurchaseRefusal(rule, str(self), "failed")


async def settle(call: Awaitable[T]) -> T:
    """Await an activity; turn its failure into :class:`CallFailure`, a cancellation into itself."""
    try:
        return await call
    except ActivityError as error:
        cause = error.cause
        if isinstance(cause, CancelledError):
            raise asyncio.CancelledError from None
        if isinstance(cause, ApplicationError):
            code = str(cause.details[0]) if cause.details and cause.details[0] else (cause.type or "failed")
            raise CallFailure(cause.type or "Failed", code, cause.message) from None
        raise CallFailure(
            failures.SELLER_UNAVAILABLE, "no_answer_in_time", f"{error.activity_type} got no answer in time"
        ) from None


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


async def read_mandate(mandate_id: str) -> MandateView:
    """The mandate as it stands."""
    question = MandateQuestion(mandate_id=mandate_id)
    return await settle(
        workflow.execute_activity_method(MandateActivities.read_mandate, question, **_MANDATE)
    )


async def reserve(call: ReserveFor) -> ReserveAnswer:
    """Reserve, or confirm that a reservation still stands."""
    return await settle(
        workflow.execute_activity_method(MandateActivities.reserve_from_mandate, call, **_MANDATE)
    )


async def commit(call: CommitFor) -> Reservation:
    """Record what was spent."""
    return await settle(
        workflow.execute_activity_method(MandateActivities.commit_to_mandate, call, **_MANDATE)
    )


async def release(call: ReleaseFor) -> Reservation | None:
    """Give room back."""
    return await settle(
        workflow.execute_activity_method(MandateActivities.release_to_mandate, call, **_MANDATE)
    )


async def open_checkout(call: OpenCheckout) -> CheckoutAnswer:
    """Create a checkout."""
    return await settle(workflow.execute_activity_method(CheckoutActivities.open_checkout, call, **_SELLER))


async def update_checkout(call: ChangeCheckout) -> CheckoutAnswer:
    """Change a checkout."""
    return await settle(workflow.execute_activity_method(CheckoutActivities.update_checkout, call, **_SELLER))


async def read_checkout(call: CheckoutRef) -> CheckoutAnswer:
    """Read a checkout; a few attempts only."""
    return await settle(workflow.execute_activity_method(CheckoutActivities.read_checkout, call, **_READ))


async def complete_checkout(call: CompleteCheckout) -> CheckoutAnswer:
    """Pay and order; the same key on every attempt."""
    return await settle(
        workflow.execute_activity_method(CheckoutActivities.complete_checkout, call, **_COMPLETE)
    )


async def cancel_checkout(call: CancelCheckout) -> CheckoutAnswer | None:
    """Give a checkout up."""
    return await settle(workflow.execute_activity_method(CheckoutActivities.cancel_checkout, call, **_CANCEL))


async def issue_token(call: IssueToken) -> PaymentToken:
    """Issue a payment token."""
    return await settle(
        workflow.execute_activity_method(PaymentTokenActivities.issue_payment_token, call, **_TOKEN)
    )


async def read_token(token: PaymentToken) -> PaymentToken:
    """What the processor says of a token."""
    call = TokenRef(token=token)
    return await settle(
        workflow.execute_activity_method(PaymentTokenActivities.read_payment_token, call, **_TOKEN)
    )


async def revoke_token(call: RevokeToken) -> PaymentToken:
    """Revoke a token; its answer tells whether money moved."""
    return await settle(
        workflow.execute_activity_method(PaymentTokenActivities.revoke_payment_token, call, **_REVOKE)
    )


async def announce(session_id: str, note: NoteEvents) -> bool:
    """Tell a session."""
    return await settle(
        workflow.execute_activity_method(
            PurchaseAnnouncements.announce_purchase, args=[session_id, note], **_ANNOUNCE
        )
    )


async def route_order_events(route_id: str, purchase_id: str) -> None:
    """See that the order's webhooks find this purchase."""
    await settle(
        workflow.execute_activity_method(
            OrderRouting.route_order_events, args=[route_id, purchase_id], **_CANCEL
        )
    )
