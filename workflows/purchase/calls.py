"""The calls of a purchase: activities with their policies, and what their failures mean."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

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
    from workflows.calls import CallFailure, Detail, PeerCall, call_options, once_local, peer_options
    from workflows.minting import PATIENTLY
    from workflows.purchase.facts import checkout_facts, token_facts
    from workflows.purchase.journal import PurchaseJournal
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


_SELLER: Final = peer_options(policies.SELLER_CALL_TIMEOUT, policies.SELLER_CALL_RETRY, peer="seller")
_READ: Final = peer_options(policies.SELLER_CALL_TIMEOUT, policies.READ_CALL_RETRY, peer="seller")
_COMPLETE: Final = peer_options(policies.COMPLETE_CALL_TIMEOUT, policies.COMPLETE_CALL_RETRY, peer="seller")
_CANCEL: Final = peer_options(policies.SELLER_CALL_TIMEOUT, policies.UNDO_CALL_RETRY, peer="seller")
_TOKEN: Final = peer_options(policies.TOKEN_CALL_TIMEOUT, policies.TOKEN_CALL_RETRY, peer="processor")
_REVOKE: Final = peer_options(policies.TOKEN_CALL_TIMEOUT, policies.TOKEN_REVOKE_RETRY, peer="processor")
_ROUTE: Final = call_options(
    policies.SELLER_CALL_TIMEOUT, policies.UNDO_CALL_RETRY, silence=contract.HOUSE_UNAVAILABLE
)

_OPEN_CHECKOUT: Final = PeerCall(
    method=CheckoutCalls.open_checkout,
    options=_SELLER,
    answered="checkout.created",
    failed="checkout.create_failed",
)
_UPDATE_CHECKOUT: Final = PeerCall(
    method=CheckoutCalls.update_checkout,
    options=_SELLER,
    once_local=True,
    answered="checkout.updated",
    failed="checkout.update_failed",
)
_READ_CHECKOUT: Final = PeerCall(
    method=CheckoutCalls.read_checkout,
    options=_SELLER,
    once_local=True,
    answered="checkout.read",
    failed="checkout.unreadable",
)
_LOOK_AT_CHECKOUT: Final = replace(_READ_CHECKOUT, options=_READ)
_COMPLETE_CHECKOUT: Final = PeerCall(
    method=CheckoutCalls.complete_checkout,
    options=_COMPLETE,
    asked="checkout.complete",
    answered="checkout.answered",
    failed="checkout.complete_failed",
)
_CANCEL_CHECKOUT: Final = PeerCall(
    method=CheckoutCalls.cancel_checkout,
    options=_CANCEL,
    answered="checkout.canceled",
    failed="checkout.cancel_failed",
)
_ISSUE_TOKEN: Final = PeerCall(
    method=PaymentTokenCalls.issue_payment_token,
    options=_TOKEN,
    answered="token.issued",
    failed="token.issue_failed",
)
_FIND_TOKEN: Final = replace(_ISSUE_TOKEN, options=PATIENTLY, answered="token.found", failed="token.unclear")
_READ_TOKEN: Final = PeerCall(
    method=PaymentTokenCalls.read_payment_token,
    options=_TOKEN,
    once_local=True,
    answered="token.read",
    failed="token.unreadable",
)
_REVOKE_TOKEN: Final = PeerCall(
    method=PaymentTokenCalls.revoke_payment_token,
    options=_REVOKE,
    answered="token.retired",
    failed="token.retire_failed",
)


async def open_checkout(journal: PurchaseJournal, call: OpenCheckout) -> CheckoutAnswer:
    """Creates a checkout."""
    return await _OPEN_CHECKOUT.make(journal, call, heard=_facts(journal))


async def update_checkout(journal: PurchaseJournal, call: ChangeCheckout) -> CheckoutAnswer:
    """Changes a checkout."""
    return await _UPDATE_CHECKOUT.make(journal, call, heard=_facts(journal))


async def read_checkout(journal: PurchaseJournal, call: CheckoutRef) -> CheckoutAnswer:
    """Reads a checkout that the purchase can't go on without.

    Raises:
        CallFailure: also for one of which no more can be read than that it has become an order.
    """
    answer = await _READ_CHECKOUT.make(journal, call, heard=_facts(journal))
    if isinstance(answer, OrderPlaced):
        message = "the checkout is completed already, and its cart can't be read"
        raise CallFailure(contract.SELLER_ANSWER_INVALID, "checkout_completed", message)
    return answer


async def look_at_checkout(journal: PurchaseJournal, call: CheckoutRef) -> CheckoutAnswer | OrderPlaced:
    """Reads a checkout with a few attempts only, because the purchase will look again."""
    return await _LOOK_AT_CHECKOUT.make(journal, call, heard=_facts(journal))


async def complete_checkout(
    journal: PurchaseJournal, call: CompleteCheckout, *, about: Detail
) -> CheckoutAnswer | OrderPlaced:
    """Pays and orders, with the same key on every attempt; ``about`` says with what."""
    return await _COMPLETE_CHECKOUT.make(journal, call, heard=_facts(journal), about=about)


async def cancel_checkout(
    journal: PurchaseJournal, call: CancelCheckout
) -> CheckoutAnswer | OrderPlaced | None:
    """Cancels a checkout; ``None`` means that it is gone."""
    return await _CANCEL_CHECKOUT.make(journal, call, heard=_facts(journal))


async def issue_token(journal: PurchaseJournal, call: IssueToken) -> PaymentToken:
    """Issues a payment token."""
    about: Detail = {
        "max_amount": call.max_amount.amount,
        "currency": call.max_amount.currency,
        "payee": call.payee,
        "expires_at": call.expires_at.isoformat(),
    }
    return await _ISSUE_TOKEN.make(journal, call, heard=token_facts, about=about)


async def find_token(journal: PurchaseJournal, call: IssueToken) -> PaymentToken:
    """Returns the token that an unanswered call may have issued; see ``workflows.minting``."""
    return await _FIND_TOKEN.make(journal, call, heard=token_facts)


async def read_token(journal: PurchaseJournal, token: PaymentToken) -> PaymentToken:
    """Returns what the processor says of a token."""
    about: Detail = {"token": token.fingerprint}
    return await _READ_TOKEN.make(journal, TokenRef(token=token), heard=token_facts, about=about)


async def revoke_token(journal: PurchaseJournal, call: RevokeToken, *, why: str) -> PaymentToken:
    """Revokes a token; the answer tells whether money moved."""
    about: Detail = {"token": call.token.fingerprint, "why": why}
    return await _REVOKE_TOKEN.make(journal, call, heard=token_facts, about=about)


async def route_order_events(route_id: str, purchase_id: str) -> None:
    """Binds the order's webhooks to this purchase."""
    call = OrderRoute(route_id=route_id, purchase_id=purchase_id, lasts=policies.FOLLOW_ORDER)
    await once_local(OrderRoutingCalls.route_order_events, call, _ROUTE)


def _facts(journal: PurchaseJournal) -> Callable[[CheckoutAnswer | OrderPlaced | None], Detail]:
    """Returns what the trail says of a seller's answers after those before."""
    return partial(checkout_facts, before=journal.state.checkout.answer)
