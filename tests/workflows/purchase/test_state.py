"""A purchase's state: it survives storage, and snapshots that contradict themselves are not made."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from tests.workflows.purchase.test_rules import answer, request
from waystation.models.base import replaced
from waystation.models.money import Money
from waystation.models.purchases import PaymentToken
from workflows.purchase import PurchaseStart, carts
from workflows.purchase.state import (
    HeldReservation,
    PurchaseState,
    assert_follows,
    opening_state,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HELD = HeldReservation(key="p:reserve:1", amount=Money(amount=2480, currency="usd"))
TOKEN = PaymentToken(sealed="sealed:k:AAAA", fingerprint="abc", status="active")


def checked() -> PurchaseState:
    """A purchase whose cart was checked and reserved for."""
    seen = answer()
    payable = carts.check_cart(request(), seen)
    state = opening_state(request(), at=NOW)
    checkout = replace(state.checkout, answer=seen, digest=payable.digest, payable=payable, updates=1)
    return replace(
        state, checkout=checkout, authorization=replace(state.authorization, reservation=HELD, reservations=1)
    )


def test_a_state_survives_continue_as_new() -> None:
    start = PurchaseStart(request=request(), state=checked())
    assert PurchaseStart.model_validate_json(start.model_dump_json()) == start


def test_a_stored_state_with_an_unknown_value_is_refused() -> None:
    stored = PurchaseStart(request=request(), state=checked()).model_dump(mode="json")
    stored["state"]["payment"]["tries"] = "many"
    with pytest.raises(ValidationError):
        PurchaseStart.model_validate(stored)


@pytest.mark.parametrize(
    "contradiction",
    [
        lambda state: replace(state, checkout=replace(state.checkout, digest="sha256:" + "0" * 64)),
        lambda state: replace(state, payment=replace(state.payment, token=TOKEN)),
        lambda state: replace(state, payment=replace(state.payment, tries=1)),
        lambda state: replace(state, authorization=replace(state.authorization, committed=HELD)),
        lambda state: replace(state, status="undoing"),
    ],
    ids=["payable_of_another_cart", "token_for_no_cart", "try_for_no_cart", "held_and_committed", "no_end"],
)
def test_a_contradiction_is_a_bug(contradiction: Callable[[PurchaseState], PurchaseState]) -> None:
    with pytest.raises(AssertionError):
        contradiction(checked())


@pytest.mark.parametrize(
    "step_back",
    [
        lambda state: replace(state, checkout=replace(state.checkout, updates=0)),
        lambda state: replace(state, authorization=replace(state.authorization, reservations=0)),
        lambda state: replace(state, payment=replace(state.payment, money_moved=False)),
    ],
    ids=["updates", "reservations", "money_moved"],
)
def test_nothing_goes_back(step_back: Callable[[PurchaseState], PurchaseState]) -> None:
    before = checked()
    before = replace(before, payment=replace(before.payment, money_moved=True))
    assert_follows(before, before)
    with pytest.raises(AssertionError):
        assert_follows(before, step_back(before))


def test_a_cart_stays_payable_only_as_it_was_checked() -> None:
    payable = carts.check_cart(request(), answer())
    assert carts.still_payable(payable, answer(), payable.digest) == payable
    assert carts.still_payable(payable, answer(), "sha256:" + "0" * 64) is None
    assert carts.still_payable(None, answer(), payable.digest) is None


@pytest.mark.parametrize(
    ("changes", "serves"),
    [
        ({}, True),
        ({"digest": "sha256:" + "1" * 64, "handler": "another", "item_ids": ("cup",)}, True),
        ({"total": Money(amount=2481, currency="usd")}, False),
        ({"total": Money(amount=2479, currency="usd")}, False),
        ({"total": Money(amount=2480, currency="eur")}, False),
        ({"payee": "profile_another"}, False),
        ({"checkout_id": "cs_2"}, False),
    ],
)
def test_a_token_serves_one_total_payee_and_checkout(changes: dict[str, Any], serves: bool) -> None:
    payable = carts.check_cart(request(), answer())
    assert payable.buys_as(replaced(payable, **changes)) is serves
