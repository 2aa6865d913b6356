"""The arithmetic of an allowance, pure: spent + held never exceeds the budget.

``spent`` is what was paid and reported, or counts as that; ``held`` is what may be spent at this
moment without the ledger knowing: the payments that the workflow itself makes, and what the lease
allows beyond what was reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import JsonValue

from waystation.models.money import MinorUnits
from waystation.models.payments import (
    AllowanceAnswer,
    AllowancePayment,
    AllowanceReport,
    ReportedPayment,
)

MAX_PAYMENTS: Final = 2_000
"""Of one allowance; then a new one is opened. Keeps its trail within one payload."""
MAX_AUDIT_ENTRIES: Final = MAX_PAYMENTS + 500
PORTION_PAYMENTS: Final = 50
"""How many of the dearest payments a lease allows ahead of the next report, and what a holder that
vanishes costs at most."""


class ReportRefusedError(Exception):
    """A report that this allowance can't count; nothing of it was."""


class UnknownLeaseError(ReportRefusedError):
    """A report about a lease that this allowance never gave."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One holder's part of the budget, in minor units."""

    number: int
    holder: str
    granted: MinorUnits = 0
    """Spent and under way together, at most."""
    reported: MinorUnits = 0
    last_number: int = 0
    """Of the payments reported so far."""
    ends_at_seconds: int = 0

    def __post_init__(self) -> None:
        """Asserts what must hold of every lease; a failure is a bug of ours, never a holder's doing."""
        assert 0 <= self.reported <= self.granted, "a lease takes no report of more than it granted"


@dataclass(frozen=True, slots=True)
class Ledger:
    """All sums of an allowance, in minor units of its one currency."""

    budget: MinorUnits
    settled: MinorUnits = 0
    """By payments of the workflow itself and by leases that have ended in order."""
    paying: MinorUnits = 0
    """Held for payments of the workflow under way."""
    payments: int = 0
    lease: LeaseRecord | None = None
    lost: tuple[LeaseRecord, ...] = ()
    """Leases whose holder vanished: all that was granted counts as spent until they report."""
    leases: int = 0
    keys: tuple[str, ...] = ()
    """Of payments that the workflow itself made."""

    def __post_init__(self) -> None:
        """Asserts what must hold of every ledger; a failure is a bug of ours."""
        assert self.settled >= 0, "what was spent stays spent"
        assert self.paying >= 0, "no more is given back than was held"
        assert self.left >= 0, "spent + held never exceeds the budget"

    @property
    def spent(self) -> int:
        """What was spent or counts as spent."""
        reported = self.lease.reported if self.lease else 0
        return self.settled + reported + sum(record.granted for record in self.lost)

    @property
    def held(self) -> int:
        """What may be spent at this moment."""
        ahead = self.lease.granted - self.lease.reported if self.lease else 0
        return self.paying + ahead

    @property
    def left(self) -> int:
        """What nobody holds and nobody has spent."""
        return self.budget - self.spent - self.held

    def hold(self, amount: int) -> "Ledger":
        """Holds room for a payment of the workflow itself. ``left`` must have it."""
        return replace(self, paying=self.paying + amount)

    def settle(self, key: str, *, held: int, amount: int) -> "Ledger":
        """Records a payment of the workflow itself, for which ``held`` was held."""
        assert 0 <= amount <= held, "a payment costs no more than was held for it"
        return replace(
            self,
            paying=self.paying - held,
            settled=self.settled + amount,
            payments=self.payments + (amount > 0),
            keys=(*self.keys, key),
        )

    def new_lease(self, holder: str) -> "Ledger":
        """The next holder, with nothing granted yet."""
        assert self.lease is None, "one process at a time holds an allowance"
        record = LeaseRecord(number=self.leases + 1, holder=holder)
        return replace(self, lease=record, leases=record.number)

    def extend(self, ends_at_seconds: int, max_price: int) -> "Ledger":
        """The lease until a later moment, with a full portion ahead of what was reported."""
        if self.lease is None:
            return self
        ahead = self.lease.granted - self.lease.reported
        portion = max_price * PORTION_PAYMENTS if self.payments < MAX_PAYMENTS else 0
        granted = self.lease.granted + min(max(portion - ahead, 0), self.left)
        return replace(self, lease=replace(self.lease, granted=granted, ends_at_seconds=ends_at_seconds))

    def lose_lease(self) -> "Ledger":
        """Nobody answers for the lease: all of it counts as spent."""
        if self.lease is None:
            return self
        return replace(self, lease=None, lost=(*self.lost, self.lease))

    def take_report(self, report: AllowanceReport) -> tuple["Ledger", tuple[ReportedPayment, ...]]:
        """The ledger after a report, and which of its payments are news.

        Raises:
            UnknownLeaseError: there was no such lease.
            ReportRefusedError: more is reported than the lease allowed. All that it granted stays counted.
        """
        known = [*self.lost, *([self.lease] if self.lease else [])]
        record = next((one for one in known if one.number == report.lease), None)
        if record is None:
            if report.lease <= self.leases:
                return self, ()  # it has ended in order; its last report is repeated
            raise UnknownLeaseError(f"there is no lease {report.lease} of this allowance")
        fresh = tuple(one for one in report.payments if one.number > record.last_number)
        reported = record.reported + sum(one.amount for one in fresh)
        if reported > record.granted:
            raise ReportRefusedError(
                f"lease {record.number} allowed {record.granted}, and {reported} is reported as spent"
            )
        last_number = fresh[-1].number if fresh else record.last_number
        changed = replace(record, reported=reported, last_number=last_number)
        payments = self.payments + sum(one.amount > 0 for one in fresh)
        return replace(self._replace(changed, final=report.final), payments=payments), fresh

    def _replace(self, record: LeaseRecord, *, final: bool) -> "Ledger":
        settled = self.settled + record.reported if final else self.settled
        if self.lease is not None and self.lease.number == record.number:
            return replace(self, lease=None if final else record, settled=settled)
        others = tuple(record if one.number == record.number else one for one in self.lost)
        if final:
            others = tuple(one for one in others if one.number != record.number)
        return replace(self, lost=others, settled=settled)


def newest_answers(answers: Mapping[str, AllowanceAnswer], limit_bytes: int) -> dict[str, AllowanceAnswer]:
    """The newest answers that fit together into a size, oldest first."""
    kept: dict[str, AllowanceAnswer] = {}
    size_bytes = 0
    for key, answer in reversed(list(answers.items())):
        size_bytes += len(answer.model_dump_json())
        if size_bytes > limit_bytes:
            break
        kept[key] = answer
    return dict(reversed(list(kept.items())))


def audited(payment: ReportedPayment) -> dict[str, JsonValue]:
    """A reported payment as its entry in the trail says it."""
    return payment.model_dump(mode="json", exclude={"price"}, exclude_none=True) | {
        "price": payment.price.amount,
        "currency": payment.price.currency,
    }


def audited_answer(payment: AllowancePayment, answer: AllowanceAnswer) -> dict[str, JsonValue]:
    """A payment of the workflow itself as its entry in the trail says it."""
    return {
        "key": payment.key,
        "url": payment.request.url,
        "method": payment.request.method,
        "amount": answer.amount,
        "money_moved": answer.money_moved,
        "rule": answer.refusal.rule if answer.refusal else None,
        "answer_sha256": answer.answer.body_sha256 if answer.answer else None,
        "receipt": answer.receipt.reference if answer.receipt else None,
        "credential": answer.credential_fingerprint,
    }


def shown(payment: ReportedPayment) -> dict[str, JsonValue]:
    """A reported payment as the session's readers see it."""
    return {
        "key": payment.key,
        "status": _status(delivered=payment.rule is None, moved=payment.money_moved),
        "url": payment.url,
        "rail": payment.rail.value,
        "amount": payment.amount,
        "currency": payment.price.currency,
        "payee": payment.payee,
        "money_moved": payment.money_moved,
    }


def shown_answer(payment: AllowancePayment, answer: AllowanceAnswer, currency: str) -> dict[str, JsonValue]:
    """A payment of the workflow itself as the session's readers see it."""
    return {
        "key": payment.key,
        "status": _status(delivered=answer.answer is not None, moved=answer.money_moved),
        "url": payment.request.url,
        "amount": answer.amount,
        "currency": currency,
        "money_moved": answer.money_moved,
    }


def _status(*, delivered: bool, moved: str) -> str:
    """In the words of a paid request's statuses."""
    if delivered:
        return "delivered"
    return {"no": "failed", "yes": "undelivered"}.get(moved, "unknown")
