"""What a merchant implements, and the values that pass between it and the kit.

A merchant states facts in whole minor units: prices, taxes, shipping options, stock, orders. It never builds
protocol objects or adds up totals, and never touches a payment token: the kit does both.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, StrictInt

from waystation.models.base import Frozen
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS, MinorUnits
from waystation.protocols import acp


class Basket(Frozen):
    """What an agent has asked for so far."""

    items: tuple[acp.RequestedItem, ...]
    currency: acp.Currency
    checkout_id: str | None = None
    """Whose basket it is. Goods that this checkout has set aside are available to it; ``None`` for a cart."""
    buyer: acp.Buyer | None = None
    fulfillment_details: acp.FulfillmentDetails | None = None
    selected_options: tuple[acp.SelectedFulfillmentOption, ...] = ()
    discount_codes: tuple[str, ...] = ()
    locale: str | None = None

    @property
    def address(self) -> acp.Address | None:
        return self.fulfillment_details.address if self.fulfillment_details else None


class QuotedLine(Frozen):
    """The price of one line. Amounts are for the whole line except ``unit_amount``."""

    item_id: str
    name: str
    quantity: acp.Quantity
    unit_amount: MinorUnits
    discount: MinorUnits = 0
    """Subtracted before tax."""
    tax: MinorUnits = 0
    """Added to the price, never included in it."""
    description: str | None = None
    image_urls: tuple[acp.WebUrl, ...] = ()
    fulfilled_by: acp.FulfillmentType = "shipping"
    available_quantity: acp.Count | None = None
    max_quantity: acp.Quantity | None = None
    attributes: Mapping[str, str] = Field(default_factory=dict)

    @property
    def base_amount(self) -> int:
        return self.unit_amount * self.quantity

    @property
    def in_stock(self) -> bool:
        return self.available_quantity is None or self.available_quantity >= self.quantity


class QuotedOption(Frozen):
    """One way to get goods of one type to the buyer, and what it costs."""

    type: acp.FulfillmentType
    id: acp.Id
    title: str
    amount: MinorUnits = 0
    tax: MinorUnits = 0
    description: str | None = None
    carrier: str | None = None
    earliest_delivery_time: acp.DateTime | None = None
    latest_delivery_time: acp.DateTime | None = None
    pickup_location: acp.PickupLocation | None = None


class QuotedFee(Frozen):
    """A fee in addition to the goods."""

    text: str
    amount: MinorUnits


class QuotedDiscount(Frozen):
    """An active discount.

    ``per_line``: ``amount`` is already in the lines' ``discount``; otherwise it comes off the whole.
    """

    code: str | None
    coupon: acp.Coupon
    amount: MinorUnits
    per_line: bool = False


class Quote(Frozen):
    """A merchant's price for a basket; the kit adds it up."""

    lines: tuple[QuotedLine, ...]
    options: tuple[QuotedOption, ...] = ()
    fees: tuple[QuotedFee, ...] = ()
    discounts: tuple[QuotedDiscount, ...] = ()
    rejected_codes: tuple[acp.RejectedDiscount, ...] = ()
    messages: tuple[acp.Message, ...] = ()
    """Errors among them prevent payment."""
    continue_url: acp.WebUrl | None = None
    """Set: a person has to go there first (status ``requires_escalation``)."""


class RiskInsight(Frozen):
    """One of the processor's risk scores; some of them are fractions."""

    score: StrictInt | Decimal | None = None
    recommended_action: str | None = None


class PaymentFacts(Frozen):
    """What the processor says about the payment behind a token, for a merchant's risk systems."""

    checkout_id: str
    amount: MinorUnits
    currency: acp.Currency
    card_brand: str | None = None
    card_last4: str | None = None
    card_funding: str | None = None
    card_country: str | None = None
    card_exp_month: int | None = None
    card_exp_year: int | None = None
    insights: Mapping[str, RiskInsight] = Field(default_factory=dict)
    agent_profile: str | None = None
    token_limit: int | None = None
    token_expires_at: int | None = None
    buyer: acp.Buyer | None = None
    risk_signals: acp.RiskSignals | None = None


class RiskDecision(Frozen):
    """A merchant's decision about a payment. ``reason`` is shown to the buyer."""

    allowed: bool
    reason: str = ""
    continue_url: acp.WebUrl | None = None

    @classmethod
    def accept(cls) -> Self:
        return cls(allowed=True)

    @classmethod
    def refuse(cls, reason: str) -> Self:
        return cls(allowed=False, reason=reason)

    @classmethod
    def escalate(cls, reason: str, continue_url: str) -> Self:
        """Not now: a person has to go to ``continue_url`` first."""
        return cls(allowed=False, reason=reason, continue_url=continue_url)


class NewOrder(Frozen):
    """A paid checkout, to be turned into an order. The ids are the kit's and never change."""

    order_id: str
    checkout_id: str
    basket: Basket
    quote: Quote
    total: Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT_MINOR_UNITS)]
    payment_intent_id: str | None
    order_notes: str | None = None


class PlacedOrder(Frozen):
    """What the merchant adds to an order."""

    permalink_url: acp.WebUrl
    order_number: str | None = None
    status: str = "created"
    fulfillments: tuple[acp.Fulfillment, ...] = ()
    estimated_delivery: acp.EstimatedDelivery | None = None
    support: acp.Support | None = None


class Merchant(ABC):
    """A shop. Methods may be called again with the same ids after a crash; the docstrings say what then."""

    @abstractmethod
    async def products(self) -> Sequence[acp.FeedProduct]:
        """Returns the catalog for the product feed. A variant's id is the item id of a checkout."""

    @abstractmethod
    async def quote(self, basket: Basket) -> Quote:
        """Returns the price of a basket right now. Has no effect.

        Raises ``UnknownItemError`` and ``UnsupportedCurrencyError``.
        Lack of stock is stated in the lines, codes that don't apply in ``rejected_codes``.
        """

    @abstractmethod
    async def place_order(self, order: NewOrder) -> PlacedOrder:
        """Takes a paid order. Called again with the same ``order_id``: the same order, not another one.

        Raises:
            OrderRefusedError: It can't be taken after all: the charge is then refunded.
        """

    async def reserve(self, checkout_id: str, basket: Basket) -> None:  # noqa: B027 - optional
        """Reserves goods before the charge, and replaces what this checkout had reserved.

        Raises:
            OutOfStockError: There isn't enough left.
        """

    async def release(self, checkout_id: str) -> None:  # noqa: B027 - optional
        """Releases what ``reserve`` reserved, if anything: nothing was charged, or it was refunded."""

    async def assess(self, facts: PaymentFacts) -> RiskDecision:
        """Decides whether to charge, before every charge. A refusal is final for this attempt."""
        return RiskDecision.accept()
