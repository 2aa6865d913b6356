r"""What people, agents, issuers and sellers may say to a purchase: signals, updates, queries.

Every signal takes one JSON object, so Temporal's CLI can send it::

    temporal workflow signal -w <purchase id> --name approve \
        --input '{"digest": "sha256:…", "approver": "alice"}'

A signal cannot answer: one that comes too late or does not count leaves a line in the
trail and, where the purchase waits, shows the fresh cart again. The update ``decide`` does the
same as ``approve`` and ``reject`` and tells the caller.
"""

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import workflows.purchase.rules as rules
    from waystation.models.decisions import (
        Approve,
        Cancel,
        Decision,
        Reject,
    )
    from waystation.models.mandates import RevokeRequest
    from waystation.models.purchases import (
        WAITS_FOR_A_PERSON,
        AuthenticationDone,
        Cart,
        OrderEventReceived,
        OutcomeWanted,
        PurchaseView,
        RetryPayment,
        Revise,
    )
    from waystation.models.trail import AuditTrail
    from waystation.temporal.names import STALE_DIGEST
    from workflows.arguments import drop_unless, refuse_unless
    from workflows.decisions import check_decision, the_one_in
    from workflows.purchase.journal import PurchaseJournal


class PurchaseInbox(PurchaseJournal):
    """The handlers. Each one only checks and writes down; the main loop acts."""

    _rolling_over = False

    @workflow.signal
    @drop_unless(Approve)
    def approve(self, approval: Approve) -> None:
        """This person agrees to the cart with this digest."""
        self._decide_or_note(approval)

    @workflow.signal
    @drop_unless(Reject)
    def reject(self, rejection: Reject) -> None:
        """This person says no."""
        self._decide_or_note(rejection)

    @workflow.update
    def decide(self, decision: Decision) -> PurchaseView:
        """Approve or reject, and be told.

        Raises:
            ApplicationError: ``NotAwaitingApproval``, ``AlreadyDecided``, ``StaleDigest``, ``NotAnApprover``,
                ``InvalidDecision``.
        """
        self._decide_or_note(the_one_in(decision), tell=True)
        return self._view()

    @decide.validator
    def _decide_is_well_formed(self, decision: Decision) -> None:
        refuse_unless(Decision, decision)

    @workflow.update
    async def outcome(self, wanted: OutcomeWanted | None = None) -> PurchaseView:
        """Wait for the end, or for a person's turn. Ask again after any other view: the run was renewed."""

        def reached() -> bool:
            waits = wanted is not None and wanted.or_for_a_person and self._waits_for_a_person()
            return self._view_is_final() or waits or self._rolling_over

        await workflow.wait_condition(reached)
        return self._view()

    @outcome.validator
    def _outcome_is_well_formed(self, wanted: OutcomeWanted | None = None) -> None:
        if wanted is not None:
            refuse_unless(OutcomeWanted, wanted)

    @workflow.signal
    @drop_unless(Revise)
    def revise(self, revision: Revise) -> None:
        """Change what is wanted; any approval is void."""
        state = self._state
        detail = {"fields": sorted(revision.model_fields_set - {"by"})}
        allowed = rules.CANCELLABLE - {"authentication_required"}
        if (
            state.status not in allowed
            or state.revisions >= rules.MAX_REVISIONS
            or state.revision is not None
        ):
            self._note_signal("revise.ignored", revision.by, {**detail, "status": state.status})
            return
        self._note_signal("revise.received", revision.by, detail)
        self._set(revision=revision)

    @workflow.signal
    @drop_unless(Cancel)
    def cancel(self, cancellation: Cancel) -> None:
        """Stop, if it is not too late."""
        if self._state.cancel is not None or self._view_is_final() or self._state.status == "undoing":
            self._note_signal("cancel.ignored", cancellation.by, {"status": self._state.status})
            return
        self._note_signal("cancel.received", cancellation.by, {"reason": cancellation.reason})
        self._set(cancel=cancellation)

    @workflow.signal
    @drop_unless(Cancel)
    def turn_stopped(self, cancellation: Cancel) -> None:
        """The turn or session that wanted this is over: stop, unless somebody has approved it."""
        if self._state.turn_stopped is None and not self._view_is_final():
            self._note_signal("turn.stopped", cancellation.by, {"reason": cancellation.reason})
            self._set(turn_stopped=cancellation)

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was taken back; sent by the mandate itself."""
        if not self._view_is_final():
            self._note_signal("mandate.revoked", revocation.by, {"reason": revocation.reason})
            self._set(revoked=True)

    @workflow.signal
    @drop_unless(AuthenticationDone)
    def authentication_result(self, result: AuthenticationDone) -> None:
        """The outcome of the issuer's authentication. Its proof is kept out of the trail."""
        taken = self._state.status == "authentication_required" and self._state.proof_received is None
        action = "authentication.received" if taken else "authentication.ignored"
        self._note_signal(action, "issuer", {"outcome": result.outcome.value})
        if taken:
            self._set(proof_received=result)

    @workflow.signal
    @drop_unless(RetryPayment)
    def retry_payment(self, retry: RetryPayment) -> None:
        """After a decline: try again, perhaps with another method of the mandate."""
        methods = self._state.mandate.payment_methods if self._state.mandate else ()
        known = retry.payment_method is None or retry.payment_method in methods
        taken = self._state.status == "payment_declined" and known
        detail = {"another_method": retry.payment_method is not None, "method_known": known}
        self._note_signal("retry.received" if taken else "retry.ignored", retry.by, detail)
        if taken:
            self._set(retry=retry)

    @workflow.signal
    @drop_unless(OrderEventReceived)
    def order_event(self, event: OrderEventReceived) -> None:
        """A webhook of the seller about the order, its signature already checked."""
        state = self._state
        if event.event_id in state.order_events or len(state.order_events) >= rules.MAX_ORDER_EVENTS:
            return
        answer = state.answer
        ours = answer is not None and event.order.checkout_id == answer.cart.checkout_id
        if not ours or (state.order is not None and event.order.id != state.order.id):
            self._note_signal("order.ignored", "seller", {"order_id": event.order.id, "ours": ours})
            return
        self._set(order_events=(*state.order_events, event.event_id))
        if event.sent_at < state.order_sent_at:
            self._note_signal("order.outdated", "seller", {"type": event.type, "sent_at": event.sent_at})
            return
        adjustments = [f"{a.type}:{a.status}:{a.amount}" for a in event.order.adjustments]
        deliveries = [f"{f.type}:{f.status}" for f in event.order.fulfillments]
        self._note_signal(
            "order.updated",
            "seller",
            {
                "type": event.type,
                "order_id": event.order.id,
                "status": event.order.status,
                "adjustments": [*adjustments],
                "fulfillments": [*deliveries],
            },
        )
        self._set(order=event.order, order_sent_at=event.sent_at)
        if self._view_is_final():
            self._announce("purchase.updated", self._summary())

    @workflow.query
    def status(self) -> PurchaseView:
        """The purchase as it stands."""
        return self._view()

    @workflow.query
    def cart(self) -> Cart | None:
        """The cart as the seller last stated it."""
        return self._state.answer.cart if self._state.answer else None

    @workflow.query
    def audit(self) -> AuditTrail:
        """Every step so far, each entry chained to the one before by its hash."""
        return self._state.trail.of(self._id)

    def _view_is_final(self) -> bool:
        return self._state.status in rules.FINAL_STATUSES

    def _waits_for_a_person(self) -> bool:
        state = self._state
        if state.status == "awaiting_approval":
            return state.decision is None and state.asked_digest == state.digest
        return state.status in WAITS_FOR_A_PERSON

    def _decide_or_note(self, wanted: Approve | Reject, *, tell: bool = False) -> None:
        kind = "approval" if isinstance(wanted, Approve) else "rejection"
        try:
            self._check_decision(wanted)
        except ApplicationError as refusal:
            detail = {"why": refusal.type, "digest": wanted.digest}
            self._note_signal(f"{kind}.refused", wanted.approver, detail)
            if refusal.type == STALE_DIGEST:
                self._show_cart()
            if tell:
                raise
            return
        self._note(f"{kind}.received", wanted.approver, {"digest": wanted.digest or self._state.digest})
        self._set(decision=wanted)

    def _check_decision(self, wanted: Approve | Reject) -> None:
        state = self._state
        decided_by = state.decision.approver if state.decision else None
        if decided_by is None and state.status != "awaiting_approval":
            approval = state.approval
            decided_by = approval.approver if approval and not approval.auto else None
        check_decision(
            wanted,
            what="purchase",
            status=state.status,
            decided_by=decided_by,
            agent=state.request.agent.id,
            approvers=state.mandate.approvers if state.mandate else (),
            digest=state.digest,
        )

    def _show_cart(self) -> None:
        """Ask for approval of exactly the cart as it stands."""
        state = self._state
        cart, mandate = (state.answer.cart if state.answer else None), state.mandate
        self._announce(
            "approval.requested",
            {
                "digest": state.digest,
                "cart": cart.model_dump(mode="json", exclude_none=True) if cart else None,
                "deadline": state.deadline.isoformat() if state.deadline else None,
                "approvers": list(mandate.approvers) if mandate else [],
                "agent": state.request.agent.model_dump(mode="json", exclude_none=True),
            },
        )
