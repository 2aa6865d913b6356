"""The calls of a purchase: activities with their policies, and what their failures mean."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.policies as policies
    from activities.contract import (
        MANDATE_REFUSED,
        CancelCheckout,
        ChangeCheckout,
        CheckoutCalls,
        CheckoutRef,
        CompleteCheckout,
        OpenCheckout,
        OrderRoute,
        OrderRoutingCalls,
        PaymentTokenCalls,
        RevokeToken,
        TokenRef,
    )
    from waystation.models.purchases import CheckoutAnswer, IssueToken, OrderPlaced, PaymentToken
    from workflows.calls import CallFailure, call_options, durable, quick
    from workflows.minting import PATIENTLY
    from workflows.purchase.rules import PurchaseRefusal


def as_refusal(failure: CallFailure) -> PurchaseRefusal:
    """Returns what a failed call means for a purchase in which no money can have moved."""
    if failure.kind in (contract.SELLER_REFUSED, MANDATE_REFUSED):
        return PurchaseRefusal(failure.code, str(failure))
    if failure.kind == contract.SELLER_ANSWER_INVALID:
        return PurchaseRefusal("seller_answer_invalid", str(failure))
    if failure.kind == contract.PAYMENT_METHOD_DECLINED:
        return PurchaseRefusal("payment_declined", str(failure), "failed")
    rule = {
        contract.SELLER_UNAVAILABLE: "seller_unavailable",
        contract.PROCESSOR_UNAVAILABLE: "processor_unavailable",
        contract.PROCESSOR_REFUSED: "processor_refused",
        contract.MANDATE_UNAVAILABLE: "mandate_unavailable",
        contract.SEALING_FAILED: "sealing_failed",
    }.get(failure.kind, "call_failed")
    return PurchaseRefusal(rule, str(failure), "failed")


_SELLER = call_options(
    policies.SELLER_CALL_TIMEOUT, policies.SELLER_CALL_RETRY, silence=contract.SELLER_UNAVAILABLE
)
_READ = call_options(
    policies.SELLER_CALL_TIMEOUT, policies.READ_CALL_RETRY, silence=contract.SELLER_UNAVAILABLE
)
_COMPLETE = call_options(
    policies.COMPLETE_CALL_TIMEOUT, policies.COMPLETE_CALL_RETRY, silence=contract.SELLER_UNAVAILABLE
)
_CANCEL = call_options(
    policies.SELLER_CALL_TIMEOUT, policies.UNDO_CALL_RETRY, silence=contract.SELLER_UNAVAILABLE
)
_ROUTE = call_options(
    policies.SELLER_CALL_TIMEOUT, policies.UNDO_CALL_RETRY, silence=contract.HOUSE_UNAVAILABLE
)
_TOKEN = call_options(
    policies.TOKEN_CALL_TIMEOUT, policies.TOKEN_CALL_RETRY, silence=contract.PROCESSOR_UNAVAILABLE
)
_REVOKE = call_options(
    policies.TOKEN_CALL_TIMEOUT, policies.TOKEN_REVOKE_RETRY, silence=contract.PROCESSOR_UNAVAILABLE
)


async def open_checkout(call: OpenCheckout) -> CheckoutAnswer:
    """Creates a checkout."""
    return await durable(CheckoutCalls.open_checkout, call, _SELLER)


async def update_checkout(call: ChangeCheckout) -> CheckoutAnswer:
    """Changes a checkout."""
    return await quick(CheckoutCalls.update_checkout, call, _SELLER)


async def read_checkout(call: CheckoutRef) -> CheckoutAnswer:
    """Reads a checkout that the purchase can't go on without.

    Raises:
        CallFailure: also for one of which no more can be read than that it has become an order.
    """
    answer = await quick(CheckoutCalls.read_checkout, call, _SELLER)
    if isinstance(answer, OrderPlaced):
        message = "the checkout is completed already, and its cart can't be read"
        raise CallFailure(contract.SELLER_ANSWER_INVALID, "checkout_completed", message)
    return answer


async def look_at_checkout(call: CheckoutRef) -> CheckoutAnswer | OrderPlaced:
    """Reads a checkout with a few attempts only, because the purchase will look again."""
    return await quick(CheckoutCalls.read_checkout, call, _READ)


async def complete_checkout(call: CompleteCheckout) -> CheckoutAnswer | OrderPlaced:
    """Pays and orders, with the same key on every attempt."""
    return await durable(CheckoutCalls.complete_checkout, call, _COMPLETE)


async def cancel_checkout(call: CancelCheckout) -> CheckoutAnswer | OrderPlaced | None:
    """Cancels a checkout; ``None`` means that it is gone."""
    return await durable(CheckoutCalls.cancel_checkout, call, _CANCEL)


async def issue_token(call: IssueToken) -> PaymentToken:
    """Issues a payment token."""
    return await durable(PaymentTokenCalls.issue_payment_token, call, _TOKEN)


async def issue_token_patiently(call: IssueToken) -> PaymentToken:
    """Issues a payment token, however long that takes; see ``workflows.minting``."""
    return await durable(PaymentTokenCalls.issue_payment_token, call, PATIENTLY)


async def read_token(token: PaymentToken) -> PaymentToken:
    """Returns what the processor says of a token."""
    return await quick(PaymentTokenCalls.read_payment_token, TokenRef(token=token), _TOKEN)


async def revoke_token(call: RevokeToken) -> PaymentToken:
    """Revokes a token; the answer tells whether money moved."""
    return await durable(PaymentTokenCalls.revoke_payment_token, call, _REVOKE)


async def route_order_events(route_id: str, purchase_id: str) -> None:
    """Binds the order's webhooks to this purchase."""
    call = OrderRoute(route_id=route_id, purchase_id=purchase_id, lasts=policies.FOLLOW_ORDER)
    await quick(OrderRoutingCalls.route_order_events, call, _ROUTE)
