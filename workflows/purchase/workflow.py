"""The Purchase workflow: one checkout over ACP, approved, paid at most once, or undone.

create → make ready → check and reserve → approve → issue a token → complete → commit.
Each status has one method below; the loop runs them until the purchase is final. What is
refused, rejected, canceled or broken on the way goes through ``undoing``: revoke the token
(whose answer tells for sure whether money moved), cancel the checkout, release the
reservation. Idempotency keys come from the workflow id and the step's number alone.
"""

import asyncio
from datetime import timedelta

from pydantic import ValidationError
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.mandate.calls as mandates
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.rules as rules
    from activities.contract import ChangeCheckout, OpenCheckout, ReserveFor
    from waystation.models.base import Frozen
    from waystation.models.commerce import CheckoutStatus
    from waystation.models.decisions import ApprovalRecord, Approve, Cancel
    from waystation.models.mandates import ReserveRequest
    from waystation.models.money import Money
    from waystation.models.purchases import CartFulfillment, PurchaseRequest, PurchaseView
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.outbox import Outbox
    from workflows.purchase.calls import as_refusal
    from workflows.purchase.journal import HeldReservation, MandateFacts, PurchaseState
    from workflows.purchase.order_events import order_events_id
    from workflows.purchase.payment import PurchasePayment
    from workflows.purchase.rules import PurchaseRefusal

MAX_EVENTS_BEFORE_ROLLOVER = 4_000
"""History events after which the purchase continues as new between two steps."""


class PurchaseStart(Frozen):
    """What starts a purchase; ``state`` carries it over into a new run."""

    request: PurchaseRequest
    state: PurchaseState | None = None
    notes: int = 0
    """How many notes the session was sent by earlier runs."""


@workflow.defn(name="Purchase", failure_exception_types=[ValidationError])
class Purchase(PurchasePayment):
    """One purchase. Its workflow id is the purchase's id, and the root of its idempotency keys."""

    @workflow.init
    def __init__(self, start: PurchaseStart) -> None:
        self._state = start.state or PurchaseState(request=start.request, updated_at=workflow.now())
        self._outbox = Outbox(
            self._state.request.session_id, numbered=start.notes, on_closed=self._session_is_closed
        )

    @workflow.run
    async def run(self, start: PurchaseStart) -> PurchaseView:
        """Live until the purchase is final, then, if it was completed, follow its order."""
        telling = self._outbox.start()
        if not self._state.trail.entries:
            self._note_request()
        while not self._view_is_final():
            await self._renew_if_long(start)
            await self._guarded_step()
        if self._state.status == "completed":
            await self._follow_order(start)
        await workflow.wait_condition(lambda: self._outbox.empty and workflow.all_handlers_finished())
        telling.cancel()
        return self._view()

    # --- the loop ------------------------------------------------------------------------------

    async def _guarded_step(self) -> None:
        try:
            await self._step()
        except PurchaseRefusal as refusal:
            self._plan_end(refusal)
        except CallFailure as failure:
            self._plan_end(as_refusal(failure))
        except ValidationError:
            # A value that fits the protocol but none of our own models: end it in order, don't fall over.
            self._plan_end(PurchaseRefusal("value_out_of_bounds", "a value is beyond our limits", "failed"))
        except asyncio.CancelledError:
            self._note("workflow.cancel", "operator", {"status": self._state.status})
            if self._state.status == "paying":
                self._advance("confirming")
            elif self._state.status not in ("confirming", "undoing"):
                self._plan_end(PurchaseRefusal("canceled", "the workflow was canceled", "canceled"))

    async def _step(self) -> None:
        match self._state.status:
            case "creating":
                await self._create()
            case "preparing":
                await self._prepare()
            case "needs_revision":
                await self._await_revision()
            case "awaiting_approval":
                await self._await_approval()
            case "escalated":
                await self._await_escalation()
            case "paying":
                await self._pay()
            case "authentication_required":
                await self._await_authentication()
            case "payment_declined":
                await self._after_decline()
            case "confirming":
                await self._confirm()
            case "undoing":
                await self._undo()

    def _order_has_news(self) -> bool:
        return self._is_long() or self._refunded() > self._state.refunded

    def _is_long(self) -> bool:
        info = workflow.info()
        return (
            info.get_current_history_length() > MAX_EVENTS_BEFORE_ROLLOVER
            or info.is_continue_as_new_suggested()
        )

    async def _renew_if_long(self, start: PurchaseStart) -> None:
        if not self._is_long():
            return
        self._rolling_over = True  # lets callers of ``outcome`` go, to ask again
        await workflow.wait_condition(lambda: self._outbox.empty and workflow.all_handlers_finished())
        workflow.continue_as_new(
            PurchaseStart(request=start.request, state=self._state, notes=self._outbox.numbered)
        )

    def _session_is_closed(self) -> None:
        self.turn_stopped(Cancel(by="waystation", reason="the session is closed"))

    # --- create and prepare --------------------------------------------------------------------

    def _note_request(self) -> None:
        request = self._state.request
        self._note(
            "purchase.requested",
            request.agent.id,
            {
                "mandate_id": request.mandate_id,
                "seller": request.seller,
                "items": [f"{item.quantity} x {item.id}" for item in request.items],
                "currency": request.currency,
                "session_id": request.session_id,
            },
        )
        self._announce("purchase.updated", self._summary())

    async def _create(self) -> None:
        self._raise_if_stopped()
        if len(self._id) > 200:
            raise PurchaseRefusal("purchase_id_too_long", "use a workflow id of at most 200 characters")
        request = self._state.request
        mandate = await mandates.read(request.mandate_id)
        rules.check_request(request, mandate)
        call = OpenCheckout(
            request=request, purchase_id=self._id, idempotency_key=step_key(self._id, "create")
        )
        self._take(await purchase_calls.open_checkout(call), "checkout.created")
        self._advance("preparing")

    async def _prepare(self) -> None:
        self._raise_if_stopped()
        answer = self._answer()
        if self._state.revision is not None:
            self._apply_revision()
        if self._state.rounds >= rules.MAX_PREPARATION_ROUNDS:
            raise PurchaseRefusal(
                "checkout_not_ready", "the seller's checkout does not become ready; try another cart"
            )
        if self._state.restate and answer.status.is_open:
            await self._update(())
            return
        plan = rules.next_preparation(self._state.request, answer)
        if plan.step == "closed":
            raise PurchaseRefusal(
                f"checkout_{answer.status.value}", f"the seller's checkout is {answer.status.value}", "failed"
            )
        if plan.step == "pay_elsewhere_done":
            self._advance("confirming")
        elif plan.step == "escalate":
            self._advance("escalated", deadline=self._person_deadline())
        elif plan.step == "wait":
            await workflow.sleep(rules.poll_delay(self._state.rounds))
            self._set(rounds=self._state.rounds + 1)
            self._take(await purchase_calls.read_checkout(self._checkout()), "checkout.read")
        elif plan.step == "update":
            await self._update(plan.select)
        elif plan.step == "revise":
            self._advance("needs_revision", deadline=self._revision_deadline())
        else:
            await self._reserve_and_route()

    async def _update(self, select: tuple[CartFulfillment, ...]) -> None:
        state = self._state
        number = state.updates + 1
        self._set(updates=number, rounds=state.rounds + 1)
        call = ChangeCheckout(
            checkout=self._checkout(),
            request=state.request,
            select=select,
            restate=state.restate,
            # Two names: after a worker's death in the middle, a revision may come where a selection went.
            idempotency_key=step_key(self._id, "update" if state.restate else "select", number),
        )
        try:
            answer = await purchase_calls.update_checkout(call)
        except CallFailure as failure:
            if failure.kind != contract.SELLER_REFUSED or not state.restate:
                raise
            # What a person revised does not suit the seller: say so and let it be revised again.
            self._note("checkout.update_refused", "seller", {"code": failure.code, "message": str(failure)})
            self._advance("needs_revision", restate=False, deadline=self._revision_deadline())
            return
        self._set(restate=False)
        self._take(answer, "checkout.updated")

    async def _reserve_and_route(self) -> None:
        """The checkout is ready: check the cart, set the amount aside, and see who has to agree."""
        total = rules.check_cart(self._state.request, self._answer())
        if self._answer().handler_id is None or self._answer().cart.payee is None:
            raise PurchaseRefusal(
                "no_payment_handler",
                "the seller offers no way to pay by a shared payment token for a stated account",
            )
        held = self._state.reservation
        if held is not None and held.amount != total:
            await self._release("the total changed")
        await self._reserve(total)
        self._raise_if_stopped()
        if self._approval_stands():
            self._advance("paying")
        elif self._mandate().approval_required:
            self._advance("awaiting_approval", deadline=self._person_deadline(), decision=None)
        else:
            approval = ApprovalRecord(
                digest=self._digest(),
                approver=f"mandate:{self._state.request.mandate_id}",
                at=workflow.now(),
                auto=True,
            )
            self._set(approval=approval)
            self._note("approval.automatic", "mandate", {"digest": approval.digest, "total": total})
            self._announce(
                "approval.granted", {"digest": approval.digest, "approver": "mandate", "auto": True}
            )
            self._advance("paying")

    async def _reserve(self, total: int) -> None:
        """Reserve, or have the reservation confirmed; both are the same request to the mandate."""
        state, request = self._state, self._state.request
        held = state.reservation is not None
        number = state.reservations if held else state.reservations + 1
        key = step_key(self._id, "reserve", number)
        # Written down before it is sent: whatever happens now, this key gets released in the end.
        self._set(reservation=HeldReservation(key=key, amount=total), reservations=number)
        address = request.fulfillment_details.address if request.fulfillment_details else None
        hold = timedelta(seconds=request.approval_timeout_seconds) + policies.HOLD_MARGIN
        ask = mandates.confirm if held else mandates.reserve
        answer = await ask(
            ReserveFor(
                mandate_id=request.mandate_id,
                request=ReserveRequest(
                    key=key,
                    amount=Money(amount=total, currency=request.currency),
                    seller=request.seller,
                    agent=request.agent.id,
                    protocol="acp",
                    hold_seconds=int(hold.total_seconds()),
                    holder=self._id,
                    item_ids=tuple(item.id for item in request.items),
                    ship_to_country=address.country if address else None,
                ),
            )
        )
        facts = MandateFacts(
            approval_required=answer.approval_required,
            approvers=answer.approvers,
            owner=answer.owner,
            payment_methods=answer.payment_methods,
            valid_until=answer.valid_until,
        )
        self._set(mandate=facts)
        if not held:
            self._note(
                "mandate.reserved", "mandate", {"key": key, "amount": total, "currency": request.currency}
            )

    def _apply_revision(self) -> None:
        revision, request = self._state.revision, self._state.request
        if revision is None:
            return
        changes = {name: getattr(revision, name) for name in revision.model_fields_set - {"by"}}
        changes = {name: value for name, value in changes.items() if value is not None}
        if "items" in changes or "fulfillment_details" in changes:
            changes.setdefault("fulfillment_option", None)  # the old one may not exist for the new cart
        self._set(
            request=request.model_copy(update=changes),
            revision=None,
            revisions=self._state.revisions + 1,
            restate=True,
            rounds=0,
        )
        self._void_approval("the cart was revised")

    async def _await_revision(self) -> None:
        state = self._state
        messages = "; ".join(m.text for m in self._answer().messages if m.type == "error")
        codes = sorted(self._answer().error_codes())
        rule = codes[0] if codes else "checkout_not_ready"
        late = PurchaseRefusal(rule, f"the seller's checkout is not payable: {messages or 'no reason given'}")
        until = state.deadline or self._revision_deadline()
        if await self._wait_for(lambda: self._state.revision is not None, until=until, late=late):
            self._apply_revision()
            self._advance("preparing")

    async def _await_escalation(self) -> None:
        """A person goes on at the seller's own page; read until something changed."""
        late = PurchaseRefusal("escalation_expired", "nobody went on at the seller's page in time", "expired")
        until = self._state.deadline or self._person_deadline()
        delay = max(rules.poll_delay(self._state.confirm_rounds), policies.MIN_ESCALATION_POLL)
        self._set(confirm_rounds=self._state.confirm_rounds + 1)
        if await self._wait_for(lambda: self._state.revision is not None, until=until, late=late, poll=delay):
            self._advance("preparing", rounds=0)
            return
        answer = await self._try_read()
        if answer is None or answer.status is CheckoutStatus.REQUIRES_ESCALATION:
            return
        self._take(answer, "checkout.read")
        if answer.status is CheckoutStatus.COMPLETED and answer.order is not None:
            await self._finish_elsewhere(answer, answer.order)
        else:
            self._advance("preparing", rounds=0, confirm_rounds=0)

    # --- approval ------------------------------------------------------------------------------

    async def _await_approval(self) -> None:
        if self._state.asked_digest != self._state.digest:
            total = self._answer().cart.total
            self._note("approval.requested", "waystation", {"digest": self._digest(), "total": total})
            self._show_cart()
            self._set(asked_digest=self._state.digest)
        late = PurchaseRefusal("approval_expired", "nobody approved in time; ask again", "expired")
        until = self._state.deadline or self._person_deadline()

        def decided() -> bool:
            return self._state.decision is not None or self._state.revision is not None

        await self._wait_for(decided, until=until, late=late)
        decision = self._state.decision
        if decision is None:
            self._advance("preparing")
        elif isinstance(decision, Approve):
            await self._accept_approval(decision)
        else:
            said = f": {decision.reason}" if decision.reason else ""
            self._announce("approval.denied", {"approver": decision.approver, "reason": decision.reason})
            raise PurchaseRefusal("rejected", f"rejected by {decision.approver}{said}", "rejected")

    async def _accept_approval(self, decision: Approve) -> None:
        """See whether cart and mandate still are what the person agreed to."""
        record = ApprovalRecord(digest=decision.digest, approver=decision.approver, at=workflow.now())
        self._set(approval=record)
        self._announce("approval.granted", {"digest": record.digest, "approver": record.approver})
        held = self._state.reservation
        if held is None:
            raise PurchaseRefusal(
                "reservation_lost", "the amount is no longer set aside; ask again", "failed"
            )
        answer, _ = await asyncio.gather(
            purchase_calls.read_checkout(self._checkout()), self._reserve(held.amount)
        )
        self._take(answer, "checkout.read")
        self._set(decision=None)
        if self._approval_stands() and answer.status is CheckoutStatus.READY_FOR_PAYMENT:
            self._advance("paying")
        else:
            self._advance("preparing", rounds=0)

    async def _route_order_events(self) -> None:
        cart = self._answer().cart
        try:
            await purchase_calls.route_order_events(order_events_id(cart.seller, cart.checkout_id), self._id)
        except CallFailure as failure:
            self._note("order.not_followed", "waystation", {"kind": failure.kind})

    async def _follow_order(self, start: PurchaseStart) -> None:
        """See that no token stays open, and keep the order current by the seller's webhooks."""
        until = (
            self._state.receipt.paid_at if self._state.receipt else workflow.now()
        ) + policies.FOLLOW_ORDER
        try:
            await self._route_order_events()
            await self._settle_token()
            while (remaining := until - workflow.now()) > timedelta(0):
                try:
                    await workflow.wait_condition(self._order_has_news, timeout=remaining.total_seconds())
                except TimeoutError:
                    break
                await self._tell_mandate_of_refund()
                await self._renew_if_long(start)
        except asyncio.CancelledError:
            self._note("workflow.cancel", "operator", {"status": self._state.status})
