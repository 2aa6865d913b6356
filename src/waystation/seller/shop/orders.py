"""Orders in the protocol's shape, and how they change: shipped, delivered, refunded. Pure.

An order is never rewritten silently: a refund is an adjustment, a delivery step is an event.
"""

from collections.abc import Sequence
from typing import Final

from waystation.models.base import replaced
from waystation.protocols import acp
from waystation.protocols.acp import Total, TotalType
from waystation.seller.shop import pricing
from waystation.seller.shop.merchant import PlacedOrder
from waystation.seller.shop.records import Checkout, OrderRecord
from waystation.seller.shop.views import rfc3339

SHIPPED: Final = "shipped"
DELIVERED: Final = "delivered"
REFUNDED: Final = "refunded"
PARTIALLY_REFUNDED: Final = "partially_refunded"
CANCELED: Final = "canceled"


def order_id_of(checkout_id: str) -> str:
    """Returns the id of a checkout's one order, which follows from the checkout's."""
    return f"ord_{checkout_id.removeprefix('cs_')}"


def new_order(checkout: Checkout, placed: PlacedOrder, intent_id: str | None, now: int) -> OrderRecord:
    """Returns the order of a paid checkout."""
    totals = pricing.totals(checkout.basket, checkout.quote)
    lines = pricing.line_items(checkout.quote)
    order = acp.Order(
        type="order",
        id=order_id_of(checkout.id),
        checkout_session_id=checkout.id,
        order_number=placed.order_number,
        permalink_url=placed.permalink_url,
        status=placed.status,
        estimated_delivery=placed.estimated_delivery,
        confirmation=acp.OrderConfirmation(
            confirmation_number=placed.order_number, order_notes=checkout.order_notes
        ),
        support=placed.support,
        line_items=tuple(_order_line(line) for line in lines),
        fulfillments=placed.fulfillments,
        adjustments=(),
        totals=totals,
    )
    return OrderRecord(
        order=order,
        identity=checkout.identity,
        currency=checkout.basket.currency,
        total=totals[-1].amount,
        payment_intent_id=intent_id,
        created_at=now,
    )


def _order_line(line: acp.LineItem) -> acp.OrderLineItem:
    return acp.OrderLineItem(
        id=line.id,
        title=line.name or line.item.id,
        product_id=line.item.id,
        description=line.description,
        quantity=acp.OrderQuantity(ordered=line.quantity, current=line.quantity, fulfilled=0),
        unit_price=line.unit_amount,
        subtotal=next(total.amount for total in line.totals if total.type is TotalType.SUBTOTAL),
        totals=line.totals,
        status="processing",
    )


def shipped(order: acp.Order, fulfillment: acp.Fulfillment, now: int) -> acp.Order:
    """Returns the order with a delivery on its way; ``fulfillment`` says what is in it."""
    event = acp.FulfillmentEvent(id=f"evt_{fulfillment.id}_shipped", type=SHIPPED, occurred_at=rfc3339(now))
    given = replaced(fulfillment, status=SHIPPED, events=(*(fulfillment.events or ()), event))
    others = tuple(one for one in order.fulfillments or () if one.id != given.id)
    lines = _fulfilled(order.line_items or (), given.line_items or ())
    return replaced(order, status=SHIPPED, fulfillments=(*others, given), line_items=lines)


def _fulfilled(
    lines: Sequence[acp.OrderLineItem], sent: Sequence[acp.LineItemReference]
) -> tuple[acp.OrderLineItem, ...]:
    counts: dict[str, int] = {}
    for reference in sent:
        counts[reference.id] = counts.get(reference.id, 0) + reference.quantity
    changed = []
    for line in lines:
        before = 0 if line.quantity.fulfilled is None else line.quantity.fulfilled
        fulfilled = before + counts.get(line.id, 0)
        if fulfilled > line.quantity.current:
            raise ValueError(f"more of line item {line.id} is shipped than was ordered")
        quantity = replaced(line.quantity, fulfilled=fulfilled)
        status = (
            "fulfilled" if fulfilled == line.quantity.current else "partial" if fulfilled else line.status
        )
        changed.append(replaced(line, quantity=quantity, status=status))
    return tuple(changed)


def delivered(order: acp.Order, fulfillment_id: str, now: int) -> acp.Order:
    """Returns the order with a delivery arrived."""
    event = acp.FulfillmentEvent(
        id=f"evt_{fulfillment_id}_delivered", type=DELIVERED, occurred_at=rfc3339(now)
    )
    known = order.fulfillments or ()
    if fulfillment_id not in [one.id for one in known]:
        raise ValueError(f"order {order.id} has no fulfillment {fulfillment_id}")
    fulfillments = tuple(
        replaced(one, status=DELIVERED, events=(*(one.events or ()), event))
        if one.id == fulfillment_id
        else one
        for one in known
    )
    everything = all(one.status == DELIVERED for one in fulfillments)
    return replaced(order, status=DELIVERED if everything else order.status, fulfillments=fulfillments)


def refunded(record: OrderRecord, refund_id: str, amount: int, reason: str, now: int) -> OrderRecord:
    """Returns the order with a refund noted; the money has already gone back."""
    order = record.order
    if any(adjustment.id == refund_id for adjustment in order.adjustments or ()):
        return record
    adjustment = acp.Adjustment(
        id=refund_id,
        type="refund",
        occurred_at=rfc3339(now),
        status="completed",
        amount=amount,
        currency=record.currency,
        reason=reason,
    )
    whole = record.refunded + amount
    others = tuple(total for total in order.totals or () if total.type is not TotalType.AMOUNT_REFUNDED)
    noted = Total(type=TotalType.AMOUNT_REFUNDED, display_text="Refunded", amount=whole)
    changed = replaced(
        order,
        status=REFUNDED if whole >= record.total else PARTIALLY_REFUNDED,
        adjustments=(*(order.adjustments or ()), adjustment),
        totals=(*others, noted),
    )
    return replaced(record, order=changed, refunded=whole)
