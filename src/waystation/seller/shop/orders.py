"""Orders in the protocol's shape, and how they change: shipped, delivered, refunded. Pure.

An order is never rewritten silently: a refund is an adjustment, a delivery step is an event. What has been
sent and what has arrived is counted from the fulfillments, of which each has its own id; the states of lines
and order follow from these counts. So saying the same thing twice changes nothing.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Final

from waystation.models.base import replaced
from waystation.protocols import acp
from waystation.protocols.acp import Total, TotalType
from waystation.seller.shop import pricing
from waystation.seller.shop.merchant import PlacedOrder
from waystation.seller.shop.records import Checkout, OrderRecord, Refund
from waystation.seller.shop.views import rfc3339

PROCESSING: Final = "processing"
SHIPPED: Final = "shipped"
DELIVERED: Final = "delivered"
REFUNDED: Final = "refunded"
PARTIALLY_REFUNDED: Final = "partially_refunded"
CANCELED: Final = "canceled"

_ON_THE_WAY: Final = frozenset({SHIPPED, "in_transit", "out_for_delivery", "ready_for_pickup"})
_OVER: Final = frozenset({REFUNDED, CANCELED})
"""States of an order that no parcel changes."""


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
        line_items=_counted([_order_line(line) for line in lines], placed.fulfillments or ()),
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
    """Returns the order with a delivery on its way.

    ``fulfillment`` says what is in it, by default all the rest. One with a known id replaces that one, and
    keeps its events.

    Raises:
        ValueError: It holds more than is left, or something that wasn't ordered.
    """
    known = next((one for one in order.fulfillments or () if one.id == fulfillment.id), None)
    others = [one for one in order.fulfillments or () if one.id != fulfillment.id]
    held = fulfillment.line_items or (known.line_items if known else None) or _rest(order, others)
    _check_held(order, others, held)
    arrived = known is not None and known.status == DELIVERED
    event = acp.FulfillmentEvent(id=f"evt_{fulfillment.id}_shipped", type=SHIPPED, occurred_at=rfc3339(now))
    given = replaced(
        fulfillment,
        status=DELIVERED if arrived else SHIPPED,
        line_items=held,
        events=_events((known.events if known else None) or (), fulfillment.events or (), (event,)),
    )
    return _with(order, given)


def delivered(order: acp.Order, fulfillment_id: str, now: int) -> acp.Order:
    """Returns the order with a delivery arrived.

    Raises:
        ValueError: The order has no such fulfillment.
    """
    known = next((one for one in order.fulfillments or () if one.id == fulfillment_id), None)
    if known is None:
        raise ValueError(f"order {order.id} has no fulfillment {fulfillment_id}")
    others = [one for one in order.fulfillments or () if one.id != fulfillment_id]
    event = acp.FulfillmentEvent(
        id=f"evt_{fulfillment_id}_delivered", type=DELIVERED, occurred_at=rfc3339(now)
    )
    return _with(
        order,
        replaced(
            known,
            status=DELIVERED,
            line_items=known.line_items or _rest(order, others),
            events=_events(known.events or (), (event,)),
        ),
    )


def _with(order: acp.Order, given: acp.Fulfillment) -> acp.Order:
    """Returns the order with a fulfillment in its place, or added, and the states that follow."""
    known = order.fulfillments or ()
    fulfillments = tuple(given if one.id == given.id else one for one in known)
    if given.id not in [one.id for one in known]:
        fulfillments = (*fulfillments, given)
    lines = _counted(order.line_items or (), fulfillments)
    status = order.status if order.status in _OVER else _status(lines, fulfillments)
    return replaced(order, status=status, fulfillments=fulfillments, line_items=lines)


def _events(*steps: Iterable[acp.FulfillmentEvent]) -> tuple[acp.FulfillmentEvent, ...]:
    """Returns the events in order; what happened once is noted once."""
    first: dict[str, acp.FulfillmentEvent] = {}
    for event in (event for some in steps for event in some):
        first.setdefault(event.id, event)
    return tuple(first.values())


def _held(fulfillments: Iterable[acp.Fulfillment], statuses: Container[str | None]) -> Counter[str]:
    """Returns how much of each line the fulfillments with such a status hold."""
    counts: Counter[str] = Counter()
    for one in fulfillments:
        if one.status in statuses:
            for reference in one.line_items or ():
                counts[reference.id] += reference.quantity
    return counts


def _rest(order: acp.Order, others: Sequence[acp.Fulfillment]) -> tuple[acp.LineItemReference, ...]:
    """Returns what no other fulfillment holds."""
    counts = _held(others, {one.status for one in others if one.status not in ("canceled", "failed")})
    return tuple(
        acp.LineItemReference(id=line.id, quantity=line.quantity.current - counts[line.id])
        for line in order.line_items or ()
        if line.quantity.current > counts[line.id]
    )


def _check_held(
    order: acp.Order, others: Sequence[acp.Fulfillment], held: Sequence[acp.LineItemReference]
) -> None:
    lines = {line.id: line for line in order.line_items or ()}
    sent = _held(others, {*_ON_THE_WAY, DELIVERED})
    for reference in held:
        if reference.id not in lines:
            raise ValueError(f"order {order.id} has no line item {reference.id}")
        sent[reference.id] += reference.quantity
        if sent[reference.id] > lines[reference.id].quantity.current:
            raise ValueError(f"more of line item {reference.id} is shipped than was ordered")


def _counted(
    lines: Sequence[acp.OrderLineItem], fulfillments: Sequence[acp.Fulfillment]
) -> tuple[acp.OrderLineItem, ...]:
    """Returns the lines with what has been sent of them, and the status that follows (``OrderLineItem``)."""
    sent = _held(fulfillments, {*_ON_THE_WAY, DELIVERED})
    counted = []
    for line in lines:
        quantity = replaced(line.quantity, fulfilled=sent[line.id])
        counted.append(
            replaced(line, quantity=quantity, status=_line_status(quantity.current, sent[line.id]))
        )
    return tuple(counted)


def _line_status(current: int, fulfilled: int) -> str:
    if current == 0:
        return "removed"
    if fulfilled >= current:
        return "fulfilled"
    return "partial" if fulfilled else PROCESSING


def _status(lines: Sequence[acp.OrderLineItem], fulfillments: Sequence[acp.Fulfillment]) -> str:
    arrived = _held(fulfillments, {DELIVERED})
    if all(arrived[line.id] >= line.quantity.current for line in lines):
        return DELIVERED
    return SHIPPED if all(line.status in ("fulfilled", "removed") for line in lines) else PROCESSING


def check_refund(record: OrderRecord, amount: int, key: str) -> bool:
    """Checks a refund before the processor is asked for it. Returns whether it was made already.

    Raises:
        ValueError: It isn't a positive whole number, is more than is left of the payment, or its key was used
            for another amount.
    """
    if isinstance(amount, bool) or not isinstance(amount, int) or amount <= 0:
        raise ValueError("a refund is a positive whole number of minor units")
    made = next((refund for refund in record.refunds if refund.key == key), None)
    if made is not None:
        if made.amount != amount:
            raise ValueError(f"the key {key} has refunded {made.amount}; use another key for another refund")
        return True
    rest = record.total - record.refunded
    if amount > rest:
        raise ValueError(f"only {rest} of {record.total} minor units are left to refund")
    return False


def refunded(
    record: OrderRecord, refund_id: str, amount: int, reason: str, now: int, *, key: str
) -> OrderRecord:
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
    if whole > record.total:
        raise ValueError(f"the processor refunded more than order {order.id} cost")
    others = tuple(total for total in order.totals or () if total.type is not TotalType.AMOUNT_REFUNDED)
    noted = Total(type=TotalType.AMOUNT_REFUNDED, display_text="Refunded", amount=whole)
    changed = replaced(
        order,
        status=REFUNDED if whole == record.total else PARTIALLY_REFUNDED,
        adjustments=(*(order.adjustments or ()), adjustment),
        totals=(*others, noted),
    )
    made = Refund(key=key, amount=amount)
    return replaced(record, order=changed, refunded=whole, refunds=(*record.refunds, made))
