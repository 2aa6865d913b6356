"""Whatever a seller sends: the documented value or the documented refusal."""

import contextlib
import copy
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from activities.failures import SELLER_REFUSED, SELLER_UNAVAILABLE, seller_error
from tests.odd import ANYTHING, BROKEN_JSON, TEXTS, altered
from tests.protocols.acp.test_reading import COMPLETED, FULL, ORDER, SOURCE
from tests.workflows.purchase.test_rules import request
from waystation.buyer.carts import order_facts, read_answer, read_answer_or_order
from waystation.models.money import Money
from waystation.models.purchases import CheckoutAnswer, OrderEventReceived, OrderPlaced, PayableCart
from waystation.protocols import acp
from waystation.protocols.acp import dialects
from waystation.protocols.acp.webhooks import (
    WEBHOOK_TOLERANCE_SECONDS,
    InvalidSignatureError,
    sign_webhook,
    verify_webhook,
)
from waystation.retry_after import MAX_RETRY_AFTER_SECONDS
from workflows.purchase import carts, rules
from workflows.purchase.charges import order_in

PAID = Money(amount=2480, currency="usd")


def raw(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    nearly = altered(document).map(lambda value: json.dumps(value).encode())
    others = BROKEN_JSON | st.binary(max_size=40) | ANYTHING.map(lambda value: json.dumps(value).encode())
    return st.integers(0, 7).flatmap(lambda number: nearly if number else others)


@given(raw(FULL) | raw(COMPLETED))
def test_every_answer_is_read_and_decided_on_or_refused(body: bytes) -> None:
    try:
        answer = read_answer(body, SOURCE)
    except acp.ProtocolViolationError:
        return
    assert CheckoutAnswer.model_validate_json(answer.model_dump_json()) == answer
    try:
        assert rules.next_preparation(request(), answer).step
        payable = carts.check_cart(request(), answer)
    except rules.PurchaseRefusal:
        return
    assert isinstance(payable, PayableCart)
    assert payable.total.amount > 0
    assert carts.cart_digest(answer.cart) == carts.cart_digest(read_answer(body, SOURCE).cart)


@given(raw(COMPLETED))
def test_after_paying_every_answer_holds_our_order_or_none(body: bytes) -> None:
    try:
        answer = read_answer_or_order(body, SOURCE)
    except acp.ProtocolViolationError:
        return
    assert type(answer).model_validate_json(answer.model_dump_json()) == answer
    order = order_in(answer, "cs_1")
    if order is None:
        return
    assert order.checkout_id == "cs_1"
    assert isinstance(answer, OrderPlaced) or answer.status is acp.CheckoutStatus.COMPLETED
    assert 0 <= rules.refunded_total(order, PAID).amount <= PAID.amount


EVENT = {
    "type": "order_update",
    "data": {
        **ORDER,
        "type": "order",
        "fulfillments": [{"id": "f1", "type": "shipping", "status": "shipped", "carrier": "post"}],
        "adjustments": [
            {"id": "a1", "type": "refund", "status": "completed", "amount": 5, "currency": "usd"}
        ],
    },
}


@given(raw(EVENT), st.integers(0, 10**15))
def test_every_webhooks_body_is_an_event_of_one_order_or_refused(body: bytes, sent_at: int) -> None:
    try:
        event = acp.read_order_event(body)
        order = order_facts(event.data)
    except acp.ProtocolViolationError:
        return
    received = OrderEventReceived(event_id="0" * 64, sent_at=sent_at, type=event.type, order=order)
    assert OrderEventReceived.model_validate_json(received.model_dump_json()) == received
    assert rules.order_event_facts(received)["order_id"] == order.id


DOCUMENTS = [
    (acp.read_order, ORDER),
    (acp.read_cart, {k: v for k, v in FULL.items() if k != "status"}),
    (
        acp.read_discovery,
        {"protocol": {"name": "acp", "version": "2026-04-17"}, "api_base_url": "https://x/"},
    ),
    (
        acp.read_products,
        {"products": [{"id": "mug", "title": "Mug", "price": {"amount": 1, "currency": "usd"}}]},
    ),
]


@pytest.mark.parametrize(("read", "document"), DOCUMENTS)
def test_every_other_document_is_read_or_refused(read: Any, document: dict[str, Any]) -> None:
    @given(raw(document))
    def each(body: bytes) -> None:
        with contextlib.suppress(acp.ProtocolViolationError):
            assert read(body) == read(body)

    each()


ERROR = {"type": "invalid_request", "code": "missing", "message": "The field is missing.", "param": "$.items"}


@given(
    raw(ERROR),
    st.sampled_from([400, 401, 404, 408, 409, 422, 425, 429, 500, 503]),
    st.sampled_from(["", "3", "\u00b2", "9" * 5_000, "-1", "tomorrow"]),
)
def test_every_refusal_of_a_seller_is_final_or_tried_again(body: bytes, status: int, wait: str) -> None:
    response = httpx.Response(status, headers=[(b"Retry-After", wait.encode("latin-1"))])
    failure = seller_error(response, body, "update")
    assert isinstance(failure, ApplicationError)
    assert failure.type in (SELLER_REFUSED, SELLER_UNAVAILABLE)
    assert failure.non_retryable == (failure.type == SELLER_REFUSED)
    assert status < 500 or not failure.non_retryable
    delay = failure.next_retry_delay
    assert delay is None or 0 <= delay.total_seconds() <= MAX_RETRY_AFTER_SECONDS


# The seller's side


REQUESTS = [
    (
        dialects.read_create_request,
        {
            "items": [{"id": "mug", "quantity": 2}],
            "line_items": [{"id": "mug", "quantity": 1}],
            "currency": "USD",
            "coupons": ["ten"],
            "fulfillment_address": {"name": "Ann", "country": "US"},
            "selected_fulfillment_options": [{"type": "shipping", "option_id": "slow", "item_ids": ["mug"]}],
        },
    ),
    (
        dialects.read_update_request,
        {"line_items": [{"id": "mug", "quantity": 1}], "fulfillment_option_id": "slow"},
    ),
    (dialects.read_complete_request, {"payment_data": {"token": "spt_1", "provider": "stripe"}}),
    (dialects.read_cancel_request, {"intent_trace": {"reason_code": "other"}}),
    (dialects.read_cart_request, {"line_items": [{"id": "mug", "quantity": 1}]}),
]


@pytest.mark.parametrize(("read", "document"), REQUESTS)
def test_every_request_to_a_shop_is_read_or_refused(read: Any, document: dict[str, Any]) -> None:
    @given(altered(document) | ANYTHING)
    def each(value: Any) -> None:
        before = copy.deepcopy(value)
        with contextlib.suppress(acp.ProtocolViolationError):
            assert read(value) == read(value)
        assert value == before, "what was sent is not changed by reading it"

    each()


# Signatures of webhooks


SECRETS = ["whsec_one", "whsec_two"]
NOW = 1_780_000_000


@given(st.binary(max_size=40), st.integers(-400, 400), st.sampled_from(SECRETS), TEXTS, st.booleans())
def test_a_signature_counts_within_its_time_whatever_stands_beside_it(
    body: bytes, late: int, secret: str, other: str, before: bool
) -> None:
    header = sign_webhook(secret, body, NOW + late)
    beside = f"v0={other}".replace(",", "")
    header = f"{beside}, {header}" if before else f"{header},{beside}"
    if abs(late) <= WEBHOOK_TOLERANCE_SECONDS:
        assert verify_webhook(SECRETS, body, header, NOW) == NOW + late
    else:
        with pytest.raises(InvalidSignatureError):
            verify_webhook(SECRETS, body, header, NOW)


PARTS = st.sampled_from(
    ["t=1780000000", "t=", "t=\u00b2", "v1=" + "0" * 64, "v1=", "=", "t", "v1=" + "\u0660" * 64]
)


@given(st.lists(PARTS | TEXTS, max_size=4).map(",".join) | st.none(), st.binary(max_size=20))
def test_no_other_header_counts(header: str | None, body: bytes) -> None:
    with pytest.raises(InvalidSignatureError):
        verify_webhook([*SECRETS, ""], body, header, NOW)


@given(st.binary(max_size=40), st.data())
def test_a_signature_is_of_one_body_and_one_time(body: bytes, data: st.DataObject) -> None:
    header = sign_webhook(SECRETS[0], body, NOW)
    at = data.draw(st.integers(0, len(header) - 1))
    changed = header[:at] + data.draw(st.sampled_from("0123456789abcdefx ,=")) + header[at + 1 :]
    if changed.lower() == header or changed.replace(" ", "") == header:
        return
    with pytest.raises(InvalidSignatureError):
        verify_webhook(SECRETS, body, changed, NOW)
    with pytest.raises(InvalidSignatureError):
        verify_webhook(SECRETS, body + b"x", header, NOW)
