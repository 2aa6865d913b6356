"""The arithmetic of mandates: under any interleaving, spent + reserved never exceeds the cap."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from tests.support import examples
from waystation.models.mandates import (
    CommitRequest,
    MandateTerms,
    RefundRequest,
    ReleaseRequest,
    ReserveRequest,
    RevokeRequest,
)
from waystation.models.money import Money
from workflows.mandate import rules
from workflows.mandate.rules import MandateLedger, MandateRefusal

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SHOP = "https://shop.example"


def terms(**changes: Any) -> MandateTerms:
    given: dict[str, Any] = {
        "owner": "alice",
        "agent": "shopper",
        "cap": {"amount": 10_000, "currency": "usd"},
        "valid_until": NOW + timedelta(days=30),
        "sellers": [SHOP],
        "payment_methods": ["pm_card_visa"],
    }
    return MandateTerms.model_validate({**given, **changes})


def ledger(**changes: Any) -> MandateLedger:
    return MandateLedger(mandate_id="m", terms=terms(**changes))


def wanted(key: str = "k", amount: int = 2500, currency: str = "usd", **changes: Any) -> ReserveRequest:
    given: dict[str, Any] = {
        "key": key,
        "amount": {"amount": amount, "currency": currency},
        "seller": SHOP,
        "agent": "shopper",
        "protocol": "acp",
        "hold_seconds": 600,
        "item_ids": ["mug"],
    }
    return ReserveRequest.model_validate({**given, **changes})


def test_reserve_commit_and_the_balance() -> None:
    book, answer = rules.reserve(ledger(approval_threshold=2000), wanted(), NOW)
    assert answer.approval_required
    assert (book.reserved, book.spent, book.left) == (2500, 0, 7500)
    book, settled = rules.commit(book, CommitRequest(key="k", amount=2000), NOW)
    assert settled.spent == 2000
    assert (book.reserved, book.spent, book.left, book.payments) == (0, 2000, 8000, 1)


@pytest.mark.parametrize(
    ("changes", "request_changes", "rule_name"),
    [
        ({}, {"amount": 10_001}, "cap_exceeded"),
        ({}, {"amount": 0}, "amount_not_positive"),
        ({}, {"amount": 1, "currency": "eur"}, "wrong_currency"),
        ({}, {"agent": "another"}, "wrong_agent"),
        ({}, {"seller": "https://evil.example"}, "seller_not_allowed"),
        ({"per_payment_cap": 2000}, {}, "per_payment_cap"),
        ({"valid_from": NOW + timedelta(days=1)}, {}, "mandate_not_yet_valid"),
        ({"valid_until": NOW}, {}, "mandate_expired"),
        ({"constraints": [{"type": "allowed_items", "item_ids": ["tea"]}]}, {}, "item_not_allowed"),
        (
            {"constraints": [{"type": "allowed_items", "item_ids": ["mug"]}]},
            {"item_ids": []},
            "item_not_allowed",
        ),
        ({"constraints": [{"type": "allowed_protocols", "protocols": ["x402"]}]}, {}, "protocol_not_allowed"),
        (
            {"constraints": [{"type": "ship_to_countries", "countries": ["US"]}]},
            {"ship_to_country": "FR"},
            "country_not_allowed",
        ),
    ],
)
def test_each_rule_refuses_by_name(
    changes: dict[str, Any], request_changes: dict[str, Any], rule_name: str
) -> None:
    with pytest.raises(MandateRefusal) as caught:
        rules.reserve(ledger(**changes), wanted(**request_changes), NOW)
    assert caught.value.rule == rule_name


def test_any_seller_has_to_be_said() -> None:
    book, _ = rules.reserve(ledger(sellers=["*"]), wanted(seller="https://anywhere.example"), NOW)
    assert book.reserved == 2500


def test_the_number_of_payments_counts_those_under_way() -> None:
    book = ledger(constraints=[{"type": "max_payments", "count": 2}])
    book, _ = rules.reserve(book, wanted("a"), NOW)
    book, _ = rules.commit(book, CommitRequest(key="a"), NOW)
    book, _ = rules.reserve(book, wanted("b"), NOW)
    with pytest.raises(MandateRefusal, match="2 payments"):
        rules.reserve(book, wanted("c"), NOW)
    book, _ = rules.release(book, ReleaseRequest(key="b"), NOW)
    rules.reserve(book, wanted("c"), NOW)


@pytest.mark.parametrize(
    "bad",
    [
        {"constraints": [{"type": "only_on_sundays"}]},
        {"constraints": [{"type": "max_payments", "count": 3, "unless": "asked nicely"}]},
        {"surprise": True},
        {"cap": {"amount": 0, "currency": "usd"}},
        {"cap": {"amount": -5, "currency": "usd"}},
        {"cap": {"amount": 10.5, "currency": "usd"}},
        {"cap": {"amount": 10**16, "currency": "usd"}},
        {"cap": {"amount": "100", "currency": "usd"}},
        {"per_payment_cap": 20_000},
        {"sellers": []},
        {"sellers": ["shop.example"]},
        {"sellers": ["https://shop.example/path"]},
        {"valid_until": "2026-05-01T12:00:00"},
        {"valid_from": NOW + timedelta(days=40)},
        {"approvers": ["shopper"]},
        {"payment_methods": ["4242424242424242"]},
    ],
)
def test_terms_that_are_not_understood_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        terms(**bad)


def test_the_same_key_is_the_same_reservation() -> None:
    book, first = rules.reserve(ledger(), wanted(), NOW)
    again, second = rules.reserve(book, wanted(), NOW)
    assert again.reserved == 2500
    assert first.reservation.key == second.reservation.key
    with pytest.raises(MandateRefusal) as caught:
        rules.reserve(book, wanted(amount=2501), NOW)
    assert caught.value.rule == "reservation_conflict"


def test_a_reserve_overtaken_by_its_release_is_refused() -> None:
    book, _ = rules.release(ledger(), ReleaseRequest(key="k"), NOW)
    with pytest.raises(MandateRefusal) as caught:
        rules.reserve(book, wanted(), NOW)
    assert caught.value.rule == "already_released"


def test_money_that_moved_is_recorded_even_after_expiry_and_revocation() -> None:
    book, _ = rules.reserve(ledger(), wanted(), NOW)
    book = rules.revoke(book, RevokeRequest(by="alice"))
    later = NOW + timedelta(days=60)
    book, settled = rules.commit(book, CommitRequest(key="k"), later)
    assert settled.state == "committed"
    assert book.spent == 2500
    with pytest.raises(MandateRefusal, match="revoked by alice"):
        rules.reserve(book, wanted("k2"), NOW)


def test_settling_twice_changes_nothing_and_otherwise_is_refused() -> None:
    book, _ = rules.reserve(ledger(), wanted(), NOW)
    book, _ = rules.commit(book, CommitRequest(key="k"), NOW)
    assert rules.commit(book, CommitRequest(key="k"), NOW)[0] == book
    for attempt in (
        lambda: rules.commit(book, CommitRequest(key="k", amount=1), NOW),
        lambda: rules.release(book, ReleaseRequest(key="k"), NOW),
        lambda: rules.commit(book, CommitRequest(key="unknown"), NOW),
    ):
        with pytest.raises(MandateRefusal):
            attempt()


def test_refunds_give_room_back_once_and_up_to_what_was_paid() -> None:
    book, _ = rules.reserve(ledger(), wanted(), NOW)
    with pytest.raises(MandateRefusal, match="nothing to refund"):
        rules.refund(book, RefundRequest(key="k", amount=1))
    book, _ = rules.commit(book, CommitRequest(key="k"), NOW)
    once, settled = rules.refund(book, RefundRequest(key="k", amount=1000))
    assert (once.spent, once.refunded, once.left, settled.refunded) == (1500, 1000, 8500, 1000)
    for again in (1000, 400):
        assert rules.refund(once, RefundRequest(key="k", amount=again))[0] == once
    whole, settled = rules.refund(once, RefundRequest(key="k", amount=99_999))
    assert (whole.spent, whole.refunded, whole.left, settled.refunded) == (0, 2500, 10_000, 2500)
    assert rules.commit(whole, CommitRequest(key="k"), NOW)[0] == whole
    assert rules.view(whole, NOW).refunded == Money(amount=2500, currency="usd")


def test_refunds_are_only_noted_where_the_terms_say_so() -> None:
    book, _ = rules.reserve(ledger(refunds_give_room=False), wanted(), NOW)
    book, _ = rules.commit(book, CommitRequest(key="k"), NOW)
    book, _ = rules.refund(book, RefundRequest(key="k", amount=2500))
    assert (book.spent, book.refunded, book.left) == (2500, 2500, 7500)


def test_old_settled_keys_are_forgotten_but_what_they_spent_is_not() -> None:
    book = ledger(cap={"amount": 10**9, "currency": "usd"})
    for number in range(rules.MAX_SETTLED_KEPT + 50):
        book, _ = rules.reserve(book, wanted(f"k{number}", 1), NOW + timedelta(seconds=number * 10))
        book, _ = rules.commit(book, CommitRequest(key=f"k{number}"), NOW + timedelta(seconds=number * 10))
    assert len(book.reservations) <= rules.MAX_SETTLED_KEPT + 1
    assert book.spent == rules.MAX_SETTLED_KEPT + 50


class AnyInterleaving(RuleBasedStateMachine):
    """Reserve, commit, release, revoke and expire in any order, checked against a plain account book."""

    keys = Bundle("keys")

    @initialize(cap=st.integers(1, 5_000))
    def start(self, cap: int) -> None:
        self.book = ledger(cap={"amount": cap, "currency": "usd"})
        self.cap, self.now = cap, NOW
        self.held: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self.refunded: dict[str, int] = {}

    @rule(target=keys, number=st.integers(0, 30))
    def key(self, number: int) -> str:
        return f"k{number}"

    @rule(key=keys, amount=st.integers(1, 3_000))
    def reserve(self, key: str, amount: int) -> None:
        try:
            self.book, _ = rules.reserve(self.book, wanted(key, amount), self.now)
        except MandateRefusal:
            return
        assert self.held.setdefault(key, amount) == amount

    @rule(key=keys, share=st.integers(0, 120))
    def commit(self, key: str, share: int) -> None:
        amount = self.held.get(key, 100) * share // 100
        try:
            self.book, _ = rules.commit(self.book, CommitRequest(key=key, amount=amount), self.now)
        except MandateRefusal:
            return
        if key in self.held:
            assert amount <= self.held.pop(key)
            self.spent[key] = amount
        assert self.spent[key] == amount

    @rule(key=keys, amount=st.integers(1, 4_000))
    def refund(self, key: str, amount: int) -> None:
        try:
            self.book, _ = rules.refund(self.book, RefundRequest(key=key, amount=amount))
        except MandateRefusal:
            assert key not in self.spent
            return
        self.refunded[key] = max(self.refunded.get(key, 0), min(amount, self.spent[key]))

    @rule(key=keys)
    def release(self, key: str) -> None:
        try:
            self.book, _ = rules.release(self.book, ReleaseRequest(key=key), self.now)
        except MandateRefusal:
            assert key in self.spent
            return
        self.held.pop(key, None)

    @rule(hours=st.integers(1, 400))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def revoke(self) -> None:
        self.book = rules.revoke(self.book, RevokeRequest(by="alice"))

    @invariant()
    def the_cap_holds_and_the_books_agree(self) -> None:
        if not hasattr(self, "book"):
            return
        assert self.book.reserved == sum(self.held.values())
        assert self.book.refunded == sum(self.refunded.values())
        assert self.book.spent == sum(self.spent.values()) - self.book.refunded
        assert 0 <= self.book.spent + self.book.reserved <= self.cap
        assert self.book.left == self.cap - self.book.spent - self.book.reserved


AnyInterleaving.TestCase.settings = settings(max_examples=examples(80), stateful_step_count=40)
TestAnyInterleaving = AnyInterleaving.TestCase


@given(amounts=st.lists(st.integers(1, 6_000), min_size=1, max_size=40))
def test_whatever_is_asked_for_only_what_fits_is_reserved(amounts: list[int]) -> None:
    book = ledger()
    for number, amount in enumerate(amounts):
        if amount <= book.left:
            book, _ = rules.reserve(book, wanted(f"k{number}", amount), NOW)
        else:
            with pytest.raises(MandateRefusal, match="does not fit"):
                rules.reserve(book, wanted(f"k{number}", amount), NOW)
    assert book.reserved <= book.terms.cap.amount
    assert rules.view(book, NOW).left == Money(amount=book.left, currency="usd")


ONLY_MUGS = {"constraints": [{"type": "allowed_items", "item_ids": ["mug"]}]}
ONLY_ACP = {"constraints": [{"type": "allowed_protocols", "protocols": ["acp"]}]}
ONLY_US = {"constraints": [{"type": "ship_to_countries", "countries": ["US"]}]}


@pytest.mark.parametrize(
    ("terms", "change", "rule"),
    [
        (ONLY_MUGS, {"item_ids": ["tea"]}, "item_not_allowed"),
        (ONLY_MUGS, {"item_ids": []}, "item_not_allowed"),
        (ONLY_US, {"ship_to_country": "FR"}, "country_not_allowed"),
        (ONLY_US, {"ship_to_country": None, "is_sent": True}, "country_not_allowed"),
        (ONLY_ACP, {"protocol": "mpp"}, "protocol_not_allowed"),
        (ONLY_ACP, {"other_protocols": ["x402"]}, "protocol_not_allowed"),
        ({"constraints": [{"type": "max_payments", "count": 9}]}, {"many_payments": True}, "max_payments"),
        ({}, {"agent": "rival"}, "wrong_agent"),
    ],
)
def test_what_the_owner_allowed_is_checked_when_reserving_and_at_every_confirmation(
    terms: dict[str, Any], change: dict[str, Any], rule: str
) -> None:
    fresh = ledger(**terms)
    with pytest.raises(rules.MandateRefusal) as refused:
        rules.reserve(fresh, wanted(**change), NOW)
    assert refused.value.rule == rule
    held, _ = rules.reserve(fresh, wanted(), NOW)
    with pytest.raises(rules.MandateRefusal) as refused:
        rules.reserve(held, wanted(**change), NOW)
    assert refused.value.rule == rule
    confirmed, _ = rules.reserve(held, wanted(), NOW)
    assert confirmed.reserved == held.reserved
