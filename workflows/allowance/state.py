"""An allowance's state: one frozen snapshot, carried whole across continue-as-new."""

from dataclasses import dataclass, field

from waystation.models.mandates import ReserveAnswer
from waystation.models.payments import AllowanceAnswer, PaymentRefusal
from workflows.allowance.rules import Ledger
from workflows.trail import Trail


@dataclass(frozen=True, slots=True)
class AllowanceState:
    """Everything that outlives a run."""

    ledger: Ledger
    trail: Trail
    reserved: ReserveAnswer | None = None
    """What the mandate answered when the budget was reserved."""
    ends_at_seconds: int = 0
    answers: dict[str, AllowanceAnswer] = field(default_factory=dict)
    """Of payments that the workflow itself made, by their keys; the newest last."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the payments with answers, by their keys; missing of those that an earlier release made."""
    closing: bool = False
    """No more payments are begun."""
    refusal: PaymentRefusal | None = None
    notes: int = 0
    """How many notes its session was sent by earlier runs."""


def assert_follows(before: AllowanceState, after: AllowanceState) -> None:
    """Asserts what must hold between two snapshots; a failure is a bug of ours."""
    assert after.ledger.budget == before.ledger.budget, "a budget stays what was reserved"
    assert after.ledger.leases >= before.ledger.leases, "the numbers of leases never fall"
    assert after.ledger.keys[: len(before.ledger.keys)] == before.ledger.keys, (
        "a key that was paid stays known"
    )
    assert after.closing or not before.closing, "an allowance that closes stays closed"
    assert len(before.trail.entries) <= len(after.trail.entries), "a trail only grows"
