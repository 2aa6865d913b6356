"""What an allowance and its mandate say to each other: the budget is reserved once, and settled once."""

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.mandate.calls as mandates
    import workflows.policies as policies
    from activities.contract import MANDATE_REFUSED, CommitFor, ReleaseFor, ReserveFor
    from waystation.models.mandates import CommitRequest, ReleaseRequest, ReserveRequest
    from waystation.models.payments import PaymentRefusal
    from workflows.allowance.journal import AllowanceJournal
    from workflows.calls import CallFailure
    from workflows.keys import step_key


class AllowanceAuthorization:
    """Holds the budget in the mandate."""

    def __init__(self, journal: AllowanceJournal) -> None:
        self._journal = journal

    async def open(self) -> None:
        """Reserves the budget, if that was not done by an earlier run.

        Raises:
            CallFailure: the mandate refuses it, or can't be asked.
        """
        journal, start = self._journal, self._journal.start
        if journal.state.reserved is not None:
            return
        journal.end_at(int(workflow.now().timestamp()) + start.lifetime_seconds)
        if start.max_price.currency != start.budget.currency or not start.max_price <= start.budget:
            raise CallFailure("AllowanceInvalid", "allowance_invalid", "max_price must fit into the budget")
        hold = timedelta(seconds=start.lifetime_seconds) + policies.HOLD_MARGIN
        reserved = await mandates.reserve(
            ReserveFor(
                mandate_id=start.mandate_id,
                request=ReserveRequest(
                    key=self._key,
                    amount=start.budget,
                    seller=start.seller,
                    agent=start.agent,
                    protocol=start.rails[0].protocol,
                    other_protocols=tuple(rail.protocol for rail in start.rails[1:]),
                    many_payments=True,
                    hold_seconds=int(hold.total_seconds()),
                    holder=journal.id,
                ),
            )
        )
        if start.payment_method is not None and start.payment_method not in reserved.payment_methods:
            raise CallFailure(
                MANDATE_REFUSED, "payment_method_not_allowed", "the mandate doesn't name this payment method"
            )
        journal.open(reserved)
        budget = start.budget
        journal.note("mandate.reserved", "mandate", {"amount": budget.amount, "currency": budget.currency})

    async def settle(self) -> None:
        """Commits what was spent, and what nobody accounted for; the rest goes back."""
        journal, mandate_id = self._journal, self._journal.start.mandate_id
        spent = journal.state.ledger.spent + journal.state.ledger.held
        try:
            if spent:
                commit = CommitRequest(key=self._key, amount=spent)
                await mandates.commit(CommitFor(mandate_id=mandate_id, request=commit))
                journal.note("mandate.committed", "mandate", {"amount": spent})
            else:
                release = ReleaseRequest(key=self._key, reason="nothing was spent")
                await mandates.release(ReleaseFor(mandate_id=mandate_id, request=release))
                journal.note("mandate.released", "mandate", {})
        except CallFailure as failure:
            journal.refuse(PaymentRefusal(rule=failure.code, message=str(failure)))
            journal.note("mandate.settle_failed", "mandate", {"code": failure.code})

    @property
    def _key(self) -> str:
        return step_key(self._journal.id, "budget")
