"""The half of a purchase in which money can move: tokens, completion, finding the truth, the ends.

The processor has the last word. A token is issued for one total, one payee, minutes; before
a purchase is called unpaid its token is revoked, and the answer to that tells for sure
whether money moved.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import activities.contract as contract
    import workflows.mandate.calls as mandates
    import workflows.policies as policies
    import workflows.purchase.calls as purchase_calls
    import workflows.purchase.rules as rules
    from activities.contract import (
        CancelCheckout,
        CheckoutRef,
        CommitFor,
        CompleteCheckout,
        IssueToken,
        RefundFor,
        ReleaseFor,
        RevokeToken,
    )
    from waystation.models.commerce import CheckoutStatus
    from waystation.models.decisions import Approve, Cancel, Refusal
    from waystation.models.mandates import CommitRequest, RefundRequest, ReleaseRequest
    from waystation.models.purchases import (
        CheckoutAnswer,
        OrderFacts,
        PaymentToken,
        Receipt,
    )
    from workflows.calls import CallFailure
    from workflows.keys import step_key
    from workflows.purchase.inbox import PurchaseInbox
    from workflows.purchase.journal import MandateFacts, PlannedEnd
    from workflows.purchase.rules import PurchaseRefusal

_OPEN_AT_SELLER = frozenset(
    {
        CheckoutStatus.READY_FOR_PAYMENT,
        CheckoutStatus.NOT_READY_FOR_PAYMENT,
        CheckoutStatus.INCOMPLETE,
    }
)


class PurchasePayment(PurchaseInbox):
    """Statuses ``paying``, ``authentication_required``, ``payment_declined``, ``confirming``, ``undoing``."""

    async def _wait_for(
        self,
        arrived: Callable[[], bool],
        *,
        until: datetime,
        late: PurchaseRefusal,
        poll: timedelta | None = None,
    ) -> bool:
        """Wait for something; a wish to stop goes first. ``False`` when it is time to poll.

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
        self._raise_if_stopped()
        return arrived()

    def _stop_wanted(self) -> bool:
        return self._state.revoked or self._cancellation() is not None

    def _cancellation(self) -> Cancel | None:
        """Somebody's wish to stop; that of a stopped turn counts until somebody has approved."""
        state = self._state
        approved = state.approval is not None or isinstance(state.decision, Approve)
        return state.cancel or (None if approved else state.turn_stopped)

    def _raise_if_stopped(self) -> None:
        if self._state.revoked:
            raise PurchaseRefusal("mandate_revoked", "the mandate was revoked; ask for a new one")
        wish = self._cancellation()
        if wish is not None:
            raise PurchaseRefusal(
                "canceled", f"canceled by {wish.by}: {wish.reason or 'no reason given'}", "canceled"
            )

    def _approval_stands(self) -> bool:
        approval = self._state.approval
        if approval is None or approval.digest != self._state.digest:
            return False
        return workflow.now() - approval.at < policies.APPROVAL_LIFETIME

    def _void_approval(self, why: str) -> None:
        if self._state.approval is not None:
            self._note("approval.voided", "waystation", {"why": why, "digest": self._state.approval.digest})
        self._set(approval=None, asked_digest=None, decision=None)

    # --- paying --------------------------------------------------------------------------------

    async def _pay(self) -> None:
        if not self._approval_stands():
            self._void_approval("it is older than a payment may be")
            self._advance("preparing", rounds=0)
            return
        if self._state.tries >= rules.MAX_PAYMENT_TRIES:
            raise PurchaseRefusal(
                "too_many_payment_tries", "the payment was tried too often; start anew", "failed"
            )
        self._raise_if_stopped()
        try:
            token = await self._fresh_token()
        except CallFailure as failure:
            if failure.kind != contract.PAYMENT_METHOD_DECLINED:
                raise
            self._note("token.declined", "processor", {"code": failure.code})
            self._advance("payment_declined", deadline=self._revision_deadline(), retry=None)
            return
        if token is None:
            return
        if token.status == "requires_action":
            self._advance("authentication_required", deadline=self._person_deadline(), proof_received=None)
            return
        self._raise_if_stopped()
        self._set(tries=self._state.tries + 1, confirm_since=None, confirm_rounds=0)
        await self._complete()

    async def _fresh_token(self) -> PaymentToken | None:
        """The token at hand if it still serves, else a new one; ``None`` if the old one is found spent."""
        state, now = self._state, workflow.now()
        if state.token is not None:
            lasts = (
                state.token.expires_at is None or state.token.expires_at - now > policies.TOKEN_EXPIRY_MARGIN
            )
            if state.token.status == "active" and lasts:
                return state.token
            if await self._retire_token("it is about to expire"):
                self._advance("confirming")
                return None
        cart, mandate, number = self._answer().cart, self._mandate(), self._state.issues + 1
        self._set(issues=number)
        expires_at = min(now + policies.TOKEN_LIFETIME, mandate.valid_until)
        token = await purchase_calls.issue_token(
            IssueToken(
                payment_method=mandate.payment_methods[self._state.method],
                payee=cart.payee or "",
                currency=cart.currency,
                max_amount=cart.total or 0,
                expires_at=expires_at,
                purchase_id=self._id,
                checkout_id=cart.checkout_id,
                idempotency_key=step_key(self._id, "issue", number),
            )
        )
        self._set(token=token)
        self._note(
            "token.issued",
            "processor",
            {
                "token": token.fingerprint,
                "max_amount": cart.total,
                "currency": cart.currency,
                "payee": cart.payee,
                "expires_at": expires_at.isoformat(),
                "request_id": token.request_id,
            },
        )
        return token

    async def _complete(self) -> None:
        """Send the completion (again, with the same key) and weigh the answer."""
        state, answer = self._state, self._answer()
        if state.token is None or answer.handler_id is None:
            raise PurchaseRefusal("no_payment_token", "there is no token to pay with; start anew", "failed")
        key = step_key(self._id, "complete", state.tries)
        detail = {"key": key, "token": state.token.fingerprint, "total": answer.cart.total}
        self._note("checkout.complete", "waystation", {**detail, "currency": answer.cart.currency})
        try:
            outcome = await purchase_calls.complete_checkout(
                CompleteCheckout(
                    checkout=self._checkout(),
                    request=state.request,
                    handler_id=answer.handler_id,
                    token_id=state.token.id,
                    authentication=state.proof,
                    idempotency_key=key,
                )
            )
        except CallFailure as failure:
            self._note("checkout.complete_failed", "seller", {"kind": failure.kind, "code": failure.code})
            await self._weigh_failed_completion(failure)
            return
        await self._weigh(outcome)

    async def _weigh_failed_completion(self, failure: CallFailure) -> None:
        if failure.kind == contract.SELLER_REFUSED:
            if failure.code == "requires_3ds":
                self._advance(
                    "authentication_required", deadline=self._person_deadline(), proof_received=None
                )
                return
            answer = await self._try_read()
            if answer is not None:
                await self._weigh(answer)
                return
        self._enter_confirming()

    async def _weigh(self, answer: CheckoutAnswer) -> None:
        """What the seller's word about a completion means."""
        status = answer.status
        if status is CheckoutStatus.COMPLETED and answer.order is not None:
            await self._finish(answer, answer.order)
        elif status in _OPEN_AT_SELLER or status in (
            CheckoutStatus.CANCELED,
            CheckoutStatus.EXPIRED,
            CheckoutStatus.REQUIRES_ESCALATION,
        ):
            await self._not_completed(answer)
        elif status is CheckoutStatus.AUTHENTICATION_REQUIRED and not self._state.money_moved:
            self._take(answer, "checkout.authentication_required")
            self._advance("authentication_required", deadline=self._person_deadline(), proof_received=None)
        else:
            self._enter_confirming()

    async def _not_completed(self, answer: CheckoutAnswer) -> None:
        """The seller says there is no order. The processor has the last word on whether money moved."""
        if await self._retire_token("the seller did not complete"):
            self._enter_confirming()
            return
        before = self._state.digest
        self._take(answer, "checkout.not_completed")
        if answer.status in (CheckoutStatus.CANCELED, CheckoutStatus.EXPIRED):
            raise PurchaseRefusal(
                f"checkout_{answer.status.value}", f"the seller's checkout is {answer.status.value}", "failed"
            )
        if answer.status is CheckoutStatus.REQUIRES_ESCALATION:
            self._advance("escalated", deadline=self._person_deadline(), confirm_rounds=0)
        elif self._state.digest != before or answer.status is not CheckoutStatus.READY_FOR_PAYMENT:
            self._advance("preparing", rounds=0)
        else:
            self._advance("payment_declined", deadline=self._revision_deadline(), retry=None)

    async def _retire_token(self, why: str) -> bool:
        """Revoke the token at hand. ``True`` if money moved, or if nobody can tell."""
        token = self._state.token
        if token is None or self._state.money_moved:
            return self._state.money_moved
        number = self._state.revokes + 1
        self._set(revokes=number)
        try:
            after = await purchase_calls.revoke_token(
                RevokeToken(token=token, idempotency_key=step_key(self._id, "revoke", number))
            )
        except CallFailure as failure:
            self._note("token.state_unknown", "processor", {"token": token.fingerprint, "code": failure.code})
            if failure.code == "resource_missing":
                self._set(token=None)
                return False
            return True
        detail = {"token": token.fingerprint, "status": after.status, "reason": after.deactivated_reason}
        self._note("token.retired", "waystation", {**detail, "why": why, "request_id": after.request_id})
        if after.is_spent:
            self._set(money_moved=True)
            return True
        self._set(token=None, proof=None)
        return False

    async def _await_authentication(self) -> None:
        late = PurchaseRefusal("authentication_expired", "nobody authenticated in time", "expired")
        until = self._state.deadline or self._person_deadline()
        token = self._state.token
        poll = None
        if token is not None and token.status == "requires_action":
            poll = max(rules.poll_delay(self._state.confirm_rounds), policies.MIN_AUTHENTICATION_POLL)
            self._set(confirm_rounds=self._state.confirm_rounds + 1)
        arrived = await self._wait_for(
            lambda: self._state.proof_received is not None, until=until, late=late, poll=poll
        )
        proof = self._state.proof_received
        if arrived and proof is not None and not proof.outcome.allows_payment:
            self._set(proof_received=None)
            self._note("authentication.failed", "issuer", {"outcome": proof.outcome.value})
            if await self._retire_token("the authentication failed"):
                self._enter_confirming()
            else:
                self._advance("payment_declined", deadline=self._revision_deadline(), retry=None)
            return
        if token is not None and token.status == "requires_action":
            token = await purchase_calls.read_token(token)
            self._set(token=token)
            if token.status == "requires_action":
                self._set(proof_received=None)
                return
            self._advance("paying", confirm_rounds=0)
            return
        if proof is not None:
            self._advance("paying", proof=proof, proof_received=None)

    async def _after_decline(self) -> None:
        state, methods = self._state, self._mandate().payment_methods
        tried = state.methods_tried + 1
        if state.retry is None and tried < len(methods) and state.method + 1 < len(methods):
            self._set(method=state.method + 1, methods_tried=tried)
            self._note("payment.another_method", "waystation", {"number": self._state.method + 1})
            self._advance("paying")
            return
        late = PurchaseRefusal(
            "payment_declined", "the payment was declined; use another payment method", "failed"
        )

        def told() -> bool:
            return self._state.retry is not None or self._state.revision is not None

        if not await self._wait_for(told, until=state.deadline or self._revision_deadline(), late=late):
            return
        retry = self._state.retry
        if retry is None:
            self._advance("preparing", rounds=0)
            return
        method = methods.index(retry.payment_method) if retry.payment_method in methods else state.method
        self._advance("paying", retry=None, method=method)

    # --- finding the truth ---------------------------------------------------------------------

    def _enter_confirming(self) -> None:
        since = self._state.confirm_since or workflow.now()
        self._advance("confirming", confirm_since=since)

    async def _confirm(self) -> None:
        """Read, and ask again with the same key, until it is clear what became of the completion."""
        state, number = self._state, self._state.confirm_rounds
        since = state.confirm_since or workflow.now()
        self._set(confirm_since=since, confirm_rounds=number + 1)
        if number:
            await workflow.sleep(rules.poll_delay(number))
        waited = workflow.now() - since
        answer = await self._try_read()
        if answer is not None and answer.status is CheckoutStatus.COMPLETED and answer.order is not None:
            if self._state.tries == 0:
                await self._finish_elsewhere(answer, answer.order)
            else:
                await self._finish(answer, answer.order)
            return
        gone = answer is not None and answer.status in (CheckoutStatus.CANCELED, CheckoutStatus.EXPIRED)
        if waited > policies.CONFIRM_DEADLINE or (gone and state.money_moved):
            await self._give_up_on_order()
        elif waited > policies.CONFIRM_GIVE_UP and not state.money_moved:
            if not await self._retire_token("no clear answer about the completion"):
                raise PurchaseRefusal(
                    "completion_unconfirmed",
                    "the seller did not confirm the order; nothing was paid",
                    "failed",
                )
        elif answer is None or answer.status in _OPEN_AT_SELLER:
            await self._ask_again()
        elif not state.money_moved:
            await self._weigh(answer)

    async def _ask_again(self) -> None:
        """The same request under the same key: the seller finishes what it began, or says what it said."""
        if self._state.token is not None and self._state.tries > 0:
            await self._complete()
        elif not self._state.money_moved:
            raise PurchaseRefusal("completion_unconfirmed", "the seller did not confirm the order", "failed")

    async def _give_up_on_order(self) -> None:
        """Money moved and no order came: keep the books right and say so; a person has to look."""
        await self._commit()
        self._note("purchase.charged_without_order", "waystation", {"total": self._answer().cart.total})
        refusal = Refusal(
            rule="charged_without_order",
            message="the payment was taken but there is no order; ask the seller whether it was refunded",
        )
        self._set(end=PlannedEnd(outcome="failed", refusal=refusal))
        self._advance("undoing")

    async def _try_read(self) -> CheckoutAnswer | None:
        try:
            return await purchase_calls.look_at_checkout(self._checkout())
        except CallFailure as failure:
            self._note("checkout.unreadable", "seller", {"kind": failure.kind, "code": failure.code})
            return None

    # --- the ends ------------------------------------------------------------------------------

    async def _finish(self, answer: CheckoutAnswer, order: OrderFacts) -> None:
        """Paid and ordered: commit, receipt."""
        approved = self._answer().cart
        if answer.cart.total != approved.total or answer.cart.currency != approved.currency:
            stated = {
                "approved": approved.total,
                "stated": answer.cart.total,
                "currency": answer.cart.currency,
            }
            self._note("order.total_differs", "seller", stated)
        total = approved.total or 0
        await self._commit()
        approval = self._state.approval
        known = self._state.order
        receipt = Receipt(
            order=order,
            amount=total,
            currency=approved.currency,
            payee=approved.payee,
            approved_by=approval.approver if approval else None,
            paid_at=workflow.now(),
        )
        detail = {
            "order_id": order.id,
            "total": total,
            "currency": approved.currency,
            "replayed": answer.replayed,
        }
        self._note("purchase.completed", "seller", {**detail, "request_id": answer.request_id})
        self._advance("completed", receipt=receipt, order=known or order, money_moved=True, end=None)

    async def _finish_elsewhere(self, answer: CheckoutAnswer, order: OrderFacts) -> None:
        """A person completed the checkout at the seller's own page, without our token and mandate."""
        if await self._retire_token("the checkout was completed at the seller's page"):
            await self._finish(answer, order)
            return
        await self._release("the checkout was completed at the seller's page")
        self._note(
            "purchase.completed_at_seller", "seller", {"order_id": order.id, "total": answer.cart.total}
        )
        self._advance("completed", order=order, end=None)

    async def _commit(self) -> None:
        held = self._state.reservation
        if held is None:
            return
        call = CommitFor(mandate_id=self._state.request.mandate_id, request=CommitRequest(key=held.key))
        try:
            settled = await mandates.commit(call)
        except CallFailure as failure:
            self._note("mandate.commit_refused", "mandate", {"key": held.key, "code": failure.code})
        else:
            self._note("mandate.committed", "mandate", {"key": held.key, "amount": settled.spent})
            self._set(committed=held)
        self._set(reservation=None)

    async def _release(self, why: str) -> None:
        held = self._state.reservation
        if held is None:
            return
        call = ReleaseFor(
            mandate_id=self._state.request.mandate_id, request=ReleaseRequest(key=held.key, reason=why)
        )
        try:
            await mandates.release(call)
        except CallFailure as failure:
            self._note("mandate.release_refused", "mandate", {"key": held.key, "code": failure.code})
        else:
            self._note("mandate.released", "mandate", {"key": held.key, "amount": held.amount, "why": why})
        self._set(reservation=None)

    def _refunded(self) -> int:
        """What the order says has come back, as far as it was paid from the mandate."""
        paid, order = self._state.committed, self._state.order
        if paid is None or order is None:
            return 0
        return min(rules.refunded_total(order, self._state.request.currency), paid.amount)

    async def _tell_mandate_of_refund(self) -> None:
        paid, total = self._state.committed, self._refunded()
        if paid is None or total <= self._state.refunded:
            return
        self._set(refunded=total)
        call = RefundFor(
            mandate_id=self._state.request.mandate_id, request=RefundRequest(key=paid.key, amount=total)
        )
        try:
            settled = await mandates.refund(call)
        except CallFailure as failure:
            self._note("mandate.refund_refused", "mandate", {"key": paid.key, "code": failure.code})
            return
        detail = {"key": paid.key, "refunded": total}
        self._note("mandate.refunded" if settled else "mandate.refund_without_effect", "mandate", detail)

    def _plan_end(self, refusal: PurchaseRefusal) -> None:
        if self._state.status == "undoing":
            raise RuntimeError(f"undoing cannot be refused: {refusal.rule}") from refusal
        self._note("purchase.refusal", "waystation", {"rule": refusal.rule, "message": str(refusal)})
        if refusal.rule == "approval_expired":
            self._announce("approval.expired", {"digest": self._state.digest})
        end = PlannedEnd(outcome=refusal.outcome, refusal=Refusal(rule=refusal.rule, message=str(refusal)))
        self._advance("undoing", end=end)

    async def _undo(self) -> None:
        """Revoke, cancel, release; each once, each safe to repeat."""
        end = self._state.end
        if end is None:
            raise RuntimeError("undoing without a planned end")
        given_up = end.refusal.rule == "charged_without_order"
        if not given_up and await self._retire_token(end.refusal.rule):
            self._note("undo.too_late", "processor", {"why": "the token was spent"})
            self._set(end=None, confirm_since=None, confirm_rounds=0)
            self._advance("confirming")
            return
        if not given_up:
            await self._cancel_checkout(end.refusal.rule)
            await self._release(end.refusal.rule)
        self._note("purchase.ended", "waystation", {"outcome": end.outcome, "rule": end.refusal.rule})
        self._advance(end.outcome)

    async def _cancel_checkout(self, why: str) -> None:
        answer = self._state.answer
        if answer is None or self._state.cancel_sent or answer.status.is_terminal:
            return
        call = CancelCheckout(
            checkout=self._checkout(), reason=why, idempotency_key=step_key(self._id, "cancel")
        )
        try:
            after = await purchase_calls.cancel_checkout(call)
        except CallFailure as failure:
            self._note("checkout.cancel_failed", "seller", {"kind": failure.kind, "code": failure.code})
        else:
            status = after.status.value if after else "gone"
            self._note(
                "checkout.canceled",
                "seller",
                {"status": status, "request_id": after.request_id if after else None},
            )
        self._set(cancel_sent=True)

    async def _settle_token(self) -> None:
        """A completed purchase's token is spent. If the seller has not charged it by its end, revoke it."""
        token = self._state.token
        if token is None:
            return
        try:
            seen = await purchase_calls.read_token(token)
            if (
                seen.status != "deactivated"
                and seen.expires_at is not None
                and seen.expires_at > workflow.now()
            ):
                await workflow.sleep(seen.expires_at - workflow.now())
            if seen.status != "deactivated":
                number = self._state.revokes + 1
                self._set(revokes=number)
                call = RevokeToken(token=token, idempotency_key=step_key(self._id, "revoke", number))
                seen = await purchase_calls.revoke_token(call)
        except CallFailure as failure:
            self._note("token.state_unknown", "processor", {"token": token.fingerprint, "code": failure.code})
            return
        detail = {"token": token.fingerprint, "status": seen.status, "reason": seen.deactivated_reason}
        self._note("token.settled", "processor", {**detail, "captured": seen.captured})
        self._set(token=None)

    # --- small things --------------------------------------------------------------------------

    def _take(self, answer: CheckoutAnswer, action: str) -> None:
        """Keep the seller's latest word, after seeing that it is about the same deal."""
        before = self._state.answer
        rules.check_same_deal(before.cart if before else None, answer.cart)
        if answer.handler_id is None and before is not None:
            # Later answers may leave the payment handlers out: they are pinned at first sight.
            cart = answer.cart.model_copy(update={"payee": before.cart.payee})
            answer = answer.model_copy(update={"handler_id": before.handler_id, "cart": cart})
        digest = rules.cart_digest(answer.cart)
        self._note(
            action,
            "seller",
            {
                "checkout_id": answer.cart.checkout_id,
                "status": answer.status.value,
                "total": answer.cart.total,
                "currency": answer.cart.currency,
                "digest": digest,
                "request_id": answer.request_id,
                "messages": sorted(answer.error_codes()),
            },
        )
        if self._state.approval is not None and self._state.approval.digest != digest:
            self._void_approval("the cart changed after it was approved")
        self._set(answer=answer, digest=digest)

    def _answer(self) -> CheckoutAnswer:
        if self._state.answer is None:
            raise RuntimeError("there is no checkout yet")
        return self._state.answer

    def _digest(self) -> str:
        return self._state.digest or ""

    def _mandate(self) -> MandateFacts:
        if self._state.mandate is None:
            raise RuntimeError("the mandate was not asked yet")
        return self._state.mandate

    def _checkout(self) -> CheckoutRef:
        answer = self._answer()
        return CheckoutRef(
            seller=answer.cart.seller, api_base_url=answer.api_base_url, checkout_id=answer.cart.checkout_id
        )

    def _person_deadline(self) -> datetime:
        """How long a person may take: the request's wish, the mandate's and the checkout's end."""
        candidates = [workflow.now() + timedelta(seconds=self._state.request.approval_timeout_seconds)]
        if self._state.mandate is not None:
            candidates.append(self._state.mandate.valid_until)
        if self._state.answer is not None and self._state.answer.expires_at is not None:
            candidates.append(self._state.answer.expires_at)
        return min(candidates)

    def _revision_deadline(self) -> datetime:
        return workflow.now() + timedelta(seconds=self._state.request.revision_timeout_seconds)
