"""Room in the mandate and a person's approval: what has to be there before a credential is minted."""

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.mandate.calls as mandates
    import workflows.policies as policies
    from activities.contract import CommitFor, ReleaseFor, ReserveFor
    from waystation.buyer.origins import origin_of
    from waystation.buyer.outcomes import counts_as_spent
    from waystation.models.decisions import Reject
    from waystation.models.mandates import (
        CommitRequest,
        HeldReservation,
        ReleaseRequest,
        ReserveAnswer,
        ReserveRequest,
    )
    from waystation.models.payments import ClosedCredential
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.paid_request.inbox import PaymentInbox
    from workflows.paid_request.journal import Detail, PaymentJournal
    from workflows.paid_request.rules import PaymentRefused
    from workflows.paid_request.state import PinnedTerms


class PaymentAuthorization:
    """Holds room in the mandate, asks people, and settles: what is held is committed or released."""

    def __init__(self, journal: PaymentJournal, inbox: PaymentInbox) -> None:
        self._journal, self._inbox = journal, inbox

    async def check_seller(self) -> None:
        """Asks before anything is sent, even unpaid: a mandate says where its agent may go."""
        mandate = await mandates.read(self._journal.start.mandate_id)
        origin = origin_of(self._journal.state.request.url)
        if not {"*", origin} & set(mandate.terms.sellers):
            raise PaymentRefused("seller_not_allowed", f"the mandate does not allow {origin}")

    async def reserve(self, terms: PinnedTerms) -> ReserveAnswer:
        """Holds the price."""
        self._inbox.raise_if_stopped()
        journal, start, offer = self._journal, self._journal.start, terms.offer
        # Written down before it is sent: whatever happens now, this key gets settled in the end.
        key = step_key(journal.id, "reserve", journal.state.credential.minted + 1)
        journal.hold(HeldReservation(key=key, amount=offer.price))
        hold = policies.HOLD_MARGIN + timedelta(seconds=start.approval_timeout_seconds)
        reserved = await mandates.reserve_for_moments(
            ReserveFor(
                mandate_id=start.mandate_id,
                request=ReserveRequest(
                    key=key,
                    amount=offer.price,
                    seller=origin_of(journal.state.request.url),
                    agent=start.agent,
                    protocol=offer.rail.protocol,
                    hold_seconds=int(hold.total_seconds()),
                    holder=journal.id,
                ),
            )
        )
        journal.note("mandate.reserved", "mandate", {"key": key, "amount": offer.price.amount})
        return reserved

    async def approve(self, terms: PinnedTerms, reserved: ReserveAnswer) -> None:
        """Waits for a person where the mandate wants one.

        Raises:
            PaymentRefused: rejected, stopped, or nobody decided in time.
        """
        journal, approval = self._journal, self._journal.state.approval
        if not reserved.approval_required:
            by = f"mandate:{journal.start.mandate_id}"
            journal.replace(approval=replace(approval, approved_by=by))
            return
        if approval.approved_by is not None:
            return  # the same terms under a fresh challenge
        deadline = workflow.now() + timedelta(seconds=journal.start.approval_timeout_seconds)
        journal.replace(approval=replace(approval, approvers=reserved.approvers, deadline=deadline))
        journal.advance("awaiting_approval")
        journal.announce("approval.requested", journal.question(terms))
        try:
            await workflow.wait_condition(
                lambda: journal.state.approval.decision is not None or self._inbox.stopped,
                timeout=journal.start.approval_timeout_seconds,
            )
        except TimeoutError:
            raise PaymentRefused("approval_expired", "nobody approved in time; ask again") from None
        self._inbox.raise_if_stopped()
        approval = journal.state.approval
        decision = approval.decision
        assert decision is not None, "the wait ends with a decision or a stop"
        if isinstance(decision, Reject):
            raise PaymentRefused(
                "rejected", f"rejected by {decision.approver}: {decision.reason or 'no reason'}"
            )
        journal.replace(approval=replace(approval, approved_by=decision.approver))
        journal.announce("approval.granted", {"digest": terms.digest, "approver": decision.approver})

    async def commit(self, closed: ClosedCredential) -> None:
        """Records what was spent, or counts as spent. If the mandate refuses, that stays on record."""
        journal, held = self._journal, self._journal.state.reservation
        if held is None:
            return
        amount = counts_as_spent(held.amount, closed)
        request = CommitRequest(key=held.key, amount=amount)
        try:
            await mandates.commit(CommitFor(mandate_id=journal.start.mandate_id, request=request))
        except CallFailure as failure:
            detail: Detail = {"key": held.key, "amount": amount, "code": failure.code}
            journal.note("mandate.commit_failed", "mandate", detail)
            return
        journal.note("mandate.committed", "mandate", {"key": held.key, "amount": amount})
        journal.hold(None)

    async def release(self, reason: str) -> bool:
        """Gives the room back; returns whether nothing is held any more, or the mandate refused."""
        journal, held = self._journal, self._journal.state.reservation
        if held is None:
            return True
        request = ReleaseRequest(key=held.key, reason=reason)
        try:
            await mandates.release(ReleaseFor(mandate_id=journal.start.mandate_id, request=request))
        except CallFailure as failure:
            journal.note("mandate.release_failed", "mandate", {"key": held.key, "code": failure.code})
            return False
        journal.note("mandate.released", "mandate", {"key": held.key, "why": reason})
        journal.hold(None)
        return True
