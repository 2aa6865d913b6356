"""Stripe's test payment methods, and how each behaves in the sandbox."""

from typing import Final, Literal

from waystation.models.base import Frozen


class TestCard(Frozen):
    """A card that exists for tests only; one with a ``decline_code`` is always declined."""

    __test__ = False  # Keeps pytest from collecting it because of its name.

    brand: str
    last4: str
    funding: Literal["credit", "debit", "prepaid"] = "credit"
    country: str = "US"
    exp_month: int = 12
    exp_year: int = 2034
    decline_code: str | None = None
    decline_message: str = "Your card was declined."
    requires_3ds: bool = False
    """The issuer requires it when the card is charged."""
    requires_3ds_first: bool = False
    """Required before a token for the card can be used at all."""
    risk_score: int = 6
    """0 to 99; what the seller sees as the score of ``fraudulent_dispute``."""

    @property
    def error_code(self) -> str:
        """Stripe's ``code`` for a decline; some decline codes are codes of their own."""
        own = ("expired_card", "incorrect_cvc", "processing_error")
        return self.decline_code if self.decline_code in own and self.decline_code else "card_declined"


TEST_CARDS: Final[dict[str, TestCard]] = {
    "pm_card_visa": TestCard(brand="visa", last4="4242"),
    "pm_card_visa_debit": TestCard(brand="visa", last4="5556", funding="debit"),
    "pm_card_mastercard": TestCard(brand="mastercard", last4="4444"),
    "pm_card_mastercard_prepaid": TestCard(brand="mastercard", last4="5100", funding="prepaid"),
    "pm_card_amex": TestCard(brand="amex", last4="0005"),
    "pm_card_discover": TestCard(brand="discover", last4="1117"),
    "pm_card_chargeDeclined": TestCard(brand="visa", last4="0002", decline_code="generic_decline"),
    "pm_card_visa_chargeDeclined": TestCard(brand="visa", last4="0002", decline_code="generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": TestCard(
        brand="visa",
        last4="9995",
        decline_code="insufficient_funds",
        decline_message="Your card has insufficient funds.",
    ),
    "pm_card_chargeDeclinedExpiredCard": TestCard(
        brand="visa", last4="0069", decline_code="expired_card", decline_message="Your card has expired."
    ),
    "pm_card_chargeDeclinedProcessingError": TestCard(
        brand="visa",
        last4="0119",
        decline_code="processing_error",
        decline_message="An error occurred while processing your card. Try again in a little bit.",
    ),
    "pm_card_authenticationRequired": TestCard(brand="visa", last4="3184", requires_3ds=True),
    "pm_card_authenticationRequiredOnSetup": TestCard(brand="visa", last4="3155", requires_3ds_first=True),
    "pm_card_threeDSecure2Required": TestCard(brand="visa", last4="3220", requires_3ds=True),
    "pm_card_riskLevelElevated": TestCard(brand="visa", last4="9235", risk_score=68),
    "pm_card_riskLevelHighest": TestCard(brand="visa", last4="4954", risk_score=92),
}
