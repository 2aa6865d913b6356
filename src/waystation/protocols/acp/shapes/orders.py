"""Orders: confirmation, fulfillment, adjustments, and the events about them."""

from typing import ClassVar, Literal

from pydantic import (
    StrictBool,
)

from waystation.models.commerce import (
    Address,
    DateTime,
    Email,
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import (
    AcpModel,
    Amount,
    Count,
    Currency,
    Id,
    Quantity,
    StatedModel,
    WebUrl,
)
from waystation.protocols.acp.shapes.lines import Total


class EstimatedDelivery(AcpModel):
    """When goods are expected."""

    earliest: DateTime
    latest: DateTime


class OrderConfirmation(AcpModel):
    """The seller's confirmation."""

    confirmation_number: Text | None = None
    confirmation_email_sent: StrictBool | None = None
    receipt_url: WebUrl | None = None
    invoice_number: Text | None = None
    order_notes: Text | None = None


class Support(AcpModel):
    """``SupportInfo``."""

    email: Email | None = None
    phone: Text | None = None
    hours: Text | None = None
    help_center_url: WebUrl | None = None


class OrderQuantity(AcpModel):
    """``OrderLineItemQuantity``: what was ordered, what still counts, what has been handed over."""

    ordered: Quantity
    current: Count
    fulfilled: Count | None = None


class OrderLineItem(AcpModel):
    """A line of an order."""

    id: Id
    title: Text
    product_id: Text | None = None
    description: Text | None = None
    image_url: WebUrl | None = None
    url: WebUrl | None = None
    quantity: OrderQuantity
    unit_price: Amount | None = None
    subtotal: Amount | None = None
    totals: Many[Total] | None = None
    status: Text | None = None


class LineItemReference(AcpModel):
    """Some of a position."""

    id: Id
    quantity: Quantity


class FulfillmentEvent(AcpModel):
    """A step of a delivery."""

    id: Id
    type: Text
    occurred_at: DateTime
    description: Text | None = None
    location: Text | None = None


class DigitalDelivery(AcpModel):
    """Access to digital goods. The license key is shown to the buyer only."""

    access_url: WebUrl | None = None
    license_key: Text | None = None
    expires_at: DateTime | None = None


class Fulfillment(StatedModel):
    """A delivery."""

    DECIDES: ClassVar = frozenset({"id"})
    UNREAD: ClassVar = {"type": None}

    id: Id
    type: Literal["shipping", "pickup", "digital"] | None
    """``None`` only where a seller's own couldn't be read."""
    status: Text | None = None
    line_items: Many[LineItemReference] | None = None
    carrier: Text | None = None
    tracking_number: Text | None = None
    tracking_url: WebUrl | None = None
    destination: Address | None = None
    estimated_delivery: EstimatedDelivery | None = None
    digital_delivery: DigitalDelivery | None = None
    description: Text | None = None
    events: Many[FulfillmentEvent] | None = None


class Adjustment(StatedModel):
    """A later change to an order, such as a refund."""

    DECIDES: ClassVar = frozenset({"id", "type", "status", "amount", "currency"})
    UNREAD: ClassVar = {"occurred_at": None}

    id: Id
    type: Text
    occurred_at: DateTime | None
    """``None`` only where a seller's own couldn't be read."""
    status: Text
    line_items: Many[LineItemReference] | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    description: Text | None = None
    reason: Text | None = None


class Order(StatedModel):
    """What a completed checkout became. In what a seller states, only the id has to be readable."""

    DECIDES: ClassVar = frozenset({"id"})
    UNREAD: ClassVar = {"checkout_session_id": None, "permalink_url": None}

    type: Literal["order"] | None = None
    id: Id
    checkout_session_id: Id | None
    order_number: Text | None = None
    client_reference_id: Text | None = None
    permalink_url: WebUrl | None
    status: Text | None = None
    estimated_delivery: EstimatedDelivery | None = None
    confirmation: OrderConfirmation | None = None
    support: Support | None = None
    line_items: Many[OrderLineItem] | None = None
    fulfillments: Many[Fulfillment] | None = None
    adjustments: Many[Adjustment] | None = None
    totals: Many[Total] | None = None


class OrderEvent(AcpModel):
    """A webhook's body. Receivers accept unknown types."""

    type: Text
    data: Order

    ORDER_CREATE: ClassVar[str] = "order_create"
    ORDER_UPDATE: ClassVar[str] = "order_update"
