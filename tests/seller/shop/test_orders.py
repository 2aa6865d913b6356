"""Orders after the sale: what was sent and what has arrived is counted, and the states follow from that."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.protocols import acp
from waystation.seller.shop import orders
from waystation.seller.shop.records import OrderRecord

LINES = {"li_tea": 3, "li_cup": 1}
NOW = 1_800_000_000


def order() -> acp.Order:
    lines = tuple(
        acp.OrderLineItem(id=line, title=line, quantity=acp.OrderQuantity(ordered=n, current=n, fulfilled=0))
        for line, n in LINES.items()
    )
    return acp.Order(
        type="order",
        id="ord_1",
        checkout_session_id="cs_1",
        permalink_url="https://shop.test/1",
        status="created",
        line_items=lines,
    )


def parcel(name: str, **held: int) -> acp.Fulfillment:
    items = tuple(acp.LineItemReference(id=line, quantity=n) for line, n in held.items())
    return acp.Fulfillment(id=name, type="shipping", line_items=items or None)


def fulfilled(changed: acp.Order) -> dict[str, int | None]:
    return {line.id: line.quantity.fulfilled for line in changed.line_items or ()}


def test_one_of_four_items_delivered_is_no_delivered_order() -> None:
    one = orders.shipped(order(), parcel("p1", li_tea=1), NOW)
    assert (one.status, fulfilled(one)) == ("processing", {"li_tea": 1, "li_cup": 0})
    arrived = orders.delivered(one, "p1", NOW)
    assert arrived.status == "processing"
    assert [line.status for line in arrived.line_items or ()] == ["partial", "processing"]
    rest = orders.shipped(arrived, parcel("p2"), NOW)
    assert (rest.status, fulfilled(rest)) == ("shipped", LINES)
    assert orders.delivered(rest, "p2", NOW).status == "delivered"


def test_the_same_parcel_again_changes_nothing() -> None:
    once = orders.shipped(order(), parcel("p1", li_tea=2), NOW)
    assert orders.shipped(once, parcel("p1", li_tea=2), NOW + 60) == once
    arrived = orders.delivered(once, "p1", NOW)
    assert orders.delivered(arrived, "p1", NOW + 60) == arrived
    assert orders.shipped(arrived, parcel("p1", li_tea=2), NOW + 60) == arrived


def test_a_parcel_with_the_same_id_replaces_the_one_before() -> None:
    once = orders.shipped(order(), parcel("p1", li_tea=3), NOW)
    again = orders.shipped(once, parcel("p1", li_tea=1, li_cup=1), NOW)
    assert fulfilled(again) == {"li_tea": 1, "li_cup": 1}
    assert len(again.fulfillments or ()) == 1


@pytest.mark.parametrize(
    ("held", "message"), [({"li_tea": 4}, "more of line item"), ({"li_hat": 1}, "no line item")]
)
def test_a_parcel_holds_only_what_was_ordered(held: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        orders.shipped(order(), parcel("p1", **held), NOW)


def test_no_parcel_brings_a_refunded_order_back() -> None:
    record = orders.refunded(paid(), "re_1", 1_000, "sorry", NOW, key="k")
    assert orders.shipped(record.order, parcel("p1"), NOW).status == "refunded"


steps = st.lists(
    st.tuples(
        st.sampled_from(["ship", "deliver"]),
        st.sampled_from(["p1", "p2", "p3"]),
        st.dictionaries(st.sampled_from(sorted(LINES)), st.integers(1, 4), min_size=1),
    ),
    max_size=12,
)


@given(steps)
def test_whatever_is_said_in_whatever_order_the_counts_are_those_of_the_parcels(steps: list[Any]) -> None:
    changed, held, arrived = order(), dict[str, dict[str, int]](), set[str]()
    for step, name, items in steps:
        try:
            if step == "ship":
                changed = orders.shipped(changed, parcel(name, **items), NOW)
                held[name] = items
            else:
                changed = orders.delivered(changed, name, NOW)
                arrived.add(name)
        except ValueError:
            continue
    sent = {line: sum(items.get(line, 0) for items in held.values()) for line in LINES}
    there = {line: sum(held[name].get(line, 0) for name in arrived) for line in LINES}
    assert fulfilled(changed) == sent
    assert all(sent[line] <= LINES[line] for line in LINES)
    assert (changed.status == "delivered") is (there == LINES)


def paid() -> OrderRecord:
    return OrderRecord(
        order=order(), identity="a", currency="usd", total=1_000, payment_intent_id="pi_1", created_at=NOW
    )


@pytest.mark.parametrize("amount", [0, -1, 1_001, True, 1.5, "5"])
def test_a_refund_is_checked_before_it_is_made(amount: Any) -> None:
    with pytest.raises(ValueError, match=r"refund"):
        orders.check_refund(paid(), amount, "k")


def test_refunds_never_exceed_what_is_left_and_a_key_refunds_once() -> None:
    record = orders.refunded(paid(), "re_1", 600, "sorry", NOW, key="k")
    assert orders.check_refund(record, 600, "k") is True
    assert orders.check_refund(record, 400, "other") is False
    for amount, key in ((401, "other"), (500, "k")):
        with pytest.raises(ValueError, match="refund"):
            orders.check_refund(record, amount, key)
    assert record.order.status == "partially_refunded"
    assert orders.refunded(record, "re_2", 400, "sorry", NOW, key="other").order.status == "refunded"
