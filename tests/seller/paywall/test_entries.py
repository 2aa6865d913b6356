"""What must hold between the fields of a paywall's entry, whoever wrote it."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.seller.paywall.test_journal import ANSWER, CHARGE, NOW, entry
from waystation.models.base import replaced
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.seller.paywall.entries import Charge, EntryState, Refund, assert_follows

REFUND = Refund(reference="re_1", refunded_at=NOW)
CHARGED = entry().charged(CHARGE)

IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "charged without a charge": {"state": EntryState.CHARGED},
    "delivered without a charge": {"state": EntryState.DELIVERED, "answer": ANSWER},
    "a charge before it happened": {"charge": CHARGE},
    "refused after a charge": {"state": EntryState.REFUSED, "refusal": "no", "charge": CHARGE},
    "refused without a reason": {"state": EntryState.REFUSED},
    "a reason without a refusal": {"refusal": "no"},
    "an answer before the charge": {"answer": ANSWER},
    "an answer that isn't delivered": {"state": EntryState.CHARGED, "charge": CHARGE, "answer": ANSWER},
    "a refund without an answer": {"state": EntryState.REFUNDING, "charge": CHARGE},
    "refunded while owed": {"state": EntryState.CHARGED, "charge": CHARGE, "refund": REFUND},
    "unclear after a charge": {"state": EntryState.CHARGED, "charge": CHARGE, "unclear": "?"},
    "a price of nothing": {"price": Money(amount=0, currency="usd")},
    "x402 without a network": {"state": EntryState.CHARGED, "charge": CHARGE, "rail": Rail.X402_EXACT},
    "attempts below zero": {"attempts": -1},
    "a payment that names another": {"names": "k2"},
}


@pytest.mark.parametrize("changes", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_entry_that_contradicts_itself_cannot_be_made_or_read(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        replaced(entry(), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"price": Money(amount=51, currency="usd")},
        {"payee": "bn_2"},
        {"fingerprint": "g"},
        {"charge": Charge(reference="pi_2", charged_at=NOW)},
        {"attempts": 0},
        {"version": 7},
    ],
)
def test_what_was_written_down_never_changes(changes: dict[str, Any]) -> None:
    before = replaced(CHARGED, attempts=1)
    after = replaced(before, **{"version": before.version + 1} | changes)
    with pytest.raises(AssertionError):
        assert_follows(before, after)


def test_a_refund_follows_a_recorded_answer() -> None:
    refunding = CHARGED.refunding(ANSWER)
    assert refunding.finished
    assert refunding.refunded(REFUND).state is EntryState.DELIVERED
    with pytest.raises(ValueError, match="not refunding"):
        CHARGED.delivered(ANSWER).refunded(REFUND)
