"""The outcome of a payment within an allowance, from what the server and the processor say. Pure."""

from typing import Final

from waystation.errors import WaystationError
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
LEASED: Final = "AllowanceLeased"
"""Another process pays from it."""


class HolderRefusedError(WaystationError):
    """No payment was started. ``rule`` is stable."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def allowance_answer(
    offer: Offer, credential: MintedCredential, redeemed: RedeemAnswer | None, closed: ClosedCredential
) -> AllowanceAnswer:
    """Returns the outcome; an amount counts as spent if it moved, or if nobody can rule that out."""
    answer, refusal = (redeemed.answer, None) if redeemed else (None, None)
    amount = 0
    if closed.money_moved != "no":
        amount = offer.price.amount if closed.amount is None else closed.amount
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
        receipt = receipt.model_copy(update={"matches_payment": matches})
    return AllowanceAnswer(
        money_moved=closed.money_moved,
        amount=amount,
        answer=answer,
        receipt=receipt,
        refusal=refusal,
        credential_fingerprint=credential.fingerprint,
    )
