"""Turns a merchant's quote into the protocol's line items, totals, options, messages and status. Pure.

Totals add up by construction: ``subtotal = items - items_discount`` and ``total = subtotal - discount +
fulfillment + tax + fee``.
"""

from collections.abc import Sequence
from typing import Final

from waystation.protocols import acp
from waystation.protocols.acp import (
    CheckoutStatus,
    MessageError,
    MessageErrorCode,
    MessageWarning,
    MessageWarningCode,
    Total,
    TotalType,
)
from waystation.seller.shop.merchant import Basket, Quote, QuotedLine, QuotedOption

LOW_STOCK_UNITS: Final = 3

NEEDS_ADDRESS: Final = frozenset({"shipping", "local_delivery"})


def line_id(index: int) -> str:
    return f"li_{index + 1}"


def line_items(quote: Quote) -> tuple[acp.LineItem, ...]:
    """Returns one line item for each quoted line, in its order."""
    return tuple(_line_item(index, line) for index, line in enumerate(quote.lines))


def _line_item(index: int, line: QuotedLine) -> acp.LineItem:
    totals = [Total(type=TotalType.ITEMS_BASE_AMOUNT, display_text="Base amount", amount=line.base_amount)]
    if line.discount:
        totals.append(Total(type=TotalType.ITEMS_DISCOUNT, display_text="Discount", amount=line.discount))
    subtotal = line.base_amount - line.discount
    totals += [
        Total(type=TotalType.SUBTOTAL, display_text="Subtotal", amount=subtotal),
        Total(type=TotalType.TAX, display_text="Tax", amount=line.tax),
        Total(type=TotalType.TOTAL, display_text="Total", amount=subtotal + line.tax),
    ]
    return acp.LineItem(
        id=line_id(index),
        item=acp.Item(id=line.item_id, name=line.name, unit_amount=line.unit_amount),
        quantity=line.quantity,
        name=line.name,
        description=line.description,
        images=line.image_urls or None,
        unit_amount=line.unit_amount,
        availability_status=_availability(line),
        available_quantity=line.available_quantity,
        max_quantity_per_order=line.max_quantity,
        custom_attributes=tuple(
            acp.CustomAttribute(display_name=name, value=value) for name, value in line.attributes.items()
        )
        or None,
        totals=tuple(totals),
    )


def _availability(line: QuotedLine) -> acp.AvailabilityStatus:
    if not line.in_stock:
        return "out_of_stock"
    scarce = line.available_quantity is not None and line.available_quantity <= LOW_STOCK_UNITS
    return "low_stock" if scarce else "in_stock"


def options(quote: Quote) -> tuple[acp.FulfillmentOption, ...]:
    """Returns the quoted options in the protocol's shapes."""
    return tuple(_option(option) for option in quote.options)


def _option(option: QuotedOption) -> acp.FulfillmentOption:
    totals = (Total(type=TotalType.TOTAL, display_text=option.title, amount=option.amount),)
    if option.type == "pickup":
        if option.pickup_location is None:
            raise ValueError(f"the pickup option {option.id!r} needs a pickup_location")
        return acp.PickupOption(
            id=option.id,
            title=option.title,
            description=option.description,
            location=option.pickup_location,
            totals=totals,
        )
    if option.type == "digital":
        return acp.DigitalOption(
            id=option.id, title=option.title, description=option.description, totals=totals
        )
    if option.type == "local_delivery":
        return acp.LocalDeliveryOption(
            id=option.id, title=option.title, description=option.description, totals=totals
        )
    return acp.ShippingOption(
        id=option.id,
        title=option.title,
        description=option.description,
        carrier=option.carrier,
        earliest_delivery_time=option.earliest_delivery_time,
        latest_delivery_time=option.latest_delivery_time,
        totals=totals,
    )


def selection(basket: Basket, quote: Quote) -> tuple[acp.SelectedFulfillmentOption, ...]:
    """Returns which option each type of goods goes by: what the agent chose, or the only one there is.

    (Pickup is never chosen for a buyer who expects a parcel.)

    Choices that don't fit the cart (any more) are dropped; the readiness check then asks again.
    """
    chosen: list[acp.SelectedFulfillmentOption] = []
    for kind in dict.fromkeys(line.fulfilled_by for line in quote.lines):
        lines = [line for line in quote.lines if line.fulfilled_by == kind]
        fitting = [option for option in quote.options if option_serves(option, kind)]
        wanted = [pick.option_id for pick in basket.selected_options]
        picked = next((option for option in fitting if option.id in wanted), None)
        if picked is None and [option.type for option in fitting] == [kind]:
            picked = fitting[0]
        if picked is not None:
            chosen.append(
                acp.SelectedFulfillmentOption(
                    type=picked.type, option_id=picked.id, item_ids=tuple(line.item_id for line in lines)
                )
            )
    return tuple(chosen)


def option_serves(option: QuotedOption, kind: str) -> bool:
    """Returns whether an option fits: digital goods need a digital one, physical goods any physical one."""
    return (option.type == "digital") == (kind == "digital")


def selected_options(basket: Basket, quote: Quote) -> list[QuotedOption]:
    ids = {pick.option_id for pick in selection(basket, quote)}
    return [option for option in quote.options if option.id in ids]


def totals(basket: Basket, quote: Quote) -> tuple[Total, ...]:
    """Returns the session's totals, with the selected options' costs."""
    chosen = selected_options(basket, quote)
    base = sum(line.base_amount for line in quote.lines)
    items_discount = sum(line.discount for line in quote.lines)
    discount = sum(one.amount for one in quote.discounts if not one.per_line)
    fulfillment = sum(option.amount for option in chosen)
    tax = sum(line.tax for line in quote.lines) + sum(option.tax for option in chosen)
    subtotal = base - items_discount
    found = [Total(type=TotalType.ITEMS_BASE_AMOUNT, display_text="Item(s) total", amount=base)]
    if items_discount:
        found.append(
            Total(type=TotalType.ITEMS_DISCOUNT, display_text="Item discounts", amount=items_discount)
        )
    found.append(Total(type=TotalType.SUBTOTAL, display_text="Subtotal", amount=subtotal))
    if discount:
        found.append(Total(type=TotalType.DISCOUNT, display_text="Discount", amount=discount))
    if chosen:
        found.append(Total(type=TotalType.FULFILLMENT, display_text="Fulfillment", amount=fulfillment))
    found.append(Total(type=TotalType.TAX, display_text="Tax", amount=tax))
    found += [Total(type=TotalType.FEE, display_text=fee.text, amount=fee.amount) for fee in quote.fees]
    fees = sum(fee.amount for fee in quote.fees)
    whole = subtotal - discount + fulfillment + tax + fees
    found.append(Total(type=TotalType.TOTAL, display_text="Total", amount=whole))
    return tuple(found)


def total_amount(basket: Basket, quote: Quote) -> int:
    return totals(basket, quote)[-1].amount


def discounts(basket: Basket, quote: Quote) -> acp.DiscountsResponse | None:
    if not (basket.discount_codes or quote.discounts):
        return None
    return acp.DiscountsResponse(
        codes=basket.discount_codes,
        applied=tuple(
            acp.AppliedDiscount(
                id=f"disc_{index + 1}",
                code=one.code,
                coupon=one.coupon,
                amount=one.amount,
                automatic=one.code is None,
            )
            for index, one in enumerate(quote.discounts)
        ),
        rejected=quote.rejected_codes,
    )


def messages(basket: Basket, quote: Quote) -> tuple[acp.Message, ...]:
    """Returns what prevents payment, and what the buyer should know."""
    found: list[acp.Message] = [*quote.messages]
    for index, line in enumerate(quote.lines):
        found += _stock_messages(index, line)
    found += _fulfillment_messages(basket, quote)
    if _buyer_email(basket) is None:
        found.append(missing("$.buyer.email", "The buyer's email address is needed for the receipt."))
    for index, code in enumerate(basket.discount_codes):
        found += [
            MessageWarning(
                code=rejected.reason,
                param=f"$.discounts.codes[{index}]",
                content=rejected.message or f"The code '{code}' does not apply.",
                resolution="recoverable",
            )
            for rejected in quote.rejected_codes
            if rejected.code == code
        ]
    return tuple(found)


def missing(param: str, content: str) -> MessageError:
    return MessageError(
        code=MessageErrorCode.MISSING, param=param, content=content, resolution="recoverable", severity="high"
    )


def _stock_messages(index: int, line: QuotedLine) -> list[acp.Message]:
    param = f"$.line_items[{index}]"
    if not line.in_stock:
        content = f"'{line.name}' is not available in that quantity: {line.available_quantity} left."
        return [
            MessageError(
                code=MessageErrorCode.OUT_OF_STOCK, param=param, content=content, resolution="recoverable"
            )
        ]
    if line.max_quantity is not None and line.quantity > line.max_quantity:
        content = f"At most {line.max_quantity} of '{line.name}' per order."
        return [
            MessageError(
                code=MessageErrorCode.QUANTITY_EXCEEDED,
                param=param,
                content=content,
                resolution="recoverable",
            )
        ]
    if _availability(line) == "low_stock":
        content = f"Only {line.available_quantity} of '{line.name}' left."
        return [MessageWarning(code=MessageWarningCode.LOW_STOCK, param=param, content=content)]
    return []


def _fulfillment_messages(basket: Basket, quote: Quote) -> list[acp.Message]:
    kinds = {line.fulfilled_by for line in quote.lines}
    if kinds & NEEDS_ADDRESS and basket.address is None and not _picked_up(basket, quote):
        return [missing("$.fulfillment_details.address", "A delivery address is needed.")]
    chosen = selected_options(basket, quote)
    uncovered = [kind for kind in kinds if not any(option_serves(option, kind) for option in chosen)]
    if not uncovered:
        return []
    if not any(option_serves(option, uncovered[0]) for option in quote.options):
        return [
            MessageError(
                code=MessageErrorCode.REGION_RESTRICTED,
                param="$.fulfillment_details.address",
                content="These goods can't be delivered to that address.",
                resolution="recoverable",
            )
        ]
    return [missing("$.selected_fulfillment_options", "Select a fulfillment option.")]


def _picked_up(basket: Basket, quote: Quote) -> bool:
    return any(option.type == "pickup" for option in selected_options(basket, quote))


def _buyer_email(basket: Basket) -> str | None:
    if basket.buyer is not None:
        return basket.buyer.email
    return basket.fulfillment_details.email if basket.fulfillment_details else None


def open_status(basket: Basket, quote: Quote, more: Sequence[acp.Message] = ()) -> CheckoutStatus:
    """Returns the status of a checkout that nobody is paying at the moment."""
    if quote.continue_url is not None:
        return CheckoutStatus.REQUIRES_ESCALATION
    if not quote.lines:
        return CheckoutStatus.INCOMPLETE
    if any(isinstance(message, MessageError) for message in (*messages(basket, quote), *more)):
        return CheckoutStatus.NOT_READY_FOR_PAYMENT
    if total_amount(basket, quote) < 0:
        raise ValueError("a quote's discounts are larger than its prices")
    return CheckoutStatus.READY_FOR_PAYMENT
