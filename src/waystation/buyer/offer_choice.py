"""Chooses which of a server's offers to take. Pure, and the same for single requests and allowances."""

from collections.abc import Sequence
from typing import Final

from waystation.errors import WaystationError
from waystation.models.money import Money
from waystation.models.payments import Offer, Rail

NOTHING_IN_HEADERS: Final = (
    "its 402 has no offer in PAYMENT-REQUIRED or WWW-Authenticate: Payment; a server that states its price "
    "in the body alone (x402 version 1) can't be paid, ask it for version 2"
)


class OfferRefused(WaystationError):
    """No offer will be paid. ``rule`` is stable; the message says what to do."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def lower_limit(most: Money, wanted: Money | None) -> Money:
    """Returns the lower of two limits for one payment.

    Raises:
        OfferRefused: They are in different currencies; amounts are never converted.
    """
    if wanted is None:
        return most
    if wanted.currency != most.currency:
        raise OfferRefused(
            "other_currency",
            f"max_price is in {wanted.currency}, but the allowance is in {most.currency}; pay without it, "
            "or open one in that currency",
        )
    return min(most, wanted)


def choose_offer(
    offers: Sequence[Offer],
    *,
    unusable: Sequence[str],
    max_price: Money,
    rails: Sequence[Rail],
    expected_payee: str | None,
) -> Offer:
    """Returns the offer to take: within price, currency and payee, the cheapest on the preferred rail.

    Raises:
        OfferRefused: No offer can be taken; ``rule`` says why.
    """
    usable = [offer for offer in offers if offer.rail in rails]
    if not usable:
        said = "; ".join(unusable) or NOTHING_IN_HEADERS
        raise OfferRefused("no_usable_offer", f"the server offers no way to pay that we can use: {said}")
    in_currency = [offer for offer in usable if offer.price.currency == max_price.currency]
    if not in_currency:
        asked = ", ".join(sorted({offer.price.currency for offer in usable}))
        raise OfferRefused(
            "other_currency", f"the server asks for {asked}, but max_price is in {max_price.currency}"
        )
    to_payee = [offer for offer in in_currency if expected_payee in (None, offer.payee)]
    if not to_payee:
        raise OfferRefused("other_payee", "the server names another payee than expected")
    affordable = [offer for offer in to_payee if offer.price <= max_price]
    if not affordable:
        least = min(offer.price.amount for offer in to_payee)
        raise OfferRefused(
            "price_too_high",
            f"the server asks for {least}, but at most {max_price.amount} may be paid; raise max_price",
        )
    return min(affordable, key=lambda offer: (rails.index(offer.rail), offer.price.amount))
