"""The rules of purchases: cart checks, digest, preparation, transitions, the trail's chain."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from waystation.buyer.carts import Source, order_facts, read_answer
from waystation.models.mandates import MandateView
from waystation.models.money import Money
from waystation.models.purchases import (
    Cart,
    CheckoutAnswer,
    ItemWanted,
    PurchaseRequest,
    PurchaseStatus,
)
from waystation.protocols import acp
from workflows.purchase import carts, rules
from workflows.purchase.rules import (
    FINAL_STATUSES,
    TRANSITIONS,
    IllegalTransitionError,
    PurchaseRefusal,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SHOP = "https://shop.example"


def request(**changes: Any) -> PurchaseRequest:
    given: dict[str, Any] = {
        "mandate_id": "m",
        "seller": SHOP,
        "currency": "usd",
        "items": [{"id": "mug", "quantity": 2}],
        "agent": {"id": "shopper"},
    }
    return PurchaseRequest.model_validate({**given, **changes})


def amounts(**by_type: int) -> list[dict[str, Any]]:
    return [{"type": kind, "display_text": kind, "amount": amount} for kind, amount in by_type.items()]


def session(**changes: Any) -> dict[str, Any]:
    return {
        "id": "cs_1",
        "status": "ready_for_payment",
        "currency": "usd",
        "capabilities": {"payment": {"handlers": [handler()]}},
        "line_items": [line("mug", 2, 900)],
        "totals": amounts(items_base_amount=1800, subtotal=1800, tax=180, fulfillment=500, total=2480),
        "fulfillment_options": [option("fast", 900), option("slow", 500)],
        "selected_fulfillment_options": [
            {"type": "shipping", "option_id": "slow", "item_ids": ["mug"]},
        ],
        "messages": [],
        "links": [],
        **changes,
    }


def handler(merchant: str = "profile_shop") -> dict[str, Any]:
    return {
        "id": "card_tokenized",
        "name": "dev.acp.tokenized.card",
        "version": "2026-01-22",
        "spec": "https://acp.dev/handlers/tokenized.card",
        "requires_delegate_payment": True,
        "requires_pci_compliance": False,
        "psp": "stripe",
        "config_schema": "https://acp.dev/config.json",
        "instrument_schemas": [],
        "config": {"merchant_id": merchant},
    }


def line(item: str, quantity: int, unit: int) -> dict[str, Any]:
    base = unit * quantity
    return {
        "id": f"li_{item}",
        "item": {"id": item},
        "quantity": quantity,
        "unit_amount": unit,
        "totals": amounts(items_base_amount=base, subtotal=base, total=base),
    }


def option(name: str, price: int, kind: str = "shipping") -> dict[str, Any]:
    return {"type": kind, "id": name, "title": name, "totals": amounts(total=price)}


def message(code: str) -> dict[str, Any]:
    return {"type": "error", "code": code, "content_type": "plain", "content": "please"}


def answer(**changes: Any) -> CheckoutAnswer:
    return read_answer(json.dumps(session(**changes)), Source(SHOP, SHOP))


def refused(**changes: Any) -> str:
    with pytest.raises(PurchaseRefusal) as caught:
        carts.check_cart(request(), answer(**changes))
    return caught.value.rule


# What may be asked


@pytest.mark.parametrize(
    "bad",
    [
        {"items": [{"id": "mug", "quantity": 0}]},
        {"items": [{"id": "mug", "quantity": -1}]},
        {"items": [{"id": "mug", "quantity": 1.5}]},
        {"items": [{"id": "mug", "quantity": "2"}]},
        {"items": [{"id": "mug", "quantity": 10**9}]},
        {"items": [{"id": "mug", "price": 1}]},
        {"items": [{"id": "mug"}, {"id": "mug"}]},
        {"items": []},
        {"total": 100},
        {"currency": "USD"},
        {"seller": "https://shop.example/path"},
        {"seller": "ftp://shop.example"},
        {"seller": "https://shop.example@evil.example"},
        {"approval_timeout_seconds": 0},
    ],
)
def test_a_request_states_no_amounts_and_nothing_absurd(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**bad)


def mandate(**changes: Any) -> MandateView:
    money = {"amount": 0, "currency": "usd"}
    terms = {
        "owner": "alice",
        "agent": "shopper",
        "cap": {"amount": 10_000, "currency": "usd"},
        "valid_until": NOW.isoformat(),
        "sellers": [SHOP],
        "payment_methods": ["pm_card_visa"],
        **changes.pop("terms", {}),
    }
    given = {"mandate_id": "m", "status": "active", "terms": terms, "payments": 0}
    return MandateView.model_validate(
        {**given, "spent": money, "reserved": money, "left": money, "refunded": money, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"status": "revoked"}, "mandate_revoked"),
        ({"status": "expired"}, "mandate_expired"),
        ({"terms": {"agent": "another"}}, "wrong_agent"),
        ({"terms": {"cap": {"amount": 1, "currency": "eur"}}}, "wrong_currency"),
        ({"terms": {"sellers": ["https://other.example"]}}, "seller_not_allowed"),
        ({"terms": {"payment_methods": []}}, "no_payment_method"),
    ],
)
def test_nobody_outside_the_mandate_is_contacted(changes: dict[str, Any], rule: str) -> None:
    rules.check_request(request(), mandate())
    with pytest.raises(PurchaseRefusal) as caught:
        rules.check_request(request(), mandate(**changes))
    assert caught.value.rule == rule


# The cart


def test_a_right_cart_gives_its_total() -> None:
    assert carts.check_cart(request(), answer()).total == Money(amount=2480, currency="usd")


def test_a_wrong_cart_is_refused_by_rule() -> None:
    assert refused(currency="eur") == "wrong_currency"
    assert refused(line_items=[line("mug", 2, 900), line("insurance", 1, 100)]) == "items_added"
    assert refused(line_items=[line("cup", 2, 900)]) == "items_added"
    assert refused(line_items=[]) == "items_missing"
    assert refused(line_items=[line("mug", 1, 1800)]) == "quantity_changed"
    assert refused(totals=amounts(subtotal=1800, tax=180, total=2480)) == "totals_do_not_add_up"
    assert refused(totals=amounts(subtotal=1800)) == "totals_do_not_add_up"
    assert refused(totals=amounts(items_base_amount=1800, subtotal=1800, discount=1800, total=0)) == (
        "total_not_positive"
    )
    assert refused(totals=amounts(total=-5)) == "totals_do_not_add_up"


def test_the_checkout_and_the_payee_are_pinned() -> None:
    first = answer().cart
    carts.check_same_deal(None, first)
    carts.check_same_deal(first, first)
    for changed, rule in (
        (answer(id="cs_2"), "checkout_changed"),
        (answer(capabilities={"payment": {"handlers": [handler("profile_thief")]}}), "payee_changed"),
    ):
        with pytest.raises(PurchaseRefusal) as caught:
            carts.check_same_deal(first, changed.cart)
        assert caught.value.rule == rule


@pytest.mark.parametrize("name", ["ready_for_payment", "completed"])
def test_answers_that_break_the_protocol_are_not_read(name: str) -> None:
    for bad in (
        {"status": "paid"},
        {"currency": "USD"},
        {"totals": [{"type": "total", "display_text": "Total", "amount": 24.80}]},
        {"totals": [{"type": "total", "display_text": "Total", "amount": "2480"}]},
        {"totals": [{"type": "total", "display_text": "Total", "amount": 10**18}]},
        {"line_items": [{**line("mug", 2, 900), "quantity": 0}]},
    ):
        with pytest.raises(acp.ProtocolViolationError):
            acp.read_session(json.dumps(session(**{"status": name, **bad})))


# The digest


@given(st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_order(random: Any) -> None:
    many = {
        "line_items": [line("mug", 2, 900), line("tea", 1, 50), line("pot", 3, 10)],
        "totals": amounts(items_base_amount=1880, subtotal=1880, tax=100, total=1980),
    }
    shuffled = {name: random.sample(value, len(value)) for name, value in many.items()}
    for one in shuffled["line_items"]:
        one["totals"] = random.sample(one["totals"], len(one["totals"]))
    assert carts.cart_digest(answer(**many).cart) == carts.cart_digest(answer(**shuffled).cart)


def test_the_digest_survives_storage() -> None:
    cart = answer(fulfillment_details={"name": "Ana Ñandú", "email": "ana@example.com"}).cart
    again = Cart.model_validate_json(cart.model_dump_json())
    assert carts.cart_digest(again) == carts.cart_digest(cart)


def test_the_digest_ignores_what_is_not_agreed_to() -> None:
    plain = carts.cart_digest(answer().cart)
    noise: list[dict[str, Any]] = [
        {"messages": [{"type": "info", "content_type": "plain", "content": "Hello"}]},
        {"updated_at": "2026-05-01T12:00:00Z"},
        {"links": [{"type": "faq", "url": "https://shop.example/faq"}]},
        {"fulfillment_options": [option("slow", 500), option("fast", 900), option("never", 1)]},
    ]
    for changed in noise:
        assert carts.cart_digest(answer(**changed).cart) == plain


def test_the_digest_sees_everything_that_is_agreed_to() -> None:
    address = {"name": "A", "line_one": "1", "city": "B", "state": "C", "country": "US", "postal_code": "1"}
    seen = {carts.cart_digest(answer().cart)}
    for changed in (
        {"id": "cs_2"},
        {"currency": "eur"},
        {"line_items": [line("mug", 1, 900)]},
        {"line_items": [line("mug", 2, 901)]},
        {"line_items": [{**line("mug", 2, 900), "name": "Other mug"}]},
        {"totals": amounts(items_base_amount=1800, subtotal=1800, tax=180, fulfillment=501, total=2481)},
        {"totals": amounts(items_base_amount=1800, subtotal=1800, tax=181, fulfillment=500, total=2481)},
        {"selected_fulfillment_options": [{"type": "shipping", "option_id": "fast", "item_ids": ["mug"]}]},
        {"fulfillment_options": [option("slow", 501)]},
        {"fulfillment_details": {"address": address}},
        {"fulfillment_details": {"address": {**address, "line_one": "2"}}},
        {"capabilities": {"payment": {"handlers": [handler("profile_thief")]}}},
    ):
        digest = carts.cart_digest(answer(**changed).cart)
        assert digest not in seen
        seen.add(digest)
    moved = read_answer(json.dumps(session()), Source("https://other.example", SHOP))
    assert carts.cart_digest(moved.cart) not in seen


# Preparation


def test_what_to_do_with_each_status() -> None:
    steps = {
        status: rules.next_preparation(request(), answer(status=status)).step for status in acp.CheckoutStatus
    }
    assert steps == {
        "incomplete": "revise",
        "not_ready_for_payment": "revise",
        "ready_for_payment": "ready",
        "authentication_required": "ready",
        "requires_escalation": "escalate",
        "pending_approval": "wait",
        "complete_in_progress": "wait",
        "in_progress": "wait",
        "completed": "pay_elsewhere_done",
        "canceled": "closed",
        "expired": "closed",
    }


def test_the_cheapest_option_is_taken_unless_one_is_asked_for() -> None:
    open_cart = answer(status="not_ready_for_payment", selected_fulfillment_options=[])
    [chosen] = rules.choose_fulfillment(request(), open_cart)
    assert (chosen.id, chosen.item_ids) == ("slow", ("mug",))
    [chosen] = rules.choose_fulfillment(request(fulfillment_option="fast"), open_cart)
    assert chosen.id == "fast"
    plan = rules.next_preparation(request(fulfillment_option="fast"), answer())
    assert (plan.step, plan.select[0].id) == ("update", "fast")
    with pytest.raises(PurchaseRefusal) as caught:
        rules.choose_fulfillment(request(fulfillment_option="teleport"), open_cart)
    assert caught.value.rule == "fulfillment_option_not_offered"


def test_a_cart_of_both_kinds_gets_an_option_for_each() -> None:
    both = answer(
        status="not_ready_for_payment",
        line_items=[line("mug", 2, 900), line("ebook", 1, 0)],
        fulfillment_options=[
            option("slow", 500),
            option("fetch", 0, "local_delivery"),
            option("mail", 0, "digital"),
        ],
        selected_fulfillment_options=[{"type": "digital", "option_id": "mail", "item_ids": ["ebook"]}],
    )
    chosen = {one.type: (one.id, one.item_ids) for one in rules.choose_fulfillment(request(), both)}
    assert chosen == {"local_delivery": ("fetch", ("ebook", "mug")), "digital": ("mail", ("ebook",))}


def test_the_sellers_own_choice_stands() -> None:
    assert rules.next_preparation(request(), answer()).step == "ready"


# Transitions

STATUSES = sorted(TRANSITIONS)


@given(st.lists(st.sampled_from(STATUSES), max_size=40))
def test_a_final_status_is_never_left(path: list[PurchaseStatus]) -> None:
    current: PurchaseStatus = "creating"
    for following in path:
        before = current
        try:
            current = rules.advance(current, following)
        except IllegalTransitionError:
            continue
        assert before not in FINAL_STATUSES or current == before


def test_every_status_is_reached_and_every_open_one_can_end() -> None:
    reached: set[PurchaseStatus] = {"creating"}
    frontier: list[PurchaseStatus] = ["creating"]
    while frontier:
        for following in TRANSITIONS[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert reached == set(STATUSES)
    for status in set(STATUSES) - FINAL_STATUSES:
        assert TRANSITIONS[status] & (FINAL_STATUSES | {"undoing"}), status


def test_no_end_without_an_order_skips_the_undoing() -> None:
    for status, following in TRANSITIONS.items():
        if status != "undoing":
            assert following & FINAL_STATUSES <= {"completed"}


# The specification's own examples

SPEC = os.environ.get("WAYSTATION_ACP_SPEC")
needs_spec = pytest.mark.skipif(
    not SPEC, reason="WAYSTATION_ACP_SPEC does not point at the specification's json-schema/ and examples/"
)


def valid_examples(definition: str) -> Iterator[tuple[str, Any]]:
    """Everything in the examples that the specification's own schema accepts as this definition."""
    folder = Path(SPEC or "")
    schema = json.loads((folder / "json-schema" / "schema.agentic_checkout.json").read_text())
    validator = jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{definition}"})
    for file in sorted((folder / "examples").rglob("*.json")):
        waiting: list[tuple[str, Any]] = [(file.name, json.loads(file.read_text()))]
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, dict):
                if validator.is_valid(value):
                    yield name, value
                waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
            elif isinstance(value, list):
                waiting += [(f"{name}[{index}]", inner) for index, inner in enumerate(value)]


@needs_spec
def test_every_valid_session_of_the_specification_is_accepted() -> None:
    count = 0
    for name, example in valid_examples("CheckoutSession"):
        read = read_answer(json.dumps(example), Source(SHOP, SHOP))
        items = {one.item_id: one.quantity for one in read.cart.lines}
        wanted = tuple(ItemWanted(id=item, quantity=quantity) for item, quantity in items.items())
        asked = request(currency=read.cart.currency).model_copy(update={"items": wanted})
        if read.handler_id is not None and read.cart.payee is not None:
            assert carts.check_cart(asked, read).total.amount > 0, name
        else:
            with pytest.raises(rules.PurchaseRefusal, match="no way to pay"):
                carts.check_cart(asked, read)
        assert rules.next_preparation(asked, read), name
        assert carts.cart_digest(read.cart).startswith("sha256:"), name
        count += 1
    assert count >= 8


@needs_spec
def test_every_valid_order_of_the_specification_is_accepted() -> None:
    read = [order_facts(acp.read_order(json.dumps(one))) for _, one in valid_examples("Order")]
    assert len(read) >= 2
    assert all(str(order.permalink_url).startswith("https://") for order in read)
