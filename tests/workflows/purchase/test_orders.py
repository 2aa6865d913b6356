"""An order moves forward, in whatever order, however often and however late its seller speaks of it."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_loop import AUTO
from waystation.models.purchases import OrderEventReceived, OrderFacts
from workflows.purchase import Purchase
from workflows.purchase.orders import merged

PAGE = "https://shop.example/orders/1"
WAY = (
    "created",
    "processing",
    "shipped",
    "delivered",
    "completed",
    "partially_refunded",
    "refunded",
    "canceled",
)


def order(status: str | None = "created", **changes: Any) -> OrderFacts:
    given = {"id": "o", "checkout_id": "cs", "permalink_url": PAGE, "status": status}
    return OrderFacts.model_validate({**given, **changes})


def after(*said: OrderFacts) -> OrderFacts:
    known: OrderFacts | None = None
    for one in said:
        known = merged(known, one, is_later=True)
    assert known is not None
    return known


def refund(status: str, amount: int | None = 500, name: str = "r") -> dict[str, Any]:
    return {"id": name, "type": "refund", "status": status, "amount": amount, "currency": "usd"}


def parcel(status: str, **changes: Any) -> dict[str, Any]:
    return {"id": "p", "type": "shipping", "status": status, **changes}


statements = st.builds(
    lambda status, refunds, parcels: order(status, adjustments=refunds, fulfillments=parcels),
    st.sampled_from(WAY),
    st.lists(st.builds(refund, st.sampled_from(["pending", "completed"]), st.integers(1, 9)), max_size=1),
    st.lists(st.builds(parcel, st.sampled_from(["pending", "shipped", "delivered"])), max_size=1),
)


@given(st.lists(statements, min_size=1, max_size=4), st.data())
def test_the_order_of_arrival_does_not_matter(said: list[OrderFacts], data: st.DataObject) -> None:
    whole = after(*said)
    repeated = data.draw(st.lists(st.sampled_from(said), max_size=4))
    assert after(*data.draw(st.permutations([*said, *repeated]))) == whole
    assert after(*said, *said) == whole


@pytest.mark.parametrize(("earlier", "later"), list(itertools.combinations(WAY, 2)))
@pytest.mark.parametrize("is_later", [True, False])
def test_no_status_falls_back(earlier: str, later: str, is_later: bool) -> None:
    for first, second in ((earlier, later), (later, earlier)):
        assert merged(order(first), order(second), is_later=is_later).status == later


@pytest.mark.parametrize("status", ["canceled", "completed", "refunded", "delivered"])
def test_a_status_that_nobody_knows_ends_nothing_and_undoes_no_end(status: str) -> None:
    assert after(order("on_the_moon"), order(status)).status == status
    assert after(order(status), order("on_the_moon")).status == status
    assert after(order("processing"), order("on_the_moon")).status == "on_the_moon"


def test_between_equals_the_later_word_counts() -> None:
    assert after(order("processing"), order("manual_review"), order("processing")).status == "processing"
    assert merged(order("processing"), order("manual_review"), is_later=False).status == "processing"


def test_what_was_said_once_is_not_forgotten() -> None:
    whole = after(
        order(fulfillments=[parcel("shipped", tracking_number="1Z")], number="#1"),
        order("shipped", permalink_url=None, number=None, fulfillments=[parcel("delivered")]),
        order(None, fulfillments=[], adjustments=[refund("completed")]),
        order("shipped", adjustments=[refund("pending"), refund("failed", name="s")]),
    )
    assert (whole.permalink_url, whole.number, whole.status) == (PAGE, "#1", "shipped")
    assert [(one.status, one.tracking_number) for one in whole.fulfillments] == [("delivered", "1Z")]
    assert [(one.id, one.status) for one in whole.adjustments] == [("r", "completed"), ("s", "failed")]


def test_what_went_back_stays_back() -> None:
    whole = after(
        order(adjustments=[refund("completed", 700)]), order(adjustments=[refund("completed", 500)])
    )
    assert [one.amount for one in whole.adjustments] == [700]


# Against a seller


async def told(bought: Bought, number: int, said: OrderFacts) -> None:
    event = OrderEventReceived(event_id=f"e{number}", sent_at=number, type="order_update", order=said)
    await bought.handle.signal(Purchase.order_event, event)


async def test_a_canceled_order_does_not_ship_however_late_the_webhook_is(
    buyer: Buyer, seller: ScriptedSeller
) -> None:
    bought = await buyer.buy(terms=AUTO)
    known = (await bought.outcome()).order
    assert known is not None
    canceled = known.model_copy(update={"status": "canceled"})
    shipped = known.model_copy(update={"status": "shipped", "permalink_url": None})
    for number, said in enumerate([canceled, shipped, canceled, shipped], start=1):
        await told(bought, number, said)
    view = await bought.view()
    assert view.order is not None
    assert (view.order.status, view.order.permalink_url) == ("canceled", known.permalink_url)


async def test_a_webhook_makes_the_purchase_read_the_order(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert view.order is not None
    assert view.cart is not None
    session = seller.sessions[view.cart.checkout_id]
    parcel = {"id": "f1", "type": "shipping", "status": "delivered", "tracking_number": "1Z"}
    current = {**session["order"], "status": "completed", "fulfillments": [parcel]}
    seller.sessions[view.cart.checkout_id] = {**session, "order": current}
    await told(bought, 1, view.order)  # an old one, redelivered

    async def is_completed() -> bool:
        seen = (await bought.view()).order
        return seen is not None and seen.status == "completed"

    await eventually(is_completed, what="the order was read")
    seen = (await bought.view()).order
    assert seen is not None
    assert seen.fulfillments[0].tracking_number == "1Z"
    assert "order.read" in await bought.actions()


async def test_an_order_that_cannot_be_read_is_followed_by_its_webhooks(
    buyer: Buyer, seller: ScriptedSeller
) -> None:
    bought = await buyer.buy(terms=AUTO)
    known = (await bought.outcome()).order
    assert known is not None
    seller.twists["read"] = lambda session: {"id": session["id"]}
    await told(bought, 1, known.model_copy(update={"status": "shipped"}))

    async def was_tried() -> bool:
        return "checkout.unreadable" in await bought.actions()

    await eventually(was_tried, what="the order was to be read")
    seen = (await bought.view()).order
    assert seen is not None
    assert seen.status == "shipped"
