"""What is shown of what Temporal has ended: final, and never that money stayed where it may have moved."""

from datetime import UTC, datetime

import pytest

from api.gateways.ended import ended_allowance, ended_payment, ended_purchase
from waystation.models.money import Money
from waystation.models.payments import AllowanceView, MoneyMoved, PaidRequestView
from waystation.models.purchases import WAITS_FOR_A_PERSON, PurchaseStatus, PurchaseView

SENT = "sha256:0"


@pytest.mark.parametrize(
    ("credential", "moved", "status", "then"),
    [
        (None, "no", "failed", "no"),
        (SENT, "no", "unknown", "unknown"),
        (SENT, "unknown", "unknown", "unknown"),
        (SENT, "yes", "unknown", "yes"),
    ],
)
def test_a_paid_request(credential: str | None, moved: MoneyMoved, status: str, then: MoneyMoved) -> None:
    view = PaidRequestView(
        payment_id="p",
        status="paying",
        final=False,
        url="https://api.example/",
        method="GET",
        credential_fingerprint=credential,
        money_moved=moved,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    ended = ended_payment(view)
    assert (ended.status, ended.final, ended.money_moved) == (status, True, then)
    assert ended_payment(ended) == ended


def test_an_allowance() -> None:
    budget = Money(amount=100, currency="usd")
    view = AllowanceView(allowance_id="a", open=True, budget=budget, spent=40, held=10, payments=2)
    ended = ended_allowance(view)
    assert (ended.open, ended.spent, ended.held) == (False, 40, 10)
    assert ended_allowance(ended) == ended


@pytest.mark.parametrize(
    ("status", "tries", "charge", "then"),
    [
        ("awaiting_approval", 0, None, None),
        ("preparing", 0, None, None),
        ("paying", 0, None, "unknown"),
        ("confirming", 0, None, "unknown"),
        ("authentication_required", 0, None, "unknown"),
        ("payment_declined", 1, None, "unknown"),
        ("confirming", 1, "awaited", "unknown"),
        ("confirming", 1, "captured", "captured"),
        ("undoing", 1, "nothing", "nothing"),
    ],
)
def test_a_purchase(status: PurchaseStatus, tries: int, charge: str | None, then: str | None) -> None:
    view = PurchaseView.model_validate(
        {
            "purchase_id": "p",
            "status": status,
            "final": False,
            "request": {
                "mandate_id": "m",
                "seller": "https://shop.example",
                "currency": "usd",
                "items": [{"id": "mug"}],
                "agent": {"id": "shopper"},
            },
            "payment_tries": tries,
            "waits_for_a_person": status in WAITS_FOR_A_PERSON,
            "charge": charge and {"status": charge},
            "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
    )
    ended = ended_purchase(view)
    assert (ended.status, ended.final, ended.charge and ended.charge.status) == ("failed", True, then)
    assert not ended.waits_for_a_person
    assert ended_purchase(ended) == ended
