"""What an id stands for: everything but what a model names, each field by itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import JsonValue

from waystation.models import live, mandates, payments, purchases, requests, sessions  # so that all are known
from waystation.models.digests import Digested
from waystation.models.payments import AllowancePayment, AllowanceStart, PaidHttpRequest, PaidRequestStart
from waystation.models.purchases import PurchaseRequest
from waystation.models.sessions import SendMessage
from workflows import allowance, mandate, paid_request, purchase, session

LOADED = (live, mandates, payments, purchases, requests, sessions)
WORKFLOWS = (allowance, mandate, paid_request, purchase, session)

USD, EUR = {"amount": 50, "currency": "usd"}, {"amount": 50, "currency": "eur"}
ADDRESS: dict[str, JsonValue] = {
    "name": "Ada",
    "line_one": "1 Main St",
    "city": "Springfield",
    "state": "IL",
    "country": "US",
    "postal_code": "62701",
}
REQUEST: dict[str, Any] = {"url": "https://api.test/a", "body_base64": "aGk="}

# For each model: what it takes at least, and another value for every field.
CASES: dict[type[Digested], tuple[dict[str, Any], dict[str, Any]]] = {
    PaidHttpRequest: (
        {"url": "https://api.test/a"},
        {
            "url": "https://api.test/b",
            "method": "POST",
            "headers": [("accept", "text/html")],
            "body_base64": "aGk=",
        },
    ),
    PaidRequestStart: (
        {"request": REQUEST, "max_price": USD, "mandate_id": "m", "agent": "a"},
        {
            "request": {"url": "https://api.test/b"},
            "max_price": {"amount": 51, "currency": "usd"},
            "mandate_id": "n",
            "agent": "b",
            "rails": ["x402-exact"],
            "expected_payee": "profile_1",
            "payment_method": "pm_card",
            "first_answer": [("www-authenticate", "Payment")],
            "session_id": "s",
            "turn_id": "t1",
            "approval_timeout_seconds": 60,
        },
    ),
    AllowanceStart: (
        {"mandate_id": "m", "agent": "a", "seller": "https://api.test", "budget": USD, "max_price": USD},
        {
            "mandate_id": "n",
            "agent": "b",
            "seller": "https://other.test",
            "budget": EUR,
            "max_price": EUR,
            "rails": ["x402-exact"],
            "expected_payee": "profile_1",
            "payment_method": "pm_card",
            "lifetime_seconds": 60,
            "session_id": "s",
            "turn_id": "t1",
        },
    ),
    AllowancePayment: (
        {"key": "k", "request": REQUEST, "first_answer": [], "max_price": USD},
        {
            "key": "l",
            "request": {"url": "https://api.test/b"},
            "first_answer": [("www-authenticate", "Payment")],
            "max_price": EUR,
        },
    ),
    PurchaseRequest: (
        {
            "mandate_id": "m",
            "seller": "https://shop.test",
            "currency": "usd",
            "items": [{"id": "mug"}],
            "agent": {"id": "a"},
        },
        {
            "mandate_id": "n",
            "seller": "https://other.test",
            "currency": "eur",
            "items": [{"id": "mug", "quantity": 2}],
            "agent": {"id": "b"},
            "buyer": {"first_name": "Ada", "last_name": "L", "email": "ada@example.com"},
            "fulfillment_details": {"name": "Ada", "address": ADDRESS},
            "fulfillment_option": "fast",
            "discount_codes": ["TEN"],
            "billing_address": ADDRESS,
            "order_notes": "Ring twice.",
            "session_id": "s",
            "turn_id": "t1",
            "approval_timeout_seconds": 60,
            "revision_timeout_seconds": 60,
        },
    ),
    SendMessage: (
        {"text": "hi", "actor": {"id": "ada", "role": "user"}},
        {
            "text": "ho",
            "actor": {"id": "bob", "role": "user"},
            "on_busy": "steer",
            "message_id": "m1",
            "data": {"a": 1},
        },
    ),
}


def digested(model: type[Digested] = Digested) -> Iterator[type[Digested]]:
    for one in model.__subclasses__():
        if one.__module__.startswith("waystation."):
            yield one
        yield from digested(one)


def test_every_input_of_an_id_is_walked_over_and_every_field_of_it() -> None:
    assert set(digested()) == set(CASES)
    for model, (_, changes) in CASES.items():
        assert set(changes) == set(model.model_fields), model
        assert set(model.NOT_DIGESTED) <= set(model.model_fields), model
        assert all(model.NOT_DIGESTED.values()), model


@pytest.mark.parametrize(
    ("model", "field"), [(model, field) for model, (_, changes) in CASES.items() for field in changes]
)
def test_another_value_is_another_digest_or_the_model_says_why_not(model: type[Digested], field: str) -> None:
    least, changes = CASES[model]
    before, after = model.model_validate(least), model.model_validate({**least, field: changes[field]})
    assert before != after
    assert (before.digest() == after.digest()) is (field in model.NOT_DIGESTED)
    assert before.matches(before.digest())
    assert not before.matches(None)


def test_headers_that_only_trace_a_request_and_their_order_make_no_other_request() -> None:
    def request(*headers: tuple[str, str]) -> PaidHttpRequest:
        return PaidHttpRequest(url="https://api.test/a", headers=headers)

    one = request(("Accept", "text/html"), ("X-A", "1"), ("traceparent", "00-1"), ("User-Agent", "one"))
    other = request(("x-a", "1"), ("traceparent", "00-2"), ("accept", "text/html"))
    assert one.digest() == other.digest() != request(("x-a", "1")).digest()


# Of the least input of each model, as recorded in histories, memos and sessions of before this rule.
EARLIER = {
    PaidHttpRequest: "870bb93ec240c54c4701413c20e268ff07b93000817865a86720f2a4e085640c",
    PaidRequestStart: "4221fd7c5f1e6a0c36423d652c977d69fa9d306d57aa6a80c043784e05a11ec2",
    AllowanceStart: "c57b6ee1efd13596a78fe01d885a110c237a21aaafa6941494761442bfdba8a4",
    AllowancePayment: "c0babf8c3bca0998ed49317f8e8b256319b3e6837a663be8ec6f63ebefb74835",
    PurchaseRequest: "3d63efade6cb0b1ec27b5a0d2eabca378162d21eda0619cb5aadf3cd5231b721",
    SendMessage: "92d4721ae2707d262f5a458ea7964d833a2e307a2820aafc204c2cf9479759df",
}


@pytest.mark.parametrize("model", list(CASES))
def test_what_an_earlier_release_recorded_is_still_known(model: type[Digested]) -> None:
    wanted = model.model_validate(CASES[model][0])
    assert wanted.matches(EARLIER[model])
