"""What people, agents, issuers and sellers say to a purchase, checked and written down; the main loop acts.

A signal cannot answer. One that comes too late or does not count leaves a line in the trail and, where the
purchase waits for a decision on another cart, shows the present cart again.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import workflows.purchase.orders as orders
    import workflows.purchase.rules as rules
    from waystation.models.decisions import Approve, Cancel, Reject
    from waystation.models.mandates import RevokeRequest
    from waystation.models.proofs import ProofVerdict
    from waystation.models.purchases import (
        AuthenticationDone,
        OrderEventReceived,
        RetryPayment,
        Revise,
    )
    from waystation.temporal.names import STALE_DIGEST
    from workflows.decisions import check_decision, kind_of, refused_entry
    from workflows.proofs import verdict_on
    from workflows.purchase.journal import PurchaseJournal
    from workflows.purchase.rules import PurchaseRefusal


class PurchaseInbox:
    """Takes what is said to a purchase, and lets its steps wait for it."""

    def __init__(self, journal: PurchaseJournal) -> None:
        self._journal = journal

    # What is said

    async def decide(self, wanted: Approve | Reject, *, tell: bool = False) -> None:
        """Takes an approval or a rejection, once its proof is checked.

        Raises:
            ApplicationError: the decision does not count; only with ``tell``.
        """
        journal = self._journal
        kind = "approval" if isinstance(wanted, Approve) else "rejection"
        verdict = await verdict_on(kind_of(wanted), wanted, wanted.proof)
        # From here on nothing waits: what is checked is what is decided on.
        try:
            self._check_decision(wanted, verdict)
        except ApplicationError as refusal:
            entry = refused_entry(wanted.approver, verdict, {"why": refusal.type, "digest": wanted.digest})
            journal.note_signal(f"{kind}.refused", *entry)
            if refusal.type == STALE_DIGEST:
                self.show_cart()
            if tell:
                raise
            return
        digest = wanted.digest or journal.state.checkout.digest
        journal.note(f"{kind}.received", wanted.approver, {"digest": digest, "key": verdict.key})
        journal.replace(inbox=replace(journal.state.inbox, decision=wanted))

    def revise(self, revision: Revise) -> None:
        """Takes a change of what is wanted."""
        journal, state = self._journal, self._journal.state
        fields = sorted(revision.model_fields_set - {"by"})
        allowed = rules.CANCELLABLE - {"authentication_required"}
        if (
            state.status not in allowed
            or state.checkout.revisions >= rules.MAX_REVISIONS
            or state.inbox.revision is not None
        ):
            journal.note_signal("revise.ignored", revision.by, {"fields": [*fields], "status": state.status})
            return
        journal.note_signal("revise.received", revision.by, {"fields": [*fields]})
        journal.replace(inbox=replace(journal.state.inbox, revision=revision))

    def cancel(self, cancellation: Cancel) -> None:
        """Takes somebody's wish to stop."""
        journal, state = self._journal, self._journal.state
        if state.inbox.cancel is not None or journal.is_final or state.status == "undoing":
            journal.note_signal("cancel.ignored", cancellation.by, {"status": state.status})
            return
        journal.note_signal("cancel.received", cancellation.by, {"reason": cancellation.reason})
        journal.replace(inbox=replace(journal.state.inbox, cancel=cancellation))

    def turn_stopped(self, cancellation: Cancel) -> None:
        """Takes note that the turn or session that wanted this is over."""
        journal = self._journal
        if journal.state.inbox.turn_stopped is None and not journal.is_final:
            journal.note_signal("turn.stopped", cancellation.by, {"reason": cancellation.reason})
            journal.replace(inbox=replace(journal.state.inbox, turn_stopped=cancellation))

    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """Takes note that the mandate was revoked."""
        journal = self._journal
        if not journal.is_final:
            journal.note_signal("mandate.revoked", revocation.by, {"reason": revocation.reason})
            journal.replace(inbox=replace(journal.state.inbox, revoked=True))

    def authentication_result(self, result: AuthenticationDone) -> None:
        """Takes the outcome of the issuer's authentication. Its proof is kept out of the trail."""
        journal, state = self._journal, self._journal.state
        taken = state.status == "authentication_required" and state.inbox.proof is None
        action = "authentication.received" if taken else "authentication.ignored"
        journal.note_signal(action, "issuer", {"outcome": result.outcome.value})
        if taken:
            journal.replace(inbox=replace(journal.state.inbox, proof=result))

    async def retry_payment(self, retry: RetryPayment) -> None:
        """Takes the wish to try again after a decline, perhaps with another method of the mandate."""
        verdict = await verdict_on("retry", retry, retry.proof)
        journal, state = self._journal, self._journal.state
        mandate = state.authorization.mandate
        known = retry.payment_method is None or (
            mandate is not None and retry.payment_method in mandate.payment_methods
        )
        taken = verdict.valid and state.status == "payment_declined" and known
        detail = {"another_method": retry.payment_method is not None, "method_known": known}
        entry = refused_entry(retry.by, verdict, detail)
        journal.note_signal("retry.received" if taken else "retry.ignored", *entry)
        if taken:
            journal.replace(inbox=replace(journal.state.inbox, retry=retry))

    def order_event(self, event: OrderEventReceived) -> None:
        """Takes a webhook of the seller about the order, whose signature was checked before.

        It moves the order forward at once, and makes the purchase read the order from the seller.
        """
        journal, completion = self._journal, self._journal.state.completion
        answer, order = journal.state.checkout.answer, completion.order
        ours = answer is not None and event.order.checkout_id == answer.cart.checkout_id
        if not ours or (order is not None and event.order.id != order.id):
            journal.note_signal("order.ignored", "seller", {"order_id": event.order.id, "ours": ours})
            return
        is_later = event.sent_at >= completion.order_sent_at
        after = orders.merged(order, event.order, is_later=is_later)
        sent_at = max(completion.order_sent_at, event.sent_at)
        journal.replace(
            completion=replace(completion, order=after, order_sent_at=sent_at, order_heard_of=True)
        )
        if after == order:
            if event.order != order:
                journal.note_signal("order.outdated", "seller", rules.order_event_facts(event))
            return
        journal.note_signal("order.updated", "seller", rules.order_event_facts(event))
        if journal.is_final:
            journal.announce("purchase.updated", journal.summary())

    # What waits for it

    def waits_for_a_person(self) -> bool:
        """Whether nothing happens until somebody does something."""
        return self._journal.state.waits_for_a_person

    def show_cart(self) -> None:
        """Asks for approval of exactly the cart as it stands."""
        state = self._journal.state
        answer, mandate = state.checkout.answer, state.authorization.mandate
        self._journal.announce(
            "approval.requested",
            {
                "digest": state.checkout.digest,
                "cart": answer.cart.model_dump(mode="json", exclude_none=True) if answer else None,
                "deadline": state.deadline.isoformat() if state.deadline else None,
                "approvers": [*mandate.approvers] if mandate else [],
                "agent": state.request.agent.model_dump(mode="json", exclude_none=True),
            },
        )

    async def wait_for(
        self,
        arrived: Callable[[], bool],
        *,
        until: datetime,
        late: PurchaseRefusal,
        poll: timedelta | None = None,
    ) -> bool:
        """Waits for something; a wish to stop goes first. Returns ``False`` when it is time to poll.

        Raises:
            PurchaseRefusal: ``late`` at the deadline, or the wish to stop.
        """

        def something() -> bool:
            return arrived() or self._stop_wanted()

        remaining = until - workflow.now()
        wait = min(remaining, poll) if poll else remaining
        if not something():
            try:
                await workflow.wait_condition(something, timeout=max(wait.total_seconds(), 0))
            except TimeoutError:
                if workflow.now() >= until:
                    raise late from None
                return False
        self.raise_if_stopped()
        return arrived()

    def raise_if_stopped(self) -> None:
        """Follows a wish to stop.

        Raises:
            PurchaseRefusal: somebody canceled, or the mandate was revoked.
        """
        if self._journal.state.inbox.revoked:
            raise PurchaseRefusal("mandate_revoked", "the mandate was revoked; ask for a new one")
        wish = self._cancellation()
        if wish is not None:
            raise PurchaseRefusal(
                "canceled", f"canceled by {wish.by}: {wish.reason or 'no reason given'}", "canceled"
            )

    def _stop_wanted(self) -> bool:
        return self._journal.state.inbox.revoked or self._cancellation() is not None

    def _cancellation(self) -> Cancel | None:
        """Somebody's wish to stop; that of a stopped turn counts until somebody has approved."""
        state = self._journal.state
        approved = state.approval.record is not None or isinstance(state.inbox.decision, Approve)
        return state.inbox.cancel or (None if approved else state.inbox.turn_stopped)

    def _check_decision(self, wanted: Approve | Reject, verdict: ProofVerdict) -> None:
        state = self._journal.state
        decided_by = state.inbox.decision.approver if state.inbox.decision else None
        if decided_by is None and state.status != "awaiting_approval":
            approval = state.approval.record
            decided_by = approval.approver if approval and not approval.auto else None
        check_decision(
            wanted,
            verdict,
            what="purchase",
            status=state.status,
            decided_by=decided_by,
            wanted_by=(state.request.agent.id, *state.checkout.revised_by),
            approvers=state.authorization.mandate.approvers if state.authorization.mandate else (),
            digest=state.checkout.digest,
        )
