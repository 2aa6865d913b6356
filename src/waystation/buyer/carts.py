"""Reduces a seller's checkout session to the facts that decide a purchase. Pure."""

import contextlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

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
    OrderPlaced,
)
from waystation.models.times import clamped
from waystation.protocols.acp import (
    CheckoutSession,
    FulfillmentOption,
    Message,
    MessageInfo,
    Order,
    PaymentHandler,
    ProtocolViolationError,
    Total,
    TotalType,
    read_completed,
    read_session,
)
from waystation.protocols.acp.totals import problems_of_totals
from waystation.rfc3339 import parse_rfc3339

KNOWN_HANDLERS: Final = frozenset({"dev.acp.tokenized.card"})
"""Names of the handlers that take a token for a card, as this side sends it."""
PROCESSOR: Final = "stripe"
"""The processor that issues the tokens: its accounts alone can be paid by them."""
MAX_HANDLERS_TOLD: Final = 5
MAX_HANDLER_TEXT_CHARS: Final = 100


class Source(NamedTuple):
    """Where an answer comes from: the origin that was asked, its API, and what the answer's headers say."""

    seller: str
    api_base_url: str
    request_id: str | None = None
    replayed: bool = False


def read_answer(raw: bytes | str, source: Source) -> CheckoutAnswer:
    """Reads a seller's answer: strictly what decides, and of the rest what can be read.

    Raises:
        ProtocolViolationError: Something on which money depends can't be read.
    """
    return answer_from_session(read_session(raw), **source._asdict())


def read_answer_or_order(raw: bytes | str, source: Source) -> CheckoutAnswer | OrderPlaced:
    """Reads an answer after which nothing is left to decide if the checkout is completed.

    Raises:
        ProtocolViolationError: Something on which money depends can't be read, and there is no order.
    """
    try:
        return read_answer(raw, source)
    except ProtocolViolationError:
        with contextlib.suppress(ProtocolViolationError):
            completed = read_completed(raw)
            return OrderPlaced(
                checkout_id=completed.id,
                order=order_facts(completed.order, completed.id),
                request_id=source.request_id,
                replayed=source.replayed,
            )
        raise


def answer_from_session(
    session: CheckoutSession,
    *,
    seller: str,
    api_base_url: str,
    request_id: str | None = None,
    replayed: bool = False,
) -> CheckoutAnswer:
    """Reduces a session to what decides. ``seller`` is the origin that was asked."""
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
        handlers_offered=_handlers_told(session),
        continue_url=session.continue_url,
        authentication=metadata.wire() if metadata else None,
        order=order_facts(session.order, session.id) if session.order else None,
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
                title=(option.title if option else "") or choice.option_id,
                amount=_price(option.totals) if option else None,
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
                parent_id=line.parent_id,
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

    It has to be one of ``KNOWN_HANDLERS`` at our processor: a token says nothing to another one, and the
    account's name there may be somebody else's here. One that requires raw card data can't be used. A lower
    ``display_order`` goes first; handlers without one count as 0, and ties keep the listed order.
    """
    usable = [
        handler
        for handler in _handlers(session)
        if handler.merchant_id
        and handler.name in KNOWN_HANDLERS
        and handler.psp.lower() == PROCESSOR
        and not handler.requires_pci_compliance
    ]
    return min(usable, key=_display_order, default=None)


def _handlers(session: CheckoutSession) -> tuple[PaymentHandler, ...]:
    payment = session.capabilities.payment
    return payment.handlers if payment else ()


def _handlers_told(session: CheckoutSession) -> tuple[str, ...]:
    told = [f"{handler.name} by {handler.psp}" for handler in _handlers(session)]
    return tuple(one[:MAX_HANDLER_TEXT_CHARS] for one in told[:MAX_HANDLERS_TOLD])


def _display_order(handler: PaymentHandler) -> int:
    return 0 if handler.display_order is None else handler.display_order


def order_facts(order: Order, checkout_id: str | None = None) -> OrderFacts:
    """Reduces an order to what a buyer follows; ``checkout_id`` is its checkout's, where that is known.

    Raises:
        ProtocolViolationError: Nobody says which checkout the order is of.
    """
    of_checkout = checkout_id if checkout_id is not None else order.checkout_session_id
    if of_checkout is None:
        raise ProtocolViolationError("the order", [("$.checkout_session_id", "is missing or can't be read")])
    totals = [total.amount for total in order.totals or () if total.type is TotalType.TOTAL]
    return OrderFacts(
        id=order.id,
        checkout_id=of_checkout,
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
    return CartFulfillment(
        type=option.type, id=option.id, title=option.title or option.id, amount=_price(option.totals)
    )


def _totals(totals: Iterable[Total]) -> tuple[CartTotal, ...]:
    return tuple(
        CartTotal(type=t.type.value, label=t.display_text or t.type.value, amount=t.amount) for t in totals
    )


def _price(totals: Iterable[Total]) -> int:
    """Returns an option's price: its total, else the sum of everything it lists."""
    listed = list(totals)
    stated = [t.amount for t in listed if t.type is TotalType.TOTAL]
    return stated[0] if stated else sum(t.amount for t in listed)


def _message(message: Message) -> CheckoutMessage:
    return CheckoutMessage(
        type=message.type,
        code=None if isinstance(message, MessageInfo) else str(message.code),
        param=message.param,
        text=message.content,
        resolution=message.resolution,
    )


def _earliest(*moments: str | None) -> datetime | None:
    return min((clamped(parse_rfc3339(moment)) for moment in moments if moment), default=None)
