"""The rules of a paid request, pure: which offer to take, what an approval binds, what may follow.

No clock, no I/O, no Temporal: everything that decides comes in as an argument.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Final, Literal

from waystation.models.payments import (
    FINAL_PAID_REQUEST_STATUSES,
    ClosedCredential,
    Offer,
    PaidRequestStart,
    PaidRequestStatus,
    PaymentRefusal,
    ProbeAnswer,
    Rail,
    RedeemAnswer,
)

MAX_CREDENTIALS: Final = 2
"""A second credential is minted only after the first is known to be worthless."""

MAX_AUDIT_ENTRIES: Final = 500
MAX_PAYMENT_ID_CHARACTERS: Final = 200
"""Leaves room for the step in an idempotency key of at most 255 characters."""

WORTH_A_NEW_CHALLENGE: Final = frozenset({"payment-expired", "invalid-challenge", "payment-required"})
"""Refusals of the challenge rather than of the payment."""


class PaymentRefused(Exception):
    """The request ends without a payment of ours standing. ``status`` is the final status."""

    def __init__(self, rule: str, message: str, status: PaidRequestStatus = "refused") -> None:
        super().__init__(message)
        self.rule = rule
        self.status: PaidRequestStatus = status

    def as_refusal(self) -> PaymentRefusal:
        """For the view."""
        return PaymentRefusal(rule=self.rule, message=str(self))


def choose_offer(start: PaidRequestStart, probed: ProbeAnswer) -> Offer:
    """The offer to take: of the preferred rail, the cheapest within price, currency and payee.

    Raises:
        PaymentRefused: naming the rule that stands against every offer.
    """
    offers = [offer for offer in probed.offers if offer.rail in start.rails]
    if not offers:
        said = "; ".join(probed.unusable) or "it offers nothing"
        raise PaymentRefused("no_usable_offer", f"the server offers no way to pay that we can use: {said}")
    in_currency = [offer for offer in offers if offer.price.currency == start.max_price.currency]
    if not in_currency:
        asked = ", ".join(sorted({offer.price.currency for offer in offers}))
        raise PaymentRefused(
            "other_currency",
            f"the server asks for {asked}, the price was limited in {start.max_price.currency}",
        )
    to_payee = [o for o in in_currency if start.expected_payee in (None, o.payee)]
    if not to_payee:
        raise PaymentRefused("other_payee", "the server wants the money for another payee than expected")
    affordable = [offer for offer in to_payee if offer.price <= start.max_price]
    if not affordable:
        least = min(offer.price.amount for offer in to_payee)
        raise PaymentRefused(
            "price_too_high",
            f"the server asks for {least}, at most {start.max_price.amount} may be paid; raise max_price",
        )
    return min(affordable, key=lambda offer: (start.rails.index(offer.rail), offer.price.amount))


def same_offer_again(pinned: Offer, probed: ProbeAnswer) -> Offer:
    """The pinned offer under a fresh challenge.

    Raises:
        PaymentRefused: price, payee, currency or realm are not what they were at first sight.
    """
    for offer in probed.offers:
        if offer.same_terms(pinned):
            return offer
    raise PaymentRefused(
        "terms_changed", "the server changed price, payee, currency or realm after its first answer"
    )


def terms_digest(start: PaidRequestStart, offer: Offer) -> str:
    """What an approval binds: exactly this request, price, currency, payee, realm and rail."""
    request = start.request
    facts = {
        "method": request.method,
        "url": request.url,
        "body_sha256": hashlib.sha256(request.body_base64.encode()).hexdigest(),
        "rail": offer.rail,
        "realm": offer.realm,
        "amount": offer.price.amount,
        "currency": offer.price.currency,
        "payee": offer.payee,
    }
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def protocol_of(rail: Rail) -> Literal["mpp", "x402"]:
    """The rail's protocol as mandates name it."""
    return "x402" if rail is Rail.X402_EXACT else "mpp"


def is_final(status: PaidRequestStatus) -> bool:
    """Whether nothing more will happen."""
    return status in FINAL_PAID_REQUEST_STATUSES


def may_mint_again(redeemed: RedeemAnswer, closed: ClosedCredential, minted: int) -> bool:
    """Whether one more credential is in order: the first can't move money and its challenge was at fault."""
    return (
        closed.money_moved == "no"
        and redeemed.kind == "refused"
        and redeemed.problem in WORTH_A_NEW_CHALLENGE
        and minted < MAX_CREDENTIALS
    )


def cannot_decide(
    digest: str | None, named: str | None, approver: str, agent: str, approvers: Sequence[str]
) -> str | None:
    """Why a person's decision doesn't count, or None when it does."""
    if approver == agent:
        return "an agent can't approve its own payment"
    if approvers and approver not in approvers:
        return f"{approver} is none of the mandate's approvers"
    if named is not None and named != digest:
        return "the digest is of other terms than those that are asked about"
    return None
