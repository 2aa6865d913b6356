"""The arithmetic of an allowance holds under any interleaving of leases, reports, losses and payments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.models.money import Money
from waystation.models.payments import AllowanceReport, Rail, ReportedPayment
from workflows.allowance.rules import Ledger, ReportRefusedError

BUDGET, PRICE = 1_000, 7

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lease", "extend", "pay", "report", "repeat", "final", "lose", "late", "own"]),
        st.integers(0, 2 * PRICE),
    ),
    max_size=60,
)


def paid(number: int, amount: int) -> ReportedPayment:
    return ReportedPayment(
        number=number,
        key=f"k{number}",
        url="https://api.test/",
        method="GET",
        rail=Rail.MPP_STRIPE,
        price=Money(amount=amount, currency="usd"),
        payee="bn_1",
        amount=amount,
        money_moved="yes",
    )


class Holder:
    """One lease as its holder sees it."""

    def __init__(self, number: int) -> None:
        self.number, self.spent = number, 0
        self.payments: list[ReportedPayment] = []

    def pay(self, amount: int, may_spend: int) -> None:
        if amount and self.spent + amount <= may_spend:
            self.spent += amount
            self.payments.append(paid(len(self.payments) + 1, amount))

    def report(self, *, final: bool = False) -> AllowanceReport:
        return AllowanceReport(lease=self.number, payments=tuple(self.payments[-50:]), final=final)


@given(STEPS)
def test_the_truth_never_exceeds_what_the_ledger_counts_nor_that_the_budget(
    steps: list[tuple[str, int]],
) -> None:
    ledger, own = Ledger(budget=BUDGET), 0
    holders: list[Holder] = []
    for end, (step, amount) in enumerate(steps):
        lease = ledger.lease
        current = next((one for one in holders if lease and one.number == lease.number), None)
        lost = [one for one in holders if any(record.number == one.number for record in ledger.lost)]
        if step == "lease" and lease is None:
            ledger = ledger.new_lease("h")
            holders.append(Holder(ledger.leases))
        elif step == "extend":
            ledger = ledger.extend(end, PRICE)
        elif step == "pay" and current and lease:
            current.pay(amount, lease.granted)
        elif step in ("report", "repeat") and current:
            ledger, _ = ledger.take_report(current.report())
        elif step == "final" and current:
            ledger, _ = ledger.take_report(current.report(final=True))
        elif step == "lose":
            ledger = ledger.lose_lease()
        elif step == "late" and lost:
            ledger, _ = ledger.take_report(lost[0].report(final=True))
        elif step == "own" and lease is None and amount <= ledger.left:
            ledger = ledger.hold(amount).settle(f"o{end}", held=amount, amount=amount)
            own += amount
        truth = own + sum(one.spent for one in holders)
        assert truth <= ledger.spent + ledger.held <= BUDGET
        assert ledger.left >= 0


def test_a_repeated_report_counts_once() -> None:
    ledger = Ledger(budget=BUDGET).new_lease("h").extend(1, PRICE)
    report = AllowanceReport(lease=1, payments=(paid(1, 5), paid(2, 6)))
    for _ in range(3):
        ledger, _ = ledger.take_report(report)
    assert (ledger.spent, ledger.payments) == (11, 2)
    for _ in range(2):
        ledger, fresh = ledger.take_report(report.model_copy(update={"final": True}))
        assert fresh == ()
    assert (ledger.spent, ledger.held) == (11, 0)


def test_a_late_report_gives_back_what_was_counted_for_lost() -> None:
    ledger = Ledger(budget=BUDGET).new_lease("h").extend(1, PRICE).lose_lease()
    assert ledger.spent == 50 * PRICE
    ledger, _ = ledger.take_report(AllowanceReport(lease=1, payments=(paid(1, 5),), final=True))
    assert (ledger.spent, ledger.left) == (5, BUDGET - 5)


def test_a_report_of_more_than_was_granted_changes_nothing() -> None:
    ledger = Ledger(budget=BUDGET).new_lease("h").extend(1, PRICE)
    assert ledger.lease is not None
    too_much = paid(1, ledger.lease.granted + 1)
    for before in (ledger, ledger.lose_lease()):
        with pytest.raises(ReportRefusedError, match="is reported as spent"):
            before.take_report(AllowanceReport(lease=1, payments=(too_much,), final=True))


def test_a_ledger_never_counts_below_what_is_held_or_above_the_budget() -> None:
    with pytest.raises(AssertionError, match="exceeds the budget"):
        Ledger(budget=BUDGET).hold(BUDGET + 1)
    with pytest.raises(AssertionError, match="costs no more"):
        Ledger(budget=BUDGET).hold(5).settle("k", held=5, amount=6)
    with pytest.raises(AssertionError, match="than was held"):
        Ledger(budget=BUDGET).hold(5).settle("k", held=6, amount=6)
