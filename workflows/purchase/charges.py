"""What the seller's and the processor's answers say about an order and its payment. Pure."""

from waystation.models.commerce import CheckoutStatus
from waystation.models.money import Money
from waystation.models.purchases import Charge, CheckoutAnswer, OrderFacts, OrderPlaced, PaymentToken


def order_in(answer: CheckoutAnswer | OrderPlaced, checkout_id: str) -> OrderFacts | None:
    """Returns the order that this checkout has become, if the answer says so."""
    if isinstance(answer, OrderPlaced):
        return answer.order if answer.checkout_id == checkout_id else None
    if answer.status is not CheckoutStatus.COMPLETED:
        return None
    return answer.order if answer.cart.checkout_id == checkout_id else None


def charge_of(token: PaymentToken) -> Charge:
    """Returns what the processor says was charged to a token, which can be charged once."""
    if token.status == "unknown":
        return Charge(status="unknown")
    if token.status != "deactivated":
        return Charge(status="awaited", amount=token.captured)
    if token.captured:
        return Charge(status="captured", amount=token.captured)
    if token.deactivated_reason == "consumed":
        return Charge(status="captured")
    if token.captured is None and token.deactivated_reason is None:
        return Charge(status="unknown")
    return Charge(status="nothing")


def counts_as_spent(charge: Charge, total: Money) -> Money:
    """Returns what a charge takes from the mandate: its amount, or the total where nobody states one.

    Never more than the total, which is all that was set aside and all that the token allowed.
    """
    if charge.status == "nothing":
        return Money(amount=0, currency=total.currency)
    amount = total.amount if charge.amount is None else min(charge.amount, total.amount)
    return Money(amount=amount, currency=total.currency)
