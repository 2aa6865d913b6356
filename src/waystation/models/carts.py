"""A seller's answers: the cart as the seller states it, what of it may be paid, and the order it becomes.

Users import them from ``waystation.models.purchases``.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, StrictInt, StringConstraints

from waystation.models.base import Frozen
from waystation.models.commerce import CheckoutStatus, FulfillmentDetails, FulfillmentType
from waystation.models.decisions import Digest
from waystation.models.money import Money
from waystation.models.times import Instant
from waystation.models.urls import Origin


class CartLine(Frozen):
    """One line as the seller states it."""

    line_id: str
    item_id: str
    name: str | None = None
    quantity: StrictInt
    unit_amount: StrictInt | None = None
    totals: tuple["CartTotal", ...] = ()
    parent_id: str | None = None
    """The line of the bundle that this is a part of."""

    @property
    def price(self) -> int | None:
        """What the line costs as stated, in minor units; ``None`` if it doesn't say."""
        stated = {total.type: total.amount for total in self.totals}
        for kind in ("total", "subtotal", "items_base_amount"):
            if kind in stated:
                return stated[kind]
        return None if self.unit_amount is None else self.unit_amount * self.quantity


class CartTotal(Frozen):
    """One amount of a sum, in minor units; discounts may carry either sign."""

    type: str
    label: str
    amount: StrictInt


class CartFulfillment(Frozen):
    """A way of getting the goods, selected or offered."""

    type: FulfillmentType
    id: str
    title: str
    amount: StrictInt | None
    """``None``: selected, but not among the options that the seller offers, so nobody states its price."""
    item_ids: tuple[str, ...] = ()


class FulfillmentGroupFact(Frozen):
    """Items that must travel by one type of fulfillment."""

    type: FulfillmentType
    item_ids: tuple[str, ...]


class Cart(Frozen):
    """Exactly what a person approves: who is paid, for what, sent where, and every amount.

    ``payee`` is the seller's account with the payment processor; a payment token works for that account only.
    """

    checkout_id: str
    seller: Origin
    payee: str | None
    currency: str
    lines: tuple[CartLine, ...]
    totals: tuple[CartTotal, ...]
    total: StrictInt | None
    """Minor units; ``None`` if the seller did not state exactly one total."""

    fulfillment: tuple[CartFulfillment, ...] = ()
    ship_to: FulfillmentDetails | None = None
    discount_codes: tuple[str, ...] = ()


class PayableCart(Frozen):
    """A cart that passed every rule: what may be reserved, charged and shown as paid. See ``check_cart``."""

    checkout_id: str
    digest: Digest
    total: Money
    payee: Annotated[str, StringConstraints(min_length=1)]
    """The seller's account with the payment processor."""
    handler: Annotated[str, StringConstraints(min_length=1)]
    """The id of the seller's payment handler that takes the token."""
    item_ids: tuple[str, ...] = ()
    ship_to_country: str | None = None
    """Where the seller's cart says that it is sent. What was only asked for proves nothing."""
    is_sent: bool = False
    """Something of it is sent to an address, or the cart doesn't say how it is delivered."""

    def buys_as(self, other: "PayableCart") -> bool:
        """Whether one token serves both: the same total, payee and checkout."""
        return (self.total, self.payee, self.checkout_id) == (other.total, other.payee, other.checkout_id)


class CheckoutMessage(Frozen):
    """A seller's message. Its text is shown to people and decides nothing."""

    type: Literal["info", "warning", "error"]
    code: str | None = None
    param: str | None = None
    text: str
    resolution: str | None = None


class OrderFulfillment(Frozen):
    """A delivery of an order."""

    id: str
    type: str | None = None
    status: str | None = None
    carrier: str | None = None
    tracking_number: str | None = None
    tracking_url: str | None = None
    access_url: str | None = Field(default=None, repr=False)
    license_key: str | None = Field(default=None, repr=False)


class OrderAdjustment(Frozen):
    """A refund, credit, return, … after the fact."""

    id: str
    type: str
    status: str
    amount: StrictInt | None = None
    currency: str | None = None
    occurred_at: str | None = None


class OrderFacts(Frozen):
    """An order as the seller last described it. What it didn't state, or can't be read, is ``None``."""

    id: str
    checkout_id: str
    permalink_url: str | None = None
    number: str | None = None
    status: str | None = None
    fulfillments: tuple[OrderFulfillment, ...] = ()
    adjustments: tuple[OrderAdjustment, ...] = ()
    total: StrictInt | None = None


NO_HINDRANCE: Final = frozenset(
    {
        "payment_declined",
        "requires_3ds",
        "low_stock",
        "coupon_invalid",
        "coupon_expired",
        "discount_code_expired",
        "discount_code_invalid",
        "discount_code_already_applied",
        "discount_code_combination_disallowed",
        "discount_code_minimum_not_met",
        "discount_code_user_not_logged_in",
        "discount_code_user_ineligible",
        "discount_code_usage_limit_reached",
    }
)
"""Codes of error messages that a checkout may carry and be paid all the same."""


class CheckoutAnswer(Frozen):
    """One answer of the seller, read strictly and reduced to what decides."""

    status: CheckoutStatus
    cart: Cart
    options: tuple[CartFulfillment, ...] = ()
    groups: tuple[FulfillmentGroupFact, ...] = ()
    messages: tuple[CheckoutMessage, ...] = ()
    problems: tuple[str, ...] = ()
    """Amounts that contradict each other, as ``<JSONPath> <rule>``."""

    handler_id: str | None = None
    handlers_offered: tuple[str, ...] = ()
    """The ways to pay that the seller offers, as people are told them."""
    continue_url: str | None = None
    authentication: dict[str, JsonValue] | None = None
    order: OrderFacts | None = None
    expires_at: Instant | None = None
    api_base_url: str
    request_id: str | None = None
    replayed: bool = False

    def error_codes(self) -> frozenset[str]:
        """Codes of the error messages."""
        return frozenset(m.code for m in self.messages if m.type == "error" and m.code)

    def hindrances(self) -> frozenset[str]:
        """Codes of the error messages that stand against paying, whatever the status says.

        Not those about an earlier payment, an authentication that comes with the payment, or a discount that
        the amounts leave out.
        """
        return self.error_codes() - NO_HINDRANCE


class OrderPlaced(Frozen):
    """An answer of which only this can be read: the checkout is completed, and this is its order.

    After paying, nothing else in an answer decides.
    """

    checkout_id: str
    order: OrderFacts
    request_id: str | None = None
    replayed: bool = False
