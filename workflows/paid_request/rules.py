"""The rules of a paid request, pure: which offer to take, what an approval binds, what may follow.

No clock, no I/O, no Temporal: everything that decides comes in as an argument.
"""

import hashlib
from typing import Final

from waystation.buyer import offer_choice
from waystation.buyer.offer_choice import OfferRefused
from waystation.models.payments import (
    FINAL_PAID_REQUEST_STATUSES,
    ClosedCredential,
    Offer,
    PaidHttpRequest,
    PaidRequestStart,
    PaidRequestStatus,
    PaymentRefusal,
    ProbeAnswer,
    RedeemAnswer,
)
from workflows.trail import canonical

MAX_CREDENTIALS: Final = 2
"""A second credential is minted only after the first is known to be worthless."""

MAX_AUDIT_ENTRIES: Final = 500
MAX_PAYMENT_ID_CHARACTERS: Final = 200
"""Leaves room for the step in an idempotency key of at most 255 characters."""

WORTH_A_NEW_CHALLENGE: Final = frozenset({"payment-expired", "invalid-challenge", "payment-required"})
"""Refusals of the challenge rather than of the payment."""


class PaymentRefused(Exception):
    """The paid request ends without a payment from us. ``status`` is the final status."""

    def __init__(self, rule: str, message: str, status: PaidRequestStatus = "refused") -> None:
        super().__init__(message)
        self.rule = rule
        self.status: PaidRequestStatus = status

    def as_refusal(self) -> PaymentRefusal:
        """For the view."""
        return PaymentRefusal(rule=self.rule, message=str(self))


def choose_offer(start: PaidRequestStart, probed: ProbeAnswer) -> Offer:
    """The offer to take; see ``choose_offer``.

    Raises:
        PaymentRefused: naming the rule that stands against every offer.
    """
    try:
        return offer_choice.choose_offer(
            probed.offers,
            unusable=probed.unusable,
            max_price=start.max_price,
            rails=start.rails,
            expected_payee=start.expected_payee,
        )
    except OfferRefused as refused:
        raise PaymentRefused(refused.rule, str(refused)) from None


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
        "body_sha256": body_sha256(request),
        "rail": offer.rail,
        "realm": offer.realm,
        "amount": offer.price.amount,
        "currency": offer.price.currency,
        "payee": offer.payee,
    }
    return "sha256:" + hashlib.sha256(canonical(facts).encode()).hexdigest()


def body_sha256(request: PaidHttpRequest) -> str:
    """Returns the SHA-256 of the body in base64, in hex: how people see which body they approve."""
    return hashlib.sha256(request.body_base64.encode()).hexdigest()


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
