"""The arithmetic of an allowance holds under any interleaving of leases, reports, losses and payments."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pydantic import TypeAdapter

from tests.support import examples
from waystation.models.money import Money
from waystation.models.payments import AllowanceReport, Rail, ReportedPayment
from workflows.allowance.rules import Ledger, ReportRefusedError, UnknownLeaseError

BUDGET, PRICE = 1_000, 7
AMOUNTS = st.integers(0, 2 * PRICE)


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


class AnyInterleaving(RuleBasedStateMachine):
    """Holders that pay, report, vanish and come back, the workflow's own payments, and liars."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(budget=BUDGET)
        self.holders: list[Holder] = []
        self.own = 0
        """Paid by the workflow itself."""
        self.under_way: dict[str, int] = {}
        """What is held for payments of the workflow itself."""
        self.clock = self.keys = 0

    def current(self) -> Holder | None:
        lease = self.ledger.lease
        return next((one for one in self.holders if lease and one.number == lease.number), None)

    def take(self, report: AllowanceReport) -> tuple[ReportedPayment, ...]:
        before = self.ledger
        self.ledger, fresh = before.take_report(report)
        assert self.ledger.payments - before.payments == sum(one.amount > 0 for one in fresh)
        again, news = self.ledger.take_report(report)
        assert (again, news) == (self.ledger, ()), "a report that is repeated counts once"
        return fresh

    @precondition(lambda self: self.ledger.lease is None)
    @rule()
    def lease(self) -> None:
        self.ledger = self.ledger.new_lease("h")
        self.holders.append(Holder(self.ledger.leases))

    @rule(price=st.sampled_from([1, PRICE, 3 * PRICE]))
    def extend(self, price: int) -> None:
        self.clock += 1
        before = self.ledger
        self.ledger = before.extend(self.clock, price)
        if before.lease and self.ledger.lease:
            assert self.ledger.lease.granted >= before.lease.granted, "what was granted stays granted"

    @precondition(lambda self: self.current() is not None)
    @rule(amount=AMOUNTS)
    def pay(self, amount: int) -> None:
        holder, lease = self.current(), self.ledger.lease
        assert holder is not None
        assert lease is not None
        holder.pay(amount, lease.granted)

    @precondition(lambda self: self.current() is not None)
    @rule(final=st.booleans())
    def report(self, final: bool) -> None:
        holder = self.current()
        assert holder is not None
        self.take(holder.report(final=final))
        assert (self.ledger.lease is None) == final

    @rule()
    def lose(self) -> None:
        self.ledger = self.ledger.lose_lease()

    @precondition(lambda self: self.ledger.lost)
    @rule(final=st.booleans(), data=st.data())
    def come_back(self, final: bool, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([one.number for one in self.ledger.lost]))
        holder = next(one for one in self.holders if one.number == number)
        self.take(holder.report(final=final))
        assert final != any(one.number == number for one in self.ledger.lost)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), amount=AMOUNTS)
    def report_of_what_was_settled(self, data: st.DataObject, amount: int) -> None:
        """Whatever a holder says whose lease has ended in order, it was its last word."""
        holder = data.draw(st.sampled_from(self.holders))
        open_leases = [*self.ledger.lost, *([self.ledger.lease] if self.ledger.lease else [])]
        if any(one.number == holder.number for one in open_leases):
            return
        payments = (*holder.payments, paid(len(holder.payments) + 1, amount))[-50:]
        said = AllowanceReport(lease=holder.number, payments=payments, final=True)
        assert self.ledger.take_report(said) == (self.ledger, ())

    @rule(ahead=st.integers(1, 3), amount=AMOUNTS)
    def lie_about_a_lease(self, ahead: int, amount: int) -> None:
        with pytest.raises(UnknownLeaseError):
            self.ledger.take_report(
                AllowanceReport(lease=self.ledger.leases + ahead, payments=(paid(1, amount),))
            )

    @precondition(lambda self: self.ledger.lease is not None)
    @rule(more=AMOUNTS)
    def lie_about_a_sum(self, more: int) -> None:
        lease = self.ledger.lease
        assert lease is not None
        too_much = paid(lease.last_number + 1, lease.granted - lease.reported + 1 + more)
        with pytest.raises(ReportRefusedError):
            self.ledger.take_report(AllowanceReport(lease=lease.number, payments=(too_much,), final=True))

    @precondition(lambda self: self.ledger.lease is None)
    @rule(amount=AMOUNTS)
    def begin_a_payment(self, amount: int) -> None:
        if amount <= self.ledger.left:
            self.keys += 1
            self.ledger = self.ledger.hold(amount)
            self.under_way[f"o{self.keys}"] = amount

    @precondition(lambda self: self.under_way)
    @rule(share=st.integers(0, 100))
    def end_a_payment(self, share: int) -> None:
        key, held = next(iter(self.under_way.items()))
        del self.under_way[key]
        amount = held * share // 100
        self.ledger = self.ledger.settle(key, held=held, amount=amount)
        self.own += amount
        assert key in self.ledger.keys

    @rule()
    def carry_over(self) -> None:
        adapter = TypeAdapter(Ledger)
        again = adapter.validate_json(adapter.dump_json(self.ledger))
        assert again == self.ledger
        self.ledger = again

    @invariant()
    def the_truth_never_exceeds_what_the_ledger_counts_nor_that_the_budget(self) -> None:
        truth = self.own + sum(one.spent for one in self.holders)
        assert truth <= self.ledger.spent + self.ledger.held <= BUDGET
        assert self.ledger.left >= 0
        assert self.ledger.paying == sum(self.under_way.values())

    @invariant()
    def with_every_report_in_the_ledger_says_the_truth(self) -> None:
        if self.ledger.lease is None and not self.ledger.lost and not self.under_way:
            assert self.ledger.spent == self.own + sum(one.spent for one in self.holders)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=examples(60), stateful_step_count=40)


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
