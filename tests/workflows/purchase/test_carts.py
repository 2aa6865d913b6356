"""Carts as sellers really state them: taxes within prices, bundles, gifts, handlers, messages, quotes."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.workflows.purchase.test_rules import (
    NOW,
    SHOP,
    amounts,
    answer,
    handler,
    line,
    message,
    option,
    refused,
    request,
    session,
)
from waystation.buyer.carts import Source, read_answer
from waystation.protocols import acp
from waystation.protocols.acp.totals import problems_of_totals
from workflows.purchase import carts, rules
from workflows.purchase.rules import PurchaseRefusal


def priced(**changes: Any) -> int:
    return carts.check_cart(request(), answer(**changes)).total.amount


GIFT = {**line("sticker", 1, 0), "id": "li_gift"}
DISCOUNTED_GIFT = {
    **line("sticker", 1, 300),
    "id": "li_gift",
    "totals": amounts(items_base_amount=300, items_discount=300, subtotal=0, total=0),
}
PART = {**line("handle", 2, 0), "id": "li_part", "parent_id": "li_mug"}
PRICED_PART = {**line("handle", 2, 400), "id": "li_part", "parent_id": "li_mug"}
PLAIN = amounts(items_base_amount=1800, subtotal=1800, tax=180, fulfillment=500, total=2480)


# Sums


@pytest.mark.parametrize(
    ("lines", "totals"),
    [
        # Stated for information: the prices have the tax in them.
        ([amounts(items_base_amount=1800, total=1800)], amounts(subtotal=1800, tax=300, total=1800)),
        (
            [amounts(items_base_amount=1800, subtotal=1800, tax=300, total=1800)],
            amounts(items_base_amount=1800, subtotal=1800, tax=300, fulfillment=500, total=2300),
        ),
        (
            [amounts(items_base_amount=1800, items_discount=200, subtotal=1600, tax=267, total=1600)],
            amounts(items_base_amount=1800, items_discount=200, subtotal=1600, tax=267, total=1600),
        ),
    ],
)
def test_prices_may_include_the_tax(lines: list[Any], totals: list[Any]) -> None:
    stated = [{**line("mug", 2, 900), "totals": one} for one in lines]
    read = acp.read_session(json.dumps(session(line_items=stated, totals=totals)))
    assert problems_of_totals(read) == ()


@pytest.mark.parametrize(
    ("line_totals", "totals"),
    [
        # The lines add their tax, so the whole must.
        (amounts(subtotal=1800, tax=180, total=1980), amounts(subtotal=1800, tax=180, total=1800)),
        # The lines have no tax, so a tax in the whole is none of theirs.
        (amounts(subtotal=1800, tax=0, total=1800), amounts(subtotal=1800, tax=180, total=1800)),
        (amounts(items_base_amount=1800, total=1800), amounts(subtotal=1800, tax=180, total=1900)),
    ],
)
def test_a_tax_is_included_everywhere_or_nowhere(line_totals: list[Any], totals: list[Any]) -> None:
    stated = [{**line("mug", 2, 900), "totals": line_totals}]
    read = acp.read_session(json.dumps(session(line_items=stated, totals=totals)))
    assert problems_of_totals(read) != ()


# Lines


@pytest.mark.parametrize(
    "lines",
    [
        [line("mug", 2, 900), GIFT],
        [line("mug", 2, 900), {**line("mug", 1, 0), "id": "li_gift"}],
        [line("mug", 2, 900), PART],
        [line("mug", 2, 900), PRICED_PART],
        [line("mug", 1, 900), {**line("mug", 1, 900), "id": "li_2"}],
    ],
)
def test_gifts_and_parts_of_bundles_are_no_additions(lines: list[Any]) -> None:
    assert priced(line_items=lines, totals=PLAIN) == 2480


def test_a_gift_may_be_discounted_to_nothing() -> None:
    totals = amounts(items_base_amount=2100, items_discount=300, subtotal=1800, total=1800)
    assert priced(line_items=[line("mug", 2, 900), DISCOUNTED_GIFT], totals=totals) == 1800


@pytest.mark.parametrize(
    ("lines", "goods", "rule"),
    [
        ([line("mug", 2, 900), line("insurance", 1, 100)], 1900, "items_added"),
        # Hung onto what was asked for, and charged: no part of it.
        ([line("mug", 2, 900), {**line("insurance", 1, 100), "parent_id": "li_mug"}], 1900, "items_added"),
        # A part of something that nobody asked for.
        ([line("mug", 2, 900), {**PRICED_PART, "parent_id": "li_else"}], 2600, "items_added"),
        ([line("mug", 2, 900), {**line("mug", 1, 900), "id": "li_2"}], 2700, "quantity_changed"),
        ([line("mug", 1, 900), {**line("mug", 2, 0), "id": "li_2"}], 900, "quantity_changed"),
        ([GIFT], 0, "items_missing"),
        (
            [{**line("mug", 2, 900), "parent_id": "li_y"}, line("pot", 1, 1)],
            1801,
            "items_added",
        ),
    ],
)
def test_whatever_else_costs_something_is_refused(lines: list[Any], goods: int, rule: str) -> None:
    totals = amounts(items_base_amount=goods, subtotal=goods, total=goods)
    assert refused(line_items=lines, totals=totals) == rule


def test_a_line_without_a_stated_price_is_no_gift() -> None:
    silent = {"id": "li_x", "item": {"id": "insurance"}, "quantity": 1, "totals": []}
    assert refused(line_items=[line("mug", 2, 900), silent]) == "items_added"


def test_an_option_that_is_not_offered_has_no_price() -> None:
    chosen = [{"type": "shipping", "option_id": "teleport", "item_ids": ["mug"]}]
    assert refused(selected_fulfillment_options=chosen) == "fulfillment_option_not_offered"
    assert refused(fulfillment_options=[]) == "fulfillment_option_not_offered"


# Payment handlers


@pytest.mark.parametrize(
    "changes",
    [
        {"psp": "adyen"},
        {"psp": "seller_managed"},
        {"psp": ""},
        {"name": "dev.acp.seller_backed.saved_card"},
        {"name": "com.adyen.card"},
        {"requires_pci_compliance": True},
        {"config": {}},
        {"config": {"merchant_id": 7}},
    ],
)
def test_only_a_known_handler_at_our_processor_is_paid(changes: dict[str, Any]) -> None:
    foreign = {"payment": {"handlers": [{**handler("account_elsewhere"), **changes}]}}
    with pytest.raises(PurchaseRefusal, match="Stripe") as caught:
        carts.check_cart(request(), answer(capabilities=foreign))
    assert caught.value.rule == "no_payment_handler"
    both = {"payment": {"handlers": [{**handler("elsewhere"), **changes, "id": "first"}, handler()]}}
    assert carts.check_cart(request(), answer(capabilities=both)).handler == "card_tokenized"


def test_what_the_seller_offers_instead_is_told() -> None:
    foreign = {"payment": {"handlers": [{**handler(), "psp": "adyen"}]}}
    with pytest.raises(PurchaseRefusal, match=r"dev\.acp\.tokenized\.card by adyen"):
        carts.check_cart(request(), answer(capabilities=foreign))


# Messages


@pytest.mark.parametrize("code", [*sorted(acp.MessageErrorCode), "brand_new"])
def test_an_error_stands_against_paying_unless_it_is_known_not_to(code: str) -> None:
    stated = answer(messages=[message(code)])
    harmless = {"payment_declined", "requires_3ds", "low_stock", "coupon_invalid", "coupon_expired"}
    step = rules.next_preparation(request(), stated).step
    assert step == ("ready" if code in harmless else "revise"), code


# Quotes


@pytest.mark.parametrize("field", ["expires_at", "quote_expires_at"])
@pytest.mark.parametrize(("ahead", "good"), [(1, True), (0, False), (-1, False)])
def test_an_expired_quote_is_not_paid(field: str, ahead: int, good: bool) -> None:
    ends = (NOW + timedelta(seconds=ahead)).isoformat().replace("+00:00", "z").lower()
    stated = answer(**{field: ends})
    if good:
        rules.check_quote(stated, now=NOW)
        return
    with pytest.raises(PurchaseRefusal) as caught:
        rules.check_quote(stated, now=NOW)
    assert (caught.value.rule, caught.value.outcome) == ("quote_expired", "expired")


def test_a_quote_whose_end_cannot_be_read_is_not_taken_for_endless() -> None:
    with pytest.raises(acp.ProtocolViolationError, match="quote_expires_at"):
        read_answer(json.dumps(session(quote_expires_at="tomorrow")), Source(SHOP, SHOP))


def test_parts_do_not_change_what_is_bought() -> None:
    payable = carts.check_cart(request(), answer(line_items=[line("mug", 2, 900), PART], totals=PLAIN))
    assert payable.item_ids == ("mug",)
    gift = carts.check_cart(request(), answer(line_items=[line("mug", 2, 900), GIFT], totals=PLAIN))
    assert gift.item_ids == ("mug", "sticker")


# Where it goes

HOME = {"name": "A", "line_one": "1", "city": "B", "state": "C", "country": "US", "postal_code": "1"}
ASKED = {"name": "A", "address": HOME}
PLACES = {"pickup": {"location": {"name": "Shop", "address": HOME}}}


def chosen(*types: str) -> dict[str, Any]:
    """A cart with these ways of getting the goods."""
    return {
        "fulfillment_options": [option(f"way_{kind}", 500, kind) | PLACES.get(kind, {}) for kind in types],
        "selected_fulfillment_options": [
            {"type": kind, "option_id": f"way_{kind}", "item_ids": ["mug"]} for kind in types
        ],
    }


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({**chosen("shipping"), "fulfillment_details": ASKED}, ("US", True)),
        (chosen("shipping"), (None, True)),
        ({**chosen("shipping"), "fulfillment_details": {"name": "A"}}, (None, True)),
        (chosen("local_delivery"), (None, True)),
        (chosen("digital", "shipping"), (None, True)),
        ({**chosen(), "totals": amounts(items_base_amount=1800, total=1800)}, (None, True)),
        (chosen("digital"), (None, False)),
        (chosen("digital", "pickup"), (None, False)),
    ],
)
def test_where_it_goes_is_what_the_cart_says(changes: dict[str, Any], where: tuple[str | None, bool]) -> None:
    wanted = request(fulfillment_details=ASKED)
    payable = carts.check_cart(wanted, answer(**changes))
    assert (payable.ship_to_country, payable.is_sent) == where
