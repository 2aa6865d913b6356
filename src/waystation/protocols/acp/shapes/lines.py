"""Line items, and the totals of lines, carts and orders."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import (
    StrictBool,
)

from waystation.models.commerce import (
    DateTime,
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import (
    AcpModel,
    Amount,
    Count,
    Id,
    Number,
    Quantity,
    StatedModel,
    WebUrl,
)


class TotalType(StrEnum):
    """The kinds of amount in ``totals``."""

    ITEMS_BASE_AMOUNT = "items_base_amount"
    ITEMS_DISCOUNT = "items_discount"
    SUBTOTAL = "subtotal"
    DISCOUNT = "discount"
    FULFILLMENT = "fulfillment"
    TAX = "tax"
    FEE = "fee"
    GIFT_WRAP = "gift_wrap"
    TIP = "tip"
    STORE_CREDIT = "store_credit"
    TOTAL = "total"
    AMOUNT_REFUNDED = "amount_refunded"


class TaxBreakdownItem(AcpModel):
    """One jurisdiction's share of a tax."""

    jurisdiction: Text
    rate: Number
    amount: Amount


class Total(StatedModel):
    """One line of a sum, in minor units of the session's currency."""

    DECIDES: ClassVar = frozenset({"type", "amount"})
    UNREAD: ClassVar = {"display_text": ""}

    type: TotalType
    display_text: Text
    amount: Amount
    presentment_amount: Amount | None = None
    description: Text | None = None
    breakdown: Many[TaxBreakdownItem] | None = None


class Item(StatedModel):
    """A product as the seller names it."""

    DECIDES: ClassVar = frozenset({"id", "unit_amount"})

    id: Id
    name: Text | None = None
    unit_amount: Amount | None = None


class Disclosure(AcpModel):
    """Something that the buyer must be told about an item."""

    type: Literal["disclaimer"]
    content_type: Literal["plain", "markdown"]
    content: Text


class CustomAttribute(AcpModel):
    """A property to show."""

    display_name: Text
    value: Text


class NamedSeller(AcpModel):
    """The seller behind a marketplace's item (``MarketplaceSellerDetails``)."""

    name: Text


class VariantOption(AcpModel):
    """A chosen characteristic, such as size."""

    name: Text
    value: Text


class Weight(AcpModel):
    """``WeightInfo``."""

    value: Number
    unit: Literal["g", "kg", "oz", "lb"]


class Dimensions(AcpModel):
    """``DimensionsInfo``."""

    length: Number
    width: Number
    height: Number
    unit: Literal["cm", "in"]


class DiscountDetail(AcpModel):
    """A discount on one item."""

    code: Text | None = None
    type: Literal["percentage", "fixed", "bogo", "volume"]
    amount: Amount
    description: Text | None = None
    source: Literal["coupon", "automatic", "loyalty"] | None = None


AvailabilityStatus = Literal["in_stock", "low_stock", "out_of_stock", "backorder", "pre_order"]


class LineItem(StatedModel):
    """A line of the cart."""

    DECIDES: ClassVar = frozenset({"id", "item", "quantity", "unit_amount", "parent_id", "totals"})

    id: Id
    item: Item
    quantity: Quantity
    name: Text | None = None
    description: Text | None = None
    images: Many[WebUrl] | None = None
    unit_amount: Amount | None = None
    disclosures: Many[Disclosure] | None = None
    custom_attributes: Many[CustomAttribute] | None = None
    marketplace_seller_details: NamedSeller | None = None
    product_id: Text | None = None
    sku: Text | None = None
    variant_id: Text | None = None
    category: Text | None = None
    tags: Many[Text] | None = None
    weight: Weight | None = None
    dimensions: Dimensions | None = None
    availability_status: Literal["in_stock", "low_stock", "out_of_stock", "backorder", "pre_order"] | None = (
        None
    )
    available_quantity: Count | None = None
    max_quantity_per_order: Quantity | None = None
    fulfillable_on: DateTime | None = None
    variant_options: Many[VariantOption] | None = None
    discount_details: Many[DiscountDetail] | None = None
    tax_exempt: StrictBool | None = None
    tax_exemption_reason: Text | None = None
    parent_id: Text | None = None
    totals: Many[Total]
