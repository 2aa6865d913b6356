r"""The Purchase workflow: one checkout over ACP, approved, paid at most once, or undone.

create → make ready → check and reserve → approve → issue a token → complete → commit.
The loop runs one method for each status until the purchase is final. What is refused, rejected, canceled
or broken on the way goes through ``undoing``: revoke the token (whose answer tells for sure whether money
moved), cancel the checkout, release the reservation. Idempotency keys come from the workflow id and the
step's number alone.

Every signal takes one JSON object, so Temporal's CLI can send it::

    temporal workflow signal -w <purchase id> --name approve \
        --input '{"digest": "sha256:…", "approver": "alice"}'

The update ``decide`` does the same as ``approve`` and ``reject`` and tells the caller.
"""

import asyncio
import contextlib
from datetime import timedelta
from typing import ClassVar

from pydantic import ValidationError
from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from waystation.models.base import WorkflowStart
    from waystation.models.decisions import Approve, Cancel, Decision, Reject
    from waystation.models.mandates import RevokeRequest
    from waystation.models.purchases import (
        AuthenticationDone,
        Cart,
        OrderEventReceived,
        OutcomeWanted,
        PurchaseRequest,
        PurchaseView,
        RetryPayment,
        Revise,
    )
    from waystation.models.trail import AuditTrail
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import BUY_ENDED
    from waystation.temporal.names import PURCHASE_WORKFLOW
    from workflows.calls import CallFailure
    from workflows.decisions import the_one_in
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.outbox import Outbox
    from workflows.purchase.approval import PurchaseApproval
    from workflows.purchase.authorization import PurchaseAuthorization
    from workflows.purchase.calls import as_refusal
    from workflows.purchase.checkout import PurchaseCheckout
    from workflows.purchase.ending import PurchaseEnding
    from workflows.purchase.inbox import PurchaseInbox
    from workflows.purchase.journal import PurchaseJournal
    from workflows.purchase.payment import PurchasePayment
    from workflows.purchase.preparation import PurchasePreparation
    from workflows.purchase.rules import PurchaseRefusal
    from workflows.purchase.state import PurchaseState, opening_state
    from workflows.purchase.tokens import PurchaseTokens
    from workflows.refusals import INTERNAL_ERROR, require
    from workflows.webhooks.news import WebhookOutbox

MAX_EVENTS_BEFORE_ROLLOVER = 4_000
"""History events after which the purchase continues as new between two steps."""
MAX_SURPRISES = 3
"""Errors that nobody expected, in one run, before the purchase is no longer undone in order but ended."""


class PurchaseStart(WorkflowStart):
    """What starts a purchase; ``state`` carries it over into a new run."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"state"})

    request: PurchaseRequest
    state: PurchaseState | None = None
    notes: int = 0
    """How many notes the session was sent by earlier runs."""
    awaited_by: str | None = None
    """The workflow that waits for the end and has not been told yet; ``None`` if nobody does."""


@workflow.defn(name=PURCHASE_WORKFLOW)
class Purchase:
    """One purchase. Its workflow id is the purchase's id, and the root of its idempotency keys."""

    @workflow.init
    @starting
    def __init__(self, start: PurchaseStart) -> None:
        state = start.state or opening_state(start.request, at=workflow.now())
        outbox = Outbox(start.request.session_id, numbered=start.notes, on_closed=self._session_is_closed)
        self._webhooks = WebhookOutbox(gathers=True)
        journal = PurchaseJournal(workflow.info().workflow_id, state, outbox, self._webhooks)
        inbox = PurchaseInbox(journal)
        approval = PurchaseApproval(journal)
        checkout = PurchaseCheckout(journal, approval)
        authorization = PurchaseAuthorization(journal)
        tokens = PurchaseTokens(journal)
        ending = PurchaseEnding(journal, checkout, authorization, tokens)
        self._journal, self._outbox, self._inbox, self._ending = journal, outbox, inbox, ending
        self._authorization = authorization
        self._preparation = PurchasePreparation(journal, inbox, approval, checkout, authorization, ending)
        self._payment = PurchasePayment(journal, inbox, approval, checkout, authorization, tokens, ending)
        self._awaited_by = start.awaited_by
        self._rolling_over = False
        self._surprises = 0

    @workflow.run
    @ending
    async def run(self, start: PurchaseStart) -> PurchaseView:
        """Lives until the purchase is final; then, if it was completed, follows its order."""
        journal = self._journal
        telling, telling_webhooks = self._outbox.start(), self._webhooks.start()
        if not journal.state.trail.entries:
            self._preparation.note_request()
        while not journal.is_final:
            await self._renew_if_long(start)
            await self._guarded_step()
        reporting = asyncio.create_task(self._report_end())
        self._webhooks.hurry()
        if journal.state.status == "completed":
            await self._follow_order(start)
        await workflow.wait_condition(self._is_quiet)
        journal.sum_up_calls()
        telling.cancel()
        telling_webhooks.cancel()
        await reporting
        return journal.view()

    # Signals, updates, queries

    @workflow.signal
    @drop_unless(Approve)
    async def approve(self, approval: Approve) -> None:
        """Takes a person's approval of the cart with this digest."""
        await self._inbox.decide(approval)

    @workflow.signal
    @drop_unless(Reject)
    async def reject(self, rejection: Reject) -> None:
        """Takes a person's rejection."""
        await self._inbox.decide(rejection)

    @workflow.update
    @answering
    async def decide(self, decision: Decision) -> PurchaseView:
        """Approves or rejects, and tells the caller whether it counted.

        Raises:
            ApplicationError: ``NotProven``, ``NotAwaitingApproval``, ``AlreadyDecided``, ``StaleDigest``,
                ``NotAnApprover``, ``InvalidDecision``.
        """
        await self._inbox.decide(the_one_in(decision), tell=True)
        return self._journal.view()

    @decide.validator
    def _decide_is_well_formed(self, decision: Decision) -> None:
        require(decision, Decision)

    @workflow.update
    @answering
    async def outcome(self, wanted: OutcomeWanted | None = None) -> PurchaseView:
        """Waits for the end, or for a person's turn. Ask again after any other view: the run was renewed."""

        def reached() -> bool:
            waits = wanted is not None and wanted.or_for_a_person and self._inbox.waits_for_a_person()
            return self._journal.is_final or waits or self._rolling_over

        await workflow.wait_condition(reached)
        return self._journal.view()

    @outcome.validator
    def _outcome_is_well_formed(self, wanted: OutcomeWanted | None = None) -> None:
        if wanted is not None:
            require(wanted, OutcomeWanted)

    @workflow.signal
    @drop_unless(Revise)
    def revise(self, revision: Revise) -> None:
        """Changes what is wanted; any approval is void."""
        self._inbox.revise(revision)

    @workflow.signal
    @drop_unless(Cancel)
    def cancel(self, cancellation: Cancel) -> None:
        """Stops the purchase, if it is not too late."""
        self._inbox.cancel(cancellation)

    @workflow.signal
    @drop_unless(Cancel)
    def turn_stopped(self, cancellation: Cancel) -> None:
        """Stops the purchase because its turn or session is over, unless somebody has approved it."""
        self._inbox.turn_stopped(cancellation)

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was revoked; sent by the mandate itself."""
        self._inbox.mandate_revoked(revocation)

    @workflow.signal
    @drop_unless(AuthenticationDone)
    def authentication_result(self, result: AuthenticationDone) -> None:
        """Takes the outcome of the issuer's authentication."""
        self._inbox.authentication_result(result)

    @workflow.signal
    @drop_unless(RetryPayment)
    async def retry_payment(self, retry: RetryPayment) -> None:
        """Tries again after a decline, perhaps with another method of the mandate."""
        await self._inbox.retry_payment(retry)

    @workflow.signal
    @drop_unless(OrderEventReceived)
    def order_event(self, event: OrderEventReceived) -> None:
        """Takes a webhook of the seller about the order, whose signature was checked."""
        self._inbox.order_event(event)

    @workflow.query
    def status(self) -> PurchaseView:
        """Returns the purchase as it stands."""
        return self._journal.view()

    @workflow.query
    def cart(self) -> Cart | None:
        """Returns the cart as the seller last stated it."""
        return self._journal.view().cart

    @workflow.query
    def audit(self) -> AuditTrail:
        """Returns every step so far, each entry chained to the one before by its hash."""
        return self._journal.trail()

    # The loop

    async def _guarded_step(self) -> None:
        try:
            await self._step()
        except PurchaseRefusal as refusal:
            self._ending.plan(refusal)
        except CallFailure as failure:
            self._ending.plan(as_refusal(failure))
        except asyncio.CancelledError:
            status = self._journal.state.status
            self._journal.note("workflow.cancel", "operator", {"status": status})
            if status == "paying":
                self._journal.advance("confirming")
            elif status not in ("confirming", "undoing"):
                self._ending.plan(PurchaseRefusal("canceled", "the workflow was canceled", "canceled"))
        except Exception as error:
            workflow.logger.exception("A step of the purchase failed; it is undone")
            await self._undo_after(error)

    async def _undo_after(self, error: Exception) -> None:
        """Undoes a purchase that met what nobody expected; where even that fails, ends it as it stands."""
        self._surprises += 1
        if isinstance(error, ValidationError):  # a value that fits the protocol but none of our own models
            refusal = PurchaseRefusal("value_out_of_bounds", "a value is beyond our limits", "failed")
        else:
            refusal = PurchaseRefusal("internal_error", INTERNAL_ERROR, "failed")
        if self._journal.state.status != "undoing" and self._surprises <= MAX_SURPRISES:
            self._ending.plan(refusal)
        else:
            await self._ending.abandon(refusal)

    async def _step(self) -> None:
        match self._journal.state.status:
            case "creating":
                await self._preparation.create()
            case "preparing":
                await self._preparation.prepare()
            case "needs_revision":
                await self._preparation.await_revision()
            case "awaiting_approval":
                await self._preparation.await_approval()
            case "escalated":
                await self._preparation.await_escalation()
            case "paying":
                await self._payment.pay()
            case "authentication_required":
                await self._payment.await_authentication()
            case "payment_declined":
                await self._payment.after_decline()
            case "confirming":
                await self._payment.confirm()
            case "undoing":
                await self._ending.undo()

    async def _report_end(self) -> None:
        """Tells the workflow that waits for the end, once. The order is followed long after."""
        if self._awaited_by is None:
            return
        try:
            await tell_workflow(self._awaited_by, BUY_ENDED, None)
        except FailureError:
            workflow.logger.info("The workflow %s waits for its purchase no more", self._awaited_by)
        finally:
            self._awaited_by = None

    async def _follow_order(self, start: PurchaseStart) -> None:
        """Sees that the charge is booked, and keeps the order current by the seller's webhooks."""
        completed_at = self._journal.state.completion.completed_at
        until = (completed_at or workflow.now()) + policies.FOLLOW_ORDER
        try:
            await self._ending.route_order_events()
            while (remaining := until - workflow.now()) > timedelta(0):
                wait = min(remaining, self._ending.next_look_at_charge() or remaining)
                with contextlib.suppress(TimeoutError):
                    await workflow.wait_condition(self._order_has_news, timeout=wait.total_seconds())
                await self._ending.follow_charge()
                await self._ending.read_order()
                await self._authorization.tell_of_refund()
                await self._renew_if_long(start)
        except asyncio.CancelledError:
            self._journal.note("workflow.cancel", "operator", {"status": self._journal.state.status})

    def _order_has_news(self) -> bool:
        heard = self._journal.state.completion.order_heard_of
        return heard or self._is_long() or self._authorization.owes_refund()

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
        self._webhooks.hurry()
        await workflow.wait_condition(self._is_quiet)
        workflow.continue_as_new(
            PurchaseStart(
                request=start.request,
                state=self._journal.state,
                notes=self._outbox.numbered,
                awaited_by=self._awaited_by,
            ),
            # Left out, it would be what the first run was started with, which waits for nobody.
            memo=dict(workflow.memo()),
        )

    def _is_quiet(self) -> bool:
        """Whether everybody was told everything and nobody waits for an answer."""
        told = self._awaited_by is None or not self._journal.is_final
        everybody = told and self._outbox.empty and self._webhooks.empty
        return everybody and workflow.all_handlers_finished()

    def _session_is_closed(self) -> None:
        self._inbox.turn_stopped(Cancel(by="waystation", reason="the session is closed"))
