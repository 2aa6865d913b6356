"""What sellers state: strict where money depends on it, and nothing else can stand in the way."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.odd import HOW, How, changed, places
from tests.workflows.purchase.test_rules import SHOP, handler, message, option, request, session
from waystation.buyer.carts import Source, read_answer, read_answer_or_order
from waystation.protocols import acp
from waystation.rfc3339 import parse_rfc3339
from workflows.purchase import carts, rules
from workflows.purchase.charges import order_in

SOURCE = Source(SHOP, SHOP)
ORDER = {
    "id": "order_1",
    "checkout_session_id": "cs_1",
    "permalink_url": "https://shop.example/orders/1",
    "status": "created",
    "adjustments": [],
    "totals": [{"type": "total", "display_text": "Total", "amount": 2480}],
}
FULL = session(
    links=[{"type": "faq", "url": "https://shop.example/faq", "title": "Questions"}],
    messages=[
        {"type": "info", "content_type": "plain", "content": "Hello"},
        {"type": "warning", "code": "low_stock", "content_type": "plain", "content": "Few left"},
        message("payment_declined"),
    ],
    buyer={"email": "alice@example.com"},
    capabilities={"payment": {"handlers": [handler()]}, "interventions": {"supported": ["3ds"]}},
    updated_at="2026-05-01T12:00:00Z",
    metadata={"a": "b"},
    locale="en-US",
)
FULL["line_items"][0].update(name="Mug", images=["https://shop.example/mug.png"], tags=["cup"])
JUNK = st.sampled_from([None, 7, 1.5, True, "", "brand_new", [], {}, [None], {"x": 1}, "x" * 30_000])


DECIDES = {
    # What is in these four decides too, so far as it can be read.
    "": acp.CheckoutSession.DECIDES | {"capabilities", "fulfillment_options", "messages", "payment"},
    "line_items": acp.LineItem.DECIDES,
    "item": acp.Item.DECIDES,
    "totals": acp.Total.DECIDES,
    "handlers": acp.PaymentHandler.DECIDES,
    "capabilities": acp.Capabilities.DECIDES,
    "payment": {"handlers"},
    "messages": {"type", "code"},
}


def is_only_shown(at: tuple[str | int, ...]) -> bool:
    """Whether money doesn't depend on a place: on its way there is a field that decides nothing."""
    shape = ""
    for key in at:
        if isinstance(key, int):
            continue
        if shape in DECIDES and key not in DECIDES[shape]:
            return True
        shape = key
    return False


SHOWN = [at for at in places(FULL) if is_only_shown(at)]


@given(
    st.lists(st.tuples(st.sampled_from(SHOWN), JUNK, HOW), min_size=1, max_size=4, unique_by=lambda t: t[0])
)
def test_what_is_only_shown_never_changes_what_is_paid(changes: list[tuple[Any, Any, How]]) -> None:
    honest = carts.check_cart(request(), read_answer(json.dumps(FULL), SOURCE))
    document = FULL
    for at, junk, how in changes:
        document = changed(document, at, junk, how)
    read = read_answer(json.dumps(document), SOURCE)
    payable = carts.check_cart(request(), read)
    assert (payable.total, payable.payee, payable.handler) == (honest.total, honest.payee, honest.handler)
    assert rules.next_preparation(request(), read).step == "ready"


COMPLETED = {**FULL, "status": "completed", "order": ORDER}
AFTER_PAYING = [
    at for at in places(COMPLETED) if at not in (("id",), ("status",), ("order",), ("order", "id"))
]


@given(st.lists(st.tuples(st.sampled_from(AFTER_PAYING), JUNK, HOW), min_size=1, max_size=6))
def test_after_paying_nothing_but_the_order_matters(changes: list[tuple[Any, Any, How]]) -> None:
    document = COMPLETED
    for at, junk, how in changes:
        document = changed(document, at, junk, how)
    order = order_in(read_answer_or_order(json.dumps(document), SOURCE), "cs_1")
    assert order is not None
    assert order.id == "order_1"


@pytest.mark.parametrize(
    "bare", [{}, {"line_items": 7}, {"totals": None, "currency": "XXX", "messages": "no"}]
)
def test_a_bare_order_is_one(bare: dict[str, Any]) -> None:
    raw = json.dumps({"id": "cs_1", "status": "completed", "order": {"id": "order_1"}, **bare})
    order = order_in(read_answer_or_order(raw, SOURCE), "cs_1")
    assert order is not None
    assert (order.id, order.checkout_id, order.permalink_url) == ("order_1", "cs_1", None)


@pytest.mark.parametrize(
    "other",
    [
        {"status": "canceled"},
        {"status": "ready_for_payment"},
        {"status": "surely paid"},
        {"order": None},
        {"order": {"id": 7}},
        {"order": {}},
        {"id": None},
    ],
)
def test_without_an_order_there_is_none(other: dict[str, Any]) -> None:
    raw = json.dumps({"id": "cs_1", "status": "completed", "order": {"id": "order_1"}, **other})
    with pytest.raises(acp.ProtocolViolationError):
        read_answer_or_order(raw, SOURCE)


def test_the_order_of_another_checkout_is_not_ours() -> None:
    raw = json.dumps({"id": "cs_2", "status": "completed", "order": {"id": "order_1"}})
    assert order_in(read_answer_or_order(raw, SOURCE), "cs_1") is None


def test_an_error_stays_one_whatever_its_code() -> None:
    for odd in ({"code": "brand_new"}, {"code": 7}, {"content": None}, {"severity": "dire"}):
        read = read_answer(json.dumps({**FULL, "messages": [{**message("out_of_stock"), **odd}]}), SOURCE)
        assert [one.type for one in read.messages] == ["error"]
        assert rules.next_preparation(request(), read).step == "revise"


def test_an_option_that_cannot_be_read_is_not_offered() -> None:
    drone = {**option("drone", 1), "type": "drone"}
    read = read_answer(json.dumps({**FULL, "fulfillment_options": [drone, option("slow", 500)]}), SOURCE)
    assert [one.id for one in read.options] == ["slow"]


# Times


VALID = {
    "2026-04-17T12:00:00Z": "2026-04-17T12:00:00+00:00",
    "2026-04-17t12:00:00z": "2026-04-17T12:00:00+00:00",
    "2026-04-17 12:00:00Z": "2026-04-17T12:00:00+00:00",
    "2026-04-17T12:00:00.5Z": "2026-04-17T12:00:00.500000+00:00",
    "2026-04-17T12:00:00.123456789Z": "2026-04-17T12:00:00.123456+00:00",
    "2026-04-17T12:00:00.0000000000000000001Z": "2026-04-17T12:00:00+00:00",
    "1963-06-19T08:30:06.283185Z": "1963-06-19T08:30:06.283185+00:00",
    "1937-01-01T12:00:27.87+00:20": "1937-01-01T11:40:27.870000+00:00",
    "1990-12-31T15:59:50.123-08:00": "1990-12-31T23:59:50.123000+00:00",
    "2026-04-17T12:00:00-00:00": "2026-04-17T12:00:00+00:00",
    "2026-04-17T12:00:00+23:59": "2026-04-16T12:01:00+00:00",
    "1998-12-31T23:59:60Z": "1999-01-01T00:00:00+00:00",
    "1998-12-31T15:59:60.123-08:00": "1999-01-01T00:00:00+00:00",
    "2024-02-29T00:00:00Z": "2024-02-29T00:00:00+00:00",
}
INVALID = [
    "2026-04-17T12:00:00",
    "2026-04-17T12:00Z",
    "2026-04-17T12Z",
    "2026-04-17",
    "20260417T120000Z",
    "2026-W16-5T12:00:00Z",
    "2026-107T12:00:00Z",
    "2026-04-17T12:00:00,5Z",
    "2026-04-17T12:00:00.Z",
    "2026-04-17T12:00:00+0200",
    "2026-04-17T12:00:00+02",
    "2026-04-17T12:00:00+24:00",
    "2026-04-17T12:00:00+01:60",
    "2026-04-17T12:00:00+01:00:30",
    "2026-04-17T12:00:00+01:00Z",
    "2026-04-17T24:00:00Z",
    "2026-04-17T12:60:00Z",
    "2026-04-17T12:00:61Z",
    "1998-12-31T23:58:60Z",
    "1998-12-31T22:59:60Z",
    "2026-02-29T12:00:00Z",
    "2026-4-17T12:00:00Z",
    "2026-04-1৪T00:00:00Z",
    "+12026-04-17T12:00:00Z",
    " 2026-04-17T12:00:00Z",
    "2026-04-17T12:00:00Z\n",
    "9999-12-31T23:59:59-01:00",
    "",
]


@pytest.mark.parametrize("text", VALID)
def test_a_valid_time_names_its_moment(text: str) -> None:
    assert parse_rfc3339(text).isoformat() == VALID[text]


@pytest.mark.parametrize("text", INVALID)
def test_no_other_time_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be an RFC 3339|doesn't exist"):
        parse_rfc3339(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_that_is_written_is_read(aware: datetime) -> None:
    assert parse_rfc3339(aware.isoformat()) == aware
    assert parse_rfc3339(aware.isoformat().replace("+00:00", "z").lower()) == aware
