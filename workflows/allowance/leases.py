"""What a holder, a process that pays by itself, is given and reports."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.allowance.rules as allowance_rules
    import workflows.policies as policies
    from waystation.models.payments import AllowanceLease, AllowanceReport, LeaseRequest
    from workflows.allowance.journal import ALLOWANCE_CLOSED, AllowanceJournal, Detail
    from workflows.refusals import refusal

ALLOWANCE_LEASED = "AllowanceLeased"
REPORT_REFUSED = "AllowanceReportRefused"


class AllowanceLeases:
    """Leases the budget in portions to one holder at a time."""

    def __init__(self, journal: AllowanceJournal) -> None:
        self._journal = journal

    def take(self, request: LeaseRequest) -> AllowanceLease:
        """Gives the lease to a holder, or lets it go on with its own.

        Raises:
            ApplicationError: ``AllowanceLeased`` while another holder may live.
        """
        journal, ledger = self._journal, self._journal.state.ledger
        current = ledger.lease
        if current is not None and current.holder != request.holder:
            free_at = current.ends_at_seconds + int(policies.LEASE_GRACE.total_seconds())
            wait_seconds = free_at - int(workflow.now().timestamp())
            if wait_seconds > 0:
                raise refusal(
                    ALLOWANCE_LEASED, f"another process pays from it; free in {wait_seconds} seconds at most"
                )
            self._lose()
            current = None
        if current is None:
            ledger = journal.state.ledger.new_lease(request.holder)
            journal.count(ledger)
            detail: Detail = {"lease": ledger.leases, "holder": request.holder}
            journal.note("holder.leased", journal.start.agent, detail)
        return self._extended(journal.state.ledger.leases)

    def report(self, report: AllowanceReport) -> AllowanceLease:
        """Counts what a holder has paid. One that was given up for lost corrects what was assumed.

        Raises:
            ApplicationError: ``AllowanceClosed`` for a lease that never was; ``AllowanceReportRefused`` where
                more is reported than was leased: nothing of it is counted, and all that was leased stays so.
        """
        journal = self._journal
        try:
            ledger, fresh = journal.state.ledger.take_report(report)
        except allowance_rules.UnknownLeaseError as error:
            raise refusal(ALLOWANCE_CLOSED, str(error)) from None
        except allowance_rules.ReportRefusedError as error:
            journal.note_signal("report.refused", journal.start.agent, {"why": str(error)})
            raise refusal(REPORT_REFUSED, str(error)) from None
        journal.count(ledger)
        for payment in fresh:
            journal.note("payment.reported", journal.start.agent, allowance_rules.audited(payment))
        if fresh:
            journal.announce([allowance_rules.shown(payment) for payment in fresh])
            journal.calls_in_run += 1
        if report.final:
            journal.note("holder.done", journal.start.agent, {"lease": report.lease})
        return self._extended(report.lease)

    async def await_last_report(self) -> None:
        """A holder that lives reports within moments; one that is gone is given time to come back."""
        journal, lease = self._journal, self._journal.state.ledger.lease
        if lease is None:
            return
        patience = policies.LEASE_GRACE + policies.LOST_HOLDER_PATIENCE
        remaining = lease.ends_at_seconds - workflow.now().timestamp() + patience.total_seconds()
        try:
            await workflow.wait_condition(
                lambda: journal.state.ledger.lease is None, timeout=max(remaining, 1)
            )
        except TimeoutError:
            self._lose()

    def _lose(self) -> None:
        journal, lost = self._journal, self._journal.state.ledger.lease
        assert lost is not None, "only a lease can be lost"
        journal.count(journal.state.ledger.lose_lease())
        journal.note("holder.lost", "waystation", {"lease": lost.number, "counted": lost.granted})

    def _extended(self, number: int) -> AllowanceLease:
        """Returns the lease from now on, with a fresh portion of the budget."""
        journal, state = self._journal, self._journal.state
        ends_at = workflow.now() + policies.LEASE_LIFETIME
        lease = state.ledger.lease
        if lease is not None and lease.number == number:
            max_price = 0 if state.closing else journal.start.max_price.amount
            journal.count(state.ledger.extend(int(ends_at.timestamp()), max_price))
            lease = journal.state.ledger.lease
        else:
            lease = None
        methods = state.reserved.payment_methods if state.reserved else ()
        return AllowanceLease(
            number=number,
            may_spend=lease.granted if lease else 0,
            lasts_seconds=int(policies.LEASE_LIFETIME.total_seconds()),
            ends_at=ends_at,
            payment_method=journal.start.payment_method or next(iter(methods), None),
            valid_until=state.reserved.valid_until if state.reserved else ends_at,
            after_loss=bool(state.ledger.lost),
            closing=state.closing or lease is None,
        )
