"""The outcome of a payment within an allowance, from what the server and the processor say. Pure."""

from typing import Final

from waystation.errors import WaystationError
from waystation.models.base import replaced
from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    ClosedCredential,
    MintedCredential,
    Offer,
    PaymentRefusal,
    RedeemAnswer,
)

CLOSED: Final = "AllowanceClosed"
"""The allowance takes no more payments."""
ID_TAKEN: Final = "id_taken"
"""The id names a payment or allowance that isn't the one wanted."""
LEASED: Final = "AllowanceLeased"
"""Another process pays from it."""
KEY_REUSED: Final = "key_reused"
"""The key names a payment of the allowance that isn't the one wanted."""


class HolderRefusedError(WaystationError):
    """No payment was started. ``rule`` is stable."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def key_is_reused(key: str) -> str:
    """Returns what is said where a key names another payment than the one wanted."""
    return f"'{key}' names another request, or the same one with another limit; choose another key"


def counts_as_spent(price: Money, closed: ClosedCredential) -> int:
    """Returns what counts as spent, in minor units: what moved, or the price where nobody can rule it out.

    Never more than the price, which is all that was held for it.
    """
    if closed.money_moved == "no":
        return 0
    return price.amount if closed.amount is None else min(closed.amount, price.amount)


def allowance_answer(
    offer: Offer, credential: MintedCredential, redeemed: RedeemAnswer | None, closed: ClosedCredential
) -> AllowanceAnswer:
    """Returns what a payment came to."""
    answer, refusal = (redeemed.answer, None) if redeemed else (None, None)
    if answer is None:
        moved = {"no": "no money moved", "yes": "the money moved", "unknown": "money may have moved"}
        kind = redeemed.kind if redeemed else "silent"
        said = (redeemed.problem if redeemed else None) or kind
        refusal = PaymentRefusal(
            rule="payment_not_answered",
            message=f"the server gave no answer for the payment ({said}); {moved[closed.money_moved]}",
        )
    receipt = redeemed.receipt if redeemed else None
    if receipt is not None and closed.source != "nobody":
        matches = receipt.status == "success" and closed.money_moved == "yes"
        receipt = replaced(receipt, matches_payment=matches)
    return AllowanceAnswer(
        money_moved=closed.money_moved,
        amount=counts_as_spent(offer.price, closed),
        answer=answer,
        receipt=receipt,
        refusal=refusal,
        credential_fingerprint=credential.fingerprint,
    )
