"""What people and the mandate say to a paid request, checked and written down; the workflow acts."""

from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from waystation.models.decisions import Approve, Cancel, Reject
    from waystation.models.mandates import RevokeRequest
    from workflows.decisions import check_decision, kind_of, refused_entry
    from workflows.paid_request.journal import PaymentJournal
    from workflows.paid_request.rules import PaymentRefused
    from workflows.proofs import verdict_on


class PaymentInbox:
    """Takes what is said, and lets the steps look at it."""

    def __init__(self, journal: PaymentJournal) -> None:
        self._journal = journal

    async def decide(self, wanted: Approve | Reject, *, tell: bool = False) -> None:
        """Takes an approval or a rejection, once its proof is checked.

        Raises:
            ApplicationError: the decision does not count; only with ``tell``.
        """
        verdict = await verdict_on(kind_of(wanted), wanted, wanted.proof)
        # From here on nothing waits: what is checked is what is decided on.
        journal, state = self._journal, self._journal.state
        kind = "approval" if isinstance(wanted, Approve) else "rejection"
        decided = state.approval.decision
        try:
            check_decision(
                wanted,
                verdict,
                what="payment",
                # Once it is refused, all that is left is to give its room in the mandate back.
                status=state.status if state.result.refusal is None else "refused",
                decided_by=decided.approver if decided else None,
                wanted_by=(journal.start.agent,),
                approvers=state.approval.approvers,
                digest=state.terms.digest if state.terms else None,
            )
        except ApplicationError as refusal:
            entry = refused_entry(wanted.approver, verdict, {"why": refusal.type, "digest": wanted.digest})
            journal.note_signal(f"{kind}.refused", *entry)
            if tell:
                raise
            return
        detail = {"digest": wanted.digest, "key": verdict.key}
        journal.note_signal(f"{kind}.received", wanted.approver, detail)
        journal.replace(approval=replace(journal.state.approval, decision=wanted))

    def cancel(self, cancellation: Cancel) -> None:
        """Takes somebody's wish to stop."""
        journal = self._journal
        journal.note_signal("cancel.received", cancellation.by, {"reason": cancellation.reason})
        stop = journal.state.stop
        journal.replace(stop=replace(stop, cancel=stop.cancel or cancellation))

    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """Takes note that the mandate was revoked."""
        journal = self._journal
        journal.note_signal("mandate.revoked", revocation.by, {"reason": revocation.reason})
        stop = journal.state.stop
        journal.replace(stop=replace(stop, revoked=stop.revoked or revocation))

    @property
    def stopped(self) -> bool:
        """Whether anybody wants it to stop."""
        stop = self._journal.state.stop
        return stop.cancel is not None or stop.revoked is not None

    def raise_if_stopped(self) -> None:
        """Raises ``PaymentRefused`` where somebody wants it to stop."""
        stop = self._journal.state.stop
        if stop.revoked is not None:
            raise PaymentRefused("mandate_revoked", "the mandate was revoked; ask for a new one")
        if stop.cancel is not None:
            raise PaymentRefused("canceled", f"canceled by {stop.cancel.by}")
