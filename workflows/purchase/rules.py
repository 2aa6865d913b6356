"""The rules of a purchase, pure: legal transitions, cart checks, digest, preparation, deadlines.

No clock, no I/O, no Temporal: everything that decides is an argument.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, cast

from pydantic import JsonValue

from waystation.models.base import Frozen
from waystation.models.commerce import CheckoutStatus, FulfillmentDetails, FulfillmentType
from waystation.models.mandates import MandateView
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS, Money
from waystation.models.purchases import (
    Cart,
    CartFulfillment,
    CheckoutAnswer,
    FinalStatus,
    OrderEventReceived,
    OrderFacts,
    PayableCart,
    PurchaseRequest,
    PurchaseStatus,
    Revise,
)
from workflows.purchase.lines import problem_of_lines, whole_lines
from workflows.purchase.state import PurchaseState
from workflows.trail import canonical

MAX_PREPARATION_ROUNDS: Final = 8
MAX_PAYMENT_TRIES: Final = 5
MAX_REVISIONS: Final = 50

SENT_TO_NO_ADDRESS: Final[frozenset[FulfillmentType]] = frozenset({"digital", "pickup"})

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


# The cart


def cart_digest(cart: Cart) -> str:
    """Returns the SHA-256 of everything a person approves, whatever order the seller lists things in."""
    facts = cart.model_dump(mode="json")
    facts["lines"] = sorted((_line_facts(line) for line in facts["lines"]), key=canonical)
    facts["totals"] = sorted(facts["totals"], key=canonical)
    facts["fulfillment"] = sorted(facts["fulfillment"], key=canonical)
    facts["discount_codes"] = sorted(facts["discount_codes"])
    return "sha256:" + hashlib.sha256(canonical(facts).encode()).hexdigest()


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


def check_cart(request: PurchaseRequest, answer: CheckoutAnswer) -> PayableCart:
    """Holds the seller's cart to what was asked, and returns what may be paid.

    Raises:
        PurchaseRefusal: naming the rule and where the seller's answer breaks it.
    """
    cart = answer.cart
    if cart.currency != request.currency:
        raise PurchaseRefusal(
            "wrong_currency", f"asked for {request.currency}, the seller states {cart.currency}"
        )
    _check_lines(request, cart)
    _check_country(request, cart)
    if answer.problems:
        shown = "; ".join(answer.problems[:4])
        raise PurchaseRefusal("totals_do_not_add_up", f"the seller's amounts contradict each other: {shown}")
    total = cart.total
    if total is None:
        raise PurchaseRefusal("no_total", "the seller does not state exactly one total")
    if total <= 0:
        # ``payment_data`` is required (CheckoutSessionCompleteRequest), and no token is issued for nothing.
        raise PurchaseRefusal(
            "total_not_positive",
            f"the seller states a total of {total}, and ACP completes no checkout without a payment; "
            "order at the seller's own page",
        )
    if total > MAX_AMOUNT_MINOR_UNITS:
        raise PurchaseRefusal("total_too_large", "the seller states an absurd total")
    if answer.handler_id is None or cart.payee is None:
        offered = ", ".join(answer.handlers_offered) or "nothing"
        raise PurchaseRefusal(
            "no_payment_handler",
            "the seller offers no way to pay by a shared payment token of Stripe for a stated account; "
            f"it offers {offered}",
        )
    _check_fulfillment(answer)
    return PayableCart(
        checkout_id=cart.checkout_id,
        digest=cart_digest(cart),
        total=Money(amount=total, currency=cart.currency),
        payee=cart.payee,
        handler=answer.handler_id,
        item_ids=tuple(sorted({line.item_id for line in whole_lines(request, cart)})),
        ship_to_country=_country_of(cart.ship_to),
        is_sent=not cart.fulfillment or any(one.type not in SENT_TO_NO_ADDRESS for one in cart.fulfillment),
    )


def delivers_elsewhere(request: PurchaseRequest, cart: Cart) -> bool:
    """Whether the seller's cart goes to other people or places than were asked for; a person must look then.

    Case, blanks and punctuation don't count. A cart that leaves something out is taken to agree.
    """
    asked, stated = _destination(request.fulfillment_details), _destination(cart.ship_to)
    return any(
        _plain(value) != _plain(asked.get(name)) for name, value in stated.items() if value is not None
    )


def _destination(details: FulfillmentDetails | None) -> dict[str, str | None]:
    if details is None:
        return {}
    address = details.address.model_dump() if details.address else {}
    return {"recipient": details.name, "email": details.email, **address}


def _plain(value: str | None) -> str:
    return "".join(character for character in (value or "").casefold() if character.isalnum())


def _country_of(details: FulfillmentDetails | None) -> str | None:
    return details.address.country if details and details.address else None


def _check_country(request: PurchaseRequest, cart: Cart) -> None:
    asked, stated = _country_of(request.fulfillment_details), _country_of(cart.ship_to)
    if asked and stated and _plain(asked) != _plain(stated):
        raise PurchaseRefusal("country_changed", f"asked for delivery to {asked}, the seller states {stated}")


def with_known_handler(answer: CheckoutAnswer, before: CheckoutAnswer | None) -> CheckoutAnswer:
    """Returns a later answer with the payment handler of the first: later ones may leave it out."""
    if before is None or answer.handler_id is not None:
        return answer
    cart = Cart.model_validate({**dict(answer.cart), "payee": before.cart.payee})
    return CheckoutAnswer.model_validate({**dict(answer), "handler_id": before.handler_id, "cart": cart})


def states_total(answer: CheckoutAnswer, total: Money) -> bool:
    """Returns whether the seller's answer states exactly this total."""
    return answer.cart.total == total.amount and answer.cart.currency == total.currency


def still_payable(payable: PayableCart | None, answer: CheckoutAnswer, digest: str) -> PayableCart | None:
    """Returns what may still be paid after a later answer: the same cart, or nothing until it is checked."""
    if payable is None or payable.digest != digest or answer.handler_id is None:
        return None
    if payable.handler == answer.handler_id:
        return payable
    return PayableCart.model_validate({**dict(payable), "handler": answer.handler_id})


def check_same_deal(known: Cart | None, stated: Cart) -> None:
    """Checks that checkout and payee are those of the first answer.

    Raises:
        PurchaseRefusal: the seller answers about another checkout, or wants another payee.
    """
    if known is None:
        return
    if stated.checkout_id != known.checkout_id:
        raise PurchaseRefusal("checkout_changed", "the seller answered about another checkout than was asked")
    if known.payee is not None and stated.payee is not None and stated.payee != known.payee:
        raise PurchaseRefusal("payee_changed", "the seller wants the money in another account than at first")


def _check_lines(request: PurchaseRequest, cart: Cart) -> None:
    problem = problem_of_lines(request, cart)
    if problem is not None:
        raise PurchaseRefusal(*problem)


def _check_fulfillment(answer: CheckoutAnswer) -> None:
    unpriced = [option.id for option in answer.cart.fulfillment if option.amount is None]
    if unpriced:
        raise PurchaseRefusal(
            "fulfillment_option_not_offered",
            f"the seller's cart has fulfillment options that it doesn't offer: {unpriced}",
        )


def _line_facts(line: dict[str, JsonValue]) -> dict[str, JsonValue]:
    totals = cast("list[JsonValue]", line["totals"])
    # Left out where there is none, as in the digests of purchases that began before it was kept.
    parent = {} if line["parent_id"] is None else {"parent_id": line["parent_id"]}
    rest = {name: value for name, value in line.items() if name not in ("parent_id", "totals")}
    return {**rest, **parent, "totals": sorted(totals, key=canonical)}


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
