"""What a seller's cart must be to be paid, and the digest that an approval names. Pure."""

import hashlib
from typing import Final, cast

from pydantic import JsonValue

from waystation.models.commerce import FulfillmentDetails, FulfillmentType
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS, Money
from waystation.models.purchases import Cart, CheckoutAnswer, PayableCart, PurchaseRequest
from workflows.purchase.lines import problem_of_lines, whole_lines
from workflows.purchase.rules import PurchaseRefusal
from workflows.trail import canonical

SENT_TO_NO_ADDRESS: Final[frozenset[FulfillmentType]] = frozenset({"digital", "pickup"})


def cart_digest(cart: Cart) -> str:
    """Returns the SHA-256 of everything a person approves, whatever order the seller lists things in."""
    facts = cart.model_dump(mode="json")
    facts["lines"] = sorted((_line_facts(line) for line in facts["lines"]), key=canonical)
    facts["totals"] = sorted(facts["totals"], key=canonical)
    facts["fulfillment"] = sorted(facts["fulfillment"], key=canonical)
    facts["discount_codes"] = sorted(facts["discount_codes"])
    return "sha256:" + hashlib.sha256(canonical(facts).encode()).hexdigest()


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
