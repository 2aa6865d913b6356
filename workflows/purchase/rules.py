"""The rules of a purchase, pure: legal transitions, preparation, refunds, deadlines. Of carts see ``carts``.

No clock, no I/O, no Temporal: everything that decides is an argument.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from pydantic import JsonValue

from waystation.models.base import Frozen
from waystation.models.commerce import CheckoutStatus
from waystation.models.mandates import MandateView
from waystation.models.money import Money
from waystation.models.purchases import (
    Cart,
    CartFulfillment,
    CheckoutAnswer,
    FinalStatus,
    OrderEventReceived,
    OrderFacts,
    PurchaseRequest,
    PurchaseStatus,
    Revise,
)
from workflows.purchase.state import PurchaseState

MAX_PREPARATION_ROUNDS: Final = 8
MAX_PAYMENT_TRIES: Final = 5
MAX_REVISIONS: Final = 50

FINAL_STATUSES: Final[frozenset[PurchaseStatus]] = frozenset(
    {"completed", "canceled", "rejected", "refused", "expired", "failed"}
)
CANCELLABLE: Final[frozenset[PurchaseStatus]] = frozenset(
    {
        "creating",
        "preparing",
        "needs_revision",
        "awaiting_approval",
        "escalated",
        "authentication_required",
        "payment_declined",
    }
)
"""Where a wish to stop is followed immediately; later, the payment under way is settled first."""


def _to(*statuses: PurchaseStatus) -> frozenset[PurchaseStatus]:
    return frozenset(statuses)


_WORKING: Final = _to("preparing", "needs_revision", "escalated", "undoing")
_AFTER_COMPLETION: Final = _to(
    "confirming",
    "authentication_required",
    "payment_declined",
    "preparing",
    "escalated",
    "undoing",
    "completed",
)
TRANSITIONS: Final[Mapping[PurchaseStatus, frozenset[PurchaseStatus]]] = {
    "creating": _to("preparing", "undoing"),
    "preparing": _WORKING | _to("awaiting_approval", "paying", "confirming"),
    "needs_revision": _to("preparing", "undoing"),
    "awaiting_approval": _to("preparing", "paying", "undoing"),
    "escalated": _to("preparing", "confirming", "undoing", "completed"),
    "paying": _AFTER_COMPLETION,
    "authentication_required": _to("paying", "confirming", "payment_declined", "undoing"),
    "payment_declined": _to("paying", "preparing", "undoing"),
    "confirming": _AFTER_COMPLETION,
    "undoing": FINAL_STATUSES | _to("confirming"),
    "completed": _to(),
    "canceled": _to(),
    "rejected": _to(),
    "refused": _to(),
    "expired": _to(),
    "failed": _to(),
}
"""Which status may follow which. Only ``undoing`` leads to an end without an order."""


class PurchaseRefusal(Exception):
    """A purchase that must not go on. ``rule`` is stable; the message says what to do."""

    def __init__(self, rule: str, message: str, outcome: FinalStatus = "refused") -> None:
        super().__init__(message)
        self.rule = rule
        self.outcome: FinalStatus = outcome


class IllegalTransitionError(RuntimeError):
    """A defect in the workflow: a step that the table does not know."""


def advance(current: PurchaseStatus, following: PurchaseStatus) -> PurchaseStatus:
    """Returns the following status, if it may follow. Staying in a status is always allowed."""
    if following != current and following not in TRANSITIONS[current]:
        raise IllegalTransitionError(f"a purchase cannot go from {current} to {following}")
    return following


# The request


def check_request(request: PurchaseRequest, mandate: MandateView) -> None:
    """Checks the request against the mandate before any seller learns who wants to buy.

    Raises:
        PurchaseRefusal: naming the rule.
    """
    terms = mandate.terms
    if mandate.status != "active":
        raise PurchaseRefusal(
            f"mandate_{mandate.status}", f"the mandate is {mandate.status}; ask for a new one"
        )
    if terms.agent != request.agent.id:
        raise PurchaseRefusal(
            "wrong_agent", f"the mandate was given to {terms.agent!r}, not to {request.agent.id!r}"
        )
    if terms.cap.currency != request.currency:
        raise PurchaseRefusal(
            "wrong_currency",
            f"the mandate is in {terms.cap.currency}, not {request.currency}; amounts are never converted",
        )
    if not terms.allows_any_seller and request.seller not in terms.sellers:
        raise PurchaseRefusal("seller_not_allowed", f"{request.seller} is not among the mandate's sellers")
    if not terms.payment_methods:
        raise PurchaseRefusal("no_payment_method", "the mandate names no payment method; make one that does")


# Making the checkout ready


class Preparation(Frozen):
    """What to do next with an open checkout."""

    step: Literal["ready", "update", "revise", "escalate", "wait", "pay_elsewhere_done", "closed"]
    select: tuple[CartFulfillment, ...] = ()


_PAYABLE: Final = frozenset({CheckoutStatus.READY_FOR_PAYMENT, CheckoutStatus.AUTHENTICATION_REQUIRED})
_NEEDS_A_PERSON: Final = frozenset({"requires_sign_in", "age_verification_required", "intervention_required"})


def next_preparation(request: PurchaseRequest, answer: CheckoutAnswer) -> Preparation:
    """Returns the next step towards a payable cart."""
    match answer.status:
        case CheckoutStatus.COMPLETED:
            return Preparation(step="pay_elsewhere_done")
        case CheckoutStatus.CANCELED | CheckoutStatus.EXPIRED:
            return Preparation(step="closed")
        case CheckoutStatus.REQUIRES_ESCALATION:
            return Preparation(step="escalate")
        case (
            CheckoutStatus.COMPLETE_IN_PROGRESS | CheckoutStatus.IN_PROGRESS | CheckoutStatus.PENDING_APPROVAL
        ):
            return Preparation(step="wait")
    select = choose_fulfillment(request, answer)
    if select and not _is_selected(select, answer.cart):
        return Preparation(step="update", select=select)
    if answer.status in _PAYABLE and not answer.hindrances():
        return Preparation(step="ready")
    if answer.continue_url and answer.error_codes() & _NEEDS_A_PERSON:
        return Preparation(step="escalate")
    return Preparation(step="revise")


def choose_fulfillment(request: PurchaseRequest, answer: CheckoutAnswer) -> tuple[CartFulfillment, ...]:
    """Returns the options to select: the one asked for, else the seller's choice, else the cheapest.

    Digital goods and goods that are delivered get separate options, as a cart may hold both.

    Raises:
        PurchaseRefusal: the option asked for is not offered.
    """
    wanted, selected = request.fulfillment_option, answer.cart.fulfillment
    if not answer.options or (wanted is None and selected and answer.status in _PAYABLE):
        return selected
    if wanted is not None and all(option.id != wanted for option in answer.options):
        offered_ids = sorted(option.id for option in answer.options)
        raise PurchaseRefusal(
            "fulfillment_option_not_offered", f"{wanted!r} is not offered; the seller offers {offered_ids}"
        )
    chosen: list[CartFulfillment] = []
    for digital in (False, True):
        offered = [option for option in answer.options if (option.type == "digital") is digital]
        asked = [option for option in offered if option.id == wanted]
        kept = [option for option in selected if (option.type == "digital") is digital]
        if asked:
            chosen.append(asked[0])
        elif kept:
            chosen += kept
        elif offered:
            chosen.append(_preferred(request, offered))
    return tuple(option.model_copy(update={"item_ids": _items_for(option, answer)}) for option in chosen)


def _preferred(request: PurchaseRequest, offered: Sequence[CartFulfillment]) -> CartFulfillment:
    """Returns the cheapest; with an address, delivery goes before pickup."""
    details = request.fulfillment_details
    fetch = details is not None and details.address is not None

    def rank(option: CartFulfillment) -> tuple[bool, int, str]:
        assert option.amount is not None, "what is offered has a price"
        return fetch and option.type == "pickup", option.amount, option.id

    return min(offered, key=rank)


def _items_for(option: CartFulfillment, answer: CheckoutAnswer) -> tuple[str, ...]:
    for group in answer.groups:
        if group.type == option.type:
            return group.item_ids
    return option.item_ids or tuple(sorted({line.item_id for line in answer.cart.lines}))


def _is_selected(select: Sequence[CartFulfillment], cart: Cart) -> bool:
    return {(one.type, one.id) for one in select} <= {(one.type, one.id) for one in cart.fulfillment}


# After the order


def refunded_total(order: OrderFacts, paid: Money) -> Money:
    """Returns what the seller says has gone back to where it came from, at most what was paid.

    Completed adjustments of type ``refund`` only (ACP 2026-04-17, Adjustment): a credit stays with the
    seller, and it does not decide a dispute. An adjustment without a currency is in that of the payment.
    """
    back = sum(
        one.amount
        for one in order.adjustments
        if one.type == "refund"
        and one.status == "completed"
        and one.amount is not None
        and one.amount > 0
        and (not one.currency or one.currency.lower() == paid.currency)
    )
    return Money(amount=min(back, paid.amount), currency=paid.currency)


def order_event_facts(event: OrderEventReceived) -> dict[str, JsonValue]:
    """Returns what the trail keeps of a webhook about the order."""
    return {
        "type": event.type,
        "order_id": event.order.id,
        "status": event.order.status,
        "adjustments": [f"{a.type}:{a.status}:{a.amount}" for a in event.order.adjustments],
        "fulfillments": [f"{f.type}:{f.status}" for f in event.order.fulfillments],
    }


# Revisions and deadlines


def revised(request: PurchaseRequest, revision: Revise) -> PurchaseRequest:
    """Returns the request with what the revision gives; what it does not give stays.

    With other items or another address the old fulfillment option may not exist any more, so it is dropped.
    """
    given = {
        "items": revision.items,
        "buyer": revision.buyer,
        "fulfillment_details": revision.fulfillment_details,
        "fulfillment_option": revision.fulfillment_option,
        "discount_codes": revision.discount_codes,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    dropped = {"fulfillment_option": None} if changes.keys() & {"items", "fulfillment_details"} else {}
    return PurchaseRequest.model_validate({**dict(request), **dropped, **changes})


def check_quote(answer: CheckoutAnswer, *, now: datetime) -> None:
    """Checks that the seller still stands by what it states.

    Raises:
        PurchaseRefusal: the quote or the checkout has expired.
    """
    if answer.expires_at is not None and answer.expires_at <= now:
        raise PurchaseRefusal(
            "quote_expired",
            f"the seller's offer was good until {answer.expires_at.isoformat()}; ask again",
            "expired",
        )


def person_deadline(state: PurchaseState, *, now: datetime) -> datetime:
    """Returns until when a person may take: the request's wish, the mandate's and the checkout's end."""
    candidates = [now + timedelta(seconds=state.request.approval_timeout_seconds)]
    if state.authorization.mandate is not None:
        candidates.append(state.authorization.mandate.valid_until)
    if state.checkout.answer is not None and state.checkout.answer.expires_at is not None:
        candidates.append(state.checkout.answer.expires_at)
    return min(candidates)


def revision_deadline(state: PurchaseState, *, now: datetime) -> datetime:
    """Returns until when an unpayable cart or a declined payment waits for somebody."""
    return now + timedelta(seconds=state.request.revision_timeout_seconds)


# Polling


def poll_delay(round_number: int) -> timedelta:
    """Returns how long to wait before reading a checkout again: from half a second up to a minute."""
    return timedelta(milliseconds=min(500 * 2 ** min(round_number, 10), 60_000))
