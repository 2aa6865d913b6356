"""What an allowance and its mandate say to each other: the budget is reserved once, and settled once."""

from datetime import timedelta
from typing import Final

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


REFUSES_WHAT_NEEDS_APPROVAL: Final = "allowances-refuse-what-needs-approval"
"""The patch by which allowances that hold such a budget already go on holding it, and pay nothing."""
NEEDS_APPROVAL: Final = (
    "the mandate wants a person to approve this much, and nobody approves the payments of an allowance: "
    "ask for a budget of at most the mandate's approval_threshold, or pay without an allowance"
)


def refusal_of(failure: CallFailure) -> PaymentRefusal:
    """Returns what a call to the mandate that failed for good is refused by."""
    rule = failure.code if failure.kind == MANDATE_REFUSED else "mandate_unavailable"
    return PaymentRefusal(rule=rule, message=str(failure))


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
            raise CallFailure(MANDATE_REFUSED, "allowance_invalid", "max_price must fit into the budget")
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
        if reserved.approval_required and workflow.patched(REFUSES_WHAT_NEEDS_APPROVAL):
            raise CallFailure(MANDATE_REFUSED, "approval_required", NEEDS_APPROVAL)
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
            journal.refuse(refusal_of(failure))
            journal.note("mandate.settle_failed", "mandate", {"code": failure.code})

    @property
    def _key(self) -> str:
        return step_key(self._journal.id, "budget")
