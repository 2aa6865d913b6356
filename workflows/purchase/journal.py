"""A purchase's state, and the only ways to change it: step, note in the trail, announce.

One frozen snapshot holds everything and is carried whole across continue-as-new.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.purchase.rules as rules
    from waystation.models.base import Frozen
    from waystation.models.decisions import (
        ApprovalRecord,
        Approve,
        Cancel,
        Refusal,
        Reject,
    )
    from waystation.models.purchases import (
        AuthenticationDone,
        CheckoutAnswer,
        FinalStatus,
        NextAction,
        OrderFacts,
        PaymentToken,
        PurchaseRequest,
        PurchaseStatus,
        PurchaseView,
        Receipt,
        RetryPayment,
        Revise,
    )
    from workflows.outbox import Outbox
    from workflows.trail import Trail
    from workflows.waiting import mark_waiting


class HeldReservation(Frozen):
    """What the mandate holds for this purchase."""

    key: str
    amount: int


class MandateFacts(Frozen):
    """What the mandate said when it was last asked."""

    approval_required: bool
    approvers: tuple[str, ...]
    owner: str
    payment_methods: tuple[str, ...]
    valid_until: datetime


class PlannedEnd(Frozen):
    """How the purchase will end once everything is undone."""

    outcome: FinalStatus
    refusal: Refusal


class PurchaseState(Frozen):
    """Everything. The counters number the steps for idempotency keys and only ever grow."""

    request: PurchaseRequest
    status: PurchaseStatus = "creating"
    updated_at: datetime

    answer: CheckoutAnswer | None = None
    digest: str | None = None
    restate: bool = False
    rounds: int = 0
    updates: int = 0
    revisions: int = 0

    mandate: MandateFacts | None = None
    reservation: HeldReservation | None = None
    reservations: int = 0
    committed: HeldReservation | None = None
    refunded: int = 0
    """What the mandate was told has come back, in minor units."""

    approval: ApprovalRecord | None = None
    asked_digest: str | None = None
    deadline: datetime | None = None

    token: PaymentToken | None = None
    issues: int = 0
    revokes: int = 0
    tries: int = 0
    method: int = 0
    methods_tried: int = 0
    proof: AuthenticationDone | None = None
    confirm_since: datetime | None = None
    confirm_rounds: int = 0
    money_moved: bool = False

    end: PlannedEnd | None = None
    cancel_sent: bool = False
    receipt: Receipt | None = None
    order: OrderFacts | None = None
    order_events: tuple[str, ...] = ()
    order_sent_at: int = 0

    # Signals that wait to be acted upon.
    decision: Approve | Reject | None = None
    cancel: Cancel | None = None
    turn_stopped: Cancel | None = None
    revoked: bool = False
    revision: Revise | None = None
    proof_received: AuthenticationDone | None = None
    retry: RetryPayment | None = None

    trail: Trail = Trail(max_entries=rules.MAX_AUDIT_ENTRIES)


class PurchaseJournal:
    """Holds the state of one purchase and keeps its trail."""

    _state: PurchaseState
    _outbox: Outbox

    @property
    def _id(self) -> str:
        return workflow.info().workflow_id

    def _set(self, **changes: Any) -> None:
        self._state = self._state.model_copy(update={**changes, "updated_at": workflow.now()})

    def _advance(self, status: PurchaseStatus, **changes: Any) -> None:
        """Take a legal step, note it, and tell the session."""
        before = self._state.status
        self._set(status=rules.advance(before, status), **changes)
        mark_waiting(before, status)
        if before != status:
            self._note("purchase.status", "waystation", {"from": before, "to": status})
            self._announce("purchase.updated", self._summary())

    def _note(self, action: str, actor: str, detail: Mapping[str, Any] | None = None) -> None:
        self._set(trail=self._state.trail.noted(action, actor, detail or {}, time=workflow.now()))

    def _note_signal(self, action: str, actor: str, detail: Mapping[str, Any] | None = None) -> None:
        """Notes what somebody else said, while there is room for that."""
        self._set(trail=self._state.trail.heard(action, actor, detail or {}, time=workflow.now()))

    def _announce(self, kind: str, data: Mapping[str, Any]) -> None:
        self._outbox.put([{"type": kind, "data": {"purchase_id": self._id, **data}}])

    def _summary(self) -> dict[str, Any]:
        """What a session's reader needs to follow a purchase; nothing secret is in it."""
        state = self._state
        cart, order = (state.answer.cart if state.answer else None), state.order
        summary: dict[str, Any] = {
            "status": state.status,
            "seller": state.request.seller,
            "currency": state.request.currency,
            "total": cart.total if cart else None,
            "digest": state.digest,
            "turn_id": state.request.turn_id,
        }
        if state.answer and state.status in ("escalated", "needs_revision"):
            summary["continue_url"] = state.answer.continue_url
            summary["messages"] = [m.model_dump(mode="json") for m in state.answer.messages]
        if state.answer and state.status == "authentication_required":
            summary["authentication"] = state.answer.authentication
            action = self._next_action()
            summary["next_action"] = action.model_dump(exclude_none=True) if action else None
        if state.end and state.status in rules.FINAL_STATUSES:
            summary["refusal"] = state.end.refusal.model_dump(mode="json")
        if order:
            summary["order"] = {"id": order.id, "status": order.status, "permalink_url": order.permalink_url}
        return {key: value for key, value in summary.items() if value is not None}

    def _next_action(self) -> NextAction | None:
        token = self._state.token if self._state.status == "authentication_required" else None
        return token.next_action if token else None

    def _view(self) -> PurchaseView:
        state, answer = self._state, self._state.answer
        waiting = state.status == "awaiting_approval"
        return PurchaseView(
            purchase_id=self._id,
            status=state.status,
            final=state.status in rules.FINAL_STATUSES,
            request=state.request,
            cart=answer.cart if answer else None,
            digest=state.digest,
            approval=state.approval,
            approval_deadline=state.deadline if waiting else None,
            messages=answer.messages if answer else (),
            continue_url=answer.continue_url if answer else None,
            authentication=answer.authentication
            if answer and state.status == "authentication_required"
            else None,
            next_action=self._next_action(),
            options=answer.options if answer else (),
            receipt=state.receipt,
            order=state.order,
            refusal=state.end.refusal if state.end else None,
            money_moved=state.money_moved,
            payment_tries=state.tries,
            updated_at=state.updated_at,
        )
