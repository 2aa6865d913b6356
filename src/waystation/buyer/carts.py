"""Reduces a seller's checkout session to the facts that decide a purchase. Pure."""

from collections.abc import Iterable
from datetime import datetime

from waystation.models.purchases import (
    Cart,
    CartFulfillment,
    CartLine,
    CartTotal,
    CheckoutAnswer,
    CheckoutMessage,
    FulfillmentGroupFact,
    OrderAdjustment,
    OrderFacts,
    OrderFulfillment,
)
from waystation.models.times import clamped
from waystation.protocols.acp import (
    CheckoutSession,
    FulfillmentOption,
    Message,
    MessageInfo,
    Order,
    PaymentHandler,
    Total,
    TotalType,
)
from waystation.protocols.acp.totals import problems_of_totals

_SELLER_BACKED = ".seller_backed."


def answer_from_session(
    session: CheckoutSession,
    *,
    seller: str,
    api_base_url: str,
    request_id: str | None = None,
    replayed: bool = False,
) -> CheckoutAnswer:
    """Reduces a session that was read strictly. ``seller`` is the origin that was asked."""
    handler = choose_handler(session)
    metadata = session.authentication_metadata
    return CheckoutAnswer(
        status=session.status,
        cart=cart_from_session(session, seller=seller),
        options=tuple(_offered(option) for option in session.fulfillment_options),
        groups=tuple(
            FulfillmentGroupFact(type=group.destination_type, item_ids=group.item_ids)
            for group in session.fulfillment_groups or ()
        ),
        messages=tuple(_message(message) for message in session.messages),
        problems=tuple(f"{path} {rule}" for path, rule in problems_of_totals(session)),
        handler_id=handler.id if handler else None,
        continue_url=session.continue_url,
        authentication=metadata.wire() if metadata else None,
        order=order_facts(session.order) if session.order else None,
        expires_at=_earliest(session.expires_at, session.quote_expires_at),
        api_base_url=api_base_url,
        request_id=request_id,
        replayed=replayed,
    )


def cart_from_session(session: CheckoutSession, *, seller: str) -> Cart:
    """Returns what a person approves."""
    handler = choose_handler(session)
    offered = {(option.type, option.id): option for option in session.fulfillment_options}
    selected = []
    for choice in session.selected_fulfillment_options or ():
        option = offered.get((choice.type, choice.option_id))
        selected.append(
            CartFulfillment(
                type=choice.type,
                id=choice.option_id,
                title=option.title if option else choice.option_id,
                amount=_price(option.totals) if option else 0,
                item_ids=tuple(sorted(choice.item_ids)),
            )
        )
    return Cart(
        checkout_id=session.id,
        seller=seller,
        payee=handler.merchant_id if handler else None,
        currency=session.currency,
        lines=tuple(
            CartLine(
                line_id=line.id,
                item_id=line.item.id,
                name=line.name or line.item.name,
                quantity=line.quantity,
                unit_amount=line.unit_amount if line.unit_amount is not None else line.item.unit_amount,
                totals=_totals(line.totals),
            )
            for line in session.line_items
        ),
        totals=_totals(session.totals),
        total=session.total(),
        fulfillment=tuple(selected),
        ship_to=session.fulfillment_details,
        discount_codes=tuple(
            sorted(d.code for d in (session.discounts.applied if session.discounts else None) or () if d.code)
        ),
    )


def choose_handler(session: CheckoutSession) -> PaymentHandler | None:
    """Returns the seller's first handler that takes a shared payment token for a stated account.

    Handlers for cards that the seller itself has saved, or that require raw card data, can't be used.
    A lower ``display_order`` goes first; handlers without one count as 0, and ties keep the listed order.
    """
    payment = session.capabilities.payment
    usable = [
        handler
        for handler in (payment.handlers if payment else ())
        if handler.merchant_id and _SELLER_BACKED not in handler.name and not handler.requires_pci_compliance
    ]
    return min(usable, key=_display_order, default=None)


def _display_order(handler: PaymentHandler) -> int:
    return 0 if handler.display_order is None else handler.display_order


def order_facts(order: Order) -> OrderFacts:
    """Reduces an order to what a buyer follows."""
    totals = [total.amount for total in order.totals or () if total.type is TotalType.TOTAL]
    return OrderFacts(
        id=order.id,
        checkout_id=order.checkout_session_id,
        permalink_url=order.permalink_url,
        number=order.order_number,
        status=order.status,
        total=totals[0] if len(totals) == 1 else None,
        fulfillments=tuple(
            OrderFulfillment(
                id=one.id,
                type=one.type,
                status=one.status,
                carrier=one.carrier,
                tracking_number=one.tracking_number,
                tracking_url=one.tracking_url,
                access_url=one.digital_delivery.access_url if one.digital_delivery else None,
                license_key=one.digital_delivery.license_key if one.digital_delivery else None,
            )
            for one in order.fulfillments or ()
        ),
        adjustments=tuple(
            OrderAdjustment(
                id=one.id,
                type=one.type,
                status=one.status,
                amount=one.amount,
                currency=one.currency,
                occurred_at=one.occurred_at,
            )
            for one in order.adjustments or ()
        ),
    )


def _offered(option: FulfillmentOption) -> CartFulfillment:
    return CartFulfillment(type=option.type, id=option.id, title=option.title, amount=_price(option.totals))


def _totals(totals: Iterable[Total]) -> tuple[CartTotal, ...]:
    return tuple(CartTotal(type=t.type.value, label=t.display_text, amount=t.amount) for t in totals)


def _price(totals: Iterable[Total]) -> int:
    """Returns an option's price: its total, else the sum of everything it lists."""
    listed = list(totals)
    stated = [t.amount for t in listed if t.type is TotalType.TOTAL]
    return stated[0] if stated else sum(t.amount for t in listed)


def _message(message: Message) -> CheckoutMessage:
    return CheckoutMessage(
        type=message.type,
        code=None if isinstance(message, MessageInfo) else message.code.value,
        param=message.param,
        text=message.content,
        resolution=message.resolution,
    )


def _earliest(*moments: str | None) -> datetime | None:
    return min((clamped(datetime.fromisoformat(moment)) for moment in moments if moment), default=None)
