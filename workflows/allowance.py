r"""The Allowance workflow: many small payments to one seller within one reservation.

The budget is reserved from the mandate once, so a payment costs one update and one
activity. Spent + under way never exceeds the budget: an update holds the most that its
payment may cost before anything is minted, and that hold is in the history. When the
allowance is settled (signal ``settle``, or its time is over) what was spent is committed
and the rest goes back.

    temporal workflow signal -w <allowance id> --name settle --input '{"by": "alice"}'
"""

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import Field
from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import workflows.paid_request_rules as rules
    import workflows.policies as policies
    import workflows.purchase_calls as purchase_calls
    from activities.mandates import CommitFor, ReleaseFor, ReserveFor
    from activities.paid_requests import AllowanceCall, PaidRequestActivities, origin_of
    from waystation.models.base import Frozen
    from waystation.models.mandates import (
        CommitRequest,
        ReleaseRequest,
        ReserveAnswer,
        ReserveRequest,
        RevokeRequest,
    )
    from waystation.models.payments import (
        AllowanceAnswer,
        AllowancePayment,
        AllowanceStart,
        AllowanceView,
        PaymentRefusal,
    )
    from waystation.models.purchases import Cancel
    from workflows.arguments import drop_unless
    from workflows.purchase_calls import CallFailure
    from workflows.purchase_rules import step_key

MAX_PAYMENTS_PER_RUN = 300
"""After so many payments the allowance continues as new, to keep its history short."""
MAX_REMEMBERED_ANSWERS = 20
"""Answers kept for a repeated key across runs; a caller repeats within seconds."""

ALLOWANCE_CLOSED = "AllowanceClosed"
ALLOWANCE_EXHAUSTED = "AllowanceExhausted"
"""Error types of a payment that is refused before anything happened."""

_PAY: dict[str, Any] = {
    "start_to_close_timeout": policies.ALLOWANCE_CALL_TIMEOUT,
    "heartbeat_timeout": policies.PAID_REQUEST_HEARTBEAT,
    "retry_policy": policies.REDEEM_CALL_RETRY,
}
_CLOSE: dict[str, Any] = {
    "start_to_close_timeout": policies.CLOSE_CALL_TIMEOUT,
    "schedule_to_close_timeout": policies.CLOSE_GIVE_UP,
    "heartbeat_timeout": policies.PAID_REQUEST_HEARTBEAT,
    "retry_policy": policies.CLOSE_CALL_RETRY,
}


class AllowanceState(Frozen):
    """What one run hands to the next."""

    reserved: ReserveAnswer
    spent: int
    payments: int
    ends_at_seconds: int
    answers: dict[str, AllowanceAnswer] = Field(default_factory=dict)


class AllowanceRun(Frozen):
    """What starts a run; ``state`` carries it over."""

    start: AllowanceStart
    state: AllowanceState | None = None


@workflow.defn(name="Allowance")
class Allowance:
    """One budget at one seller. Its workflow id is the root of its payments' idempotency keys."""

    @workflow.init
    def __init__(self, run: AllowanceRun) -> None:
        self._start = run.start
        self._reserved = run.state.reserved if run.state else None
        self._spent = run.state.spent if run.state else 0
        self._payments = run.state.payments if run.state else 0
        self._ends_at = run.state.ends_at_seconds if run.state else 0
        self._answers = dict(run.state.answers) if run.state else {}
        self._paid_in_run = 0
        self._held: dict[str, int] = {}
        self._closing = False
        self._refusal: PaymentRefusal | None = None

    @workflow.run
    async def run(self, run: AllowanceRun) -> AllowanceView:
        """Reserve, serve payments, settle."""
        try:
            await self._open()
            remaining = max(self._ends_at - workflow.now().timestamp(), 0.001)
            try:
                await workflow.wait_condition(
                    lambda: self._closing or self._paid_in_run >= MAX_PAYMENTS_PER_RUN, timeout=remaining
                )
            except TimeoutError:
                self._closing = True
            if not self._closing:
                await self._continue(run)
        except CallFailure as failure:
            self._refusal = PaymentRefusal(rule=failure.code, message=str(failure))
        except asyncio.CancelledError:
            pass
        self._closing = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        await self._settle_with_mandate()
        return self.status()

    @workflow.update
    async def pay(self, payment: AllowancePayment) -> AllowanceAnswer:
        """Pay one request and give its answer.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceExhausted``.
        """
        await workflow.wait_condition(lambda: self._reserved is not None or self._closing)
        if payment.key in self._held:
            await workflow.wait_condition(lambda: payment.key not in self._held)
        if payment.key in self._answers:
            return self._answers[payment.key]
        self._check(payment)
        self._held[payment.key] = self._start.max_price.amount
        try:
            answer = await self._pay(payment)
        finally:
            del self._held[payment.key]
        self._spent += answer.amount
        self._payments += answer.amount > 0
        self._paid_in_run += 1
        self._answers[payment.key] = answer
        return answer

    @workflow.signal
    @drop_unless(Cancel)
    def settle(self, wish: Cancel) -> None:
        """No more payments; commit what was spent."""
        self._closing = True

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was taken back; sent by the mandate itself."""
        self._closing = True

    @workflow.query
    def status(self) -> AllowanceView:
        """What is spent and held."""
        return AllowanceView(
            allowance_id=workflow.info().workflow_id,
            open=not self._closing and self._reserved is not None,
            budget=self._start.budget,
            spent=self._spent,
            held=sum(self._held.values()),
            payments=self._payments,
            refusal=self._refusal,
        )

    def _check(self, payment: AllowancePayment) -> None:
        if self._closing or self._reserved is None:
            why = self._refusal.message if self._refusal else "it was settled or has ended"
            raise _refused(ALLOWANCE_CLOSED, f"the allowance takes no more payments: {why}")
        if origin_of(payment.request.url) != self._start.seller:
            raise _refused(ALLOWANCE_CLOSED, f"this allowance is for {self._start.seller} alone")
        if self._reserved.approval_required:
            raise _refused(ALLOWANCE_CLOSED, "the mandate wants a person to approve payments of this size")
        left = self._start.budget.amount - self._spent - sum(self._held.values())
        if left < self._start.max_price.amount:
            raise _refused(ALLOWANCE_EXHAUSTED, f"{left} of the budget is left, one payment may cost more")

    async def _pay(self, payment: AllowancePayment) -> AllowanceAnswer:
        if self._reserved is None:
            raise _refused(ALLOWANCE_CLOSED, "the allowance isn't open")
        now = workflow.now()
        call = AllowanceCall(
            payment=payment,
            payment_id=step_key(workflow.info().workflow_id, payment.key),
            max_price=self._start.max_price,
            rails=self._start.rails,
            expected_payee=self._start.expected_payee,
            payment_method=self._start.payment_method or next(iter(self._reserved.payment_methods), None),
            at=now,
            expires_at=min(now + policies.CREDENTIAL_LIFETIME, self._reserved.valid_until),
        )
        try:
            return await purchase_calls.settle(
                workflow.execute_activity_method(PaidRequestActivities.pay_within_allowance, call, **_PAY)
            )
        except CallFailure as failure:
            return await self._find_truth(call, failure)
        except asyncio.CancelledError:
            return await self._find_truth(call, None)

    async def _find_truth(self, call: AllowanceCall, failure: CallFailure | None) -> AllowanceAnswer:
        """No answer came: what the processor or chain says; what nobody knows counts as spent."""
        try:
            found: AllowanceAnswer = await purchase_calls.settle(
                workflow.execute_activity_method(PaidRequestActivities.close_within_allowance, call, **_CLOSE)
            )
        except CallFailure as unclear:
            # Not even the credential could be had: a final refusal to mint means that none exists.
            minted = unclear.kind not in rules.NEVER_MINTED
            refusal = PaymentRefusal(rule=unclear.code, message=str(failure or unclear))
            moved = "unknown" if minted else "no"
            amount = self._start.max_price.amount if minted else 0
            return AllowanceAnswer(money_moved=moved, amount=amount, refusal=refusal)
        return found

    async def _open(self) -> None:
        if self._reserved is not None:
            return
        start = self._start
        self._ends_at = int(workflow.now().timestamp()) + start.lifetime_seconds
        if start.max_price.currency != start.budget.currency or not start.max_price <= start.budget:
            raise CallFailure("AllowanceInvalid", "allowance_invalid", "max_price must fit into the budget")
        hold = timedelta(seconds=start.lifetime_seconds) + policies.HOLD_MARGIN
        self._reserved = await purchase_calls.reserve(
            ReserveFor(
                mandate_id=start.mandate_id,
                request=ReserveRequest(
                    key=self._reservation_key,
                    amount=start.budget,
                    seller=start.seller,
                    agent=start.agent,
                    protocol=rules.protocol_of(start.rails[0]),
                    hold_seconds=int(hold.total_seconds()),
                    holder=workflow.info().workflow_id,
                ),
            )
        )

    @property
    def _reservation_key(self) -> str:
        return step_key(workflow.info().workflow_id, "budget")

    async def _continue(self, run: AllowanceRun) -> None:
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._reserved is None or self._closing:
            return
        kept = dict(list(self._answers.items())[-MAX_REMEMBERED_ANSWERS:])
        state = AllowanceState(
            reserved=self._reserved,
            spent=self._spent,
            payments=self._payments,
            ends_at_seconds=self._ends_at,
            answers=kept,
        )
        workflow.continue_as_new(AllowanceRun(start=run.start, state=state))

    async def _settle_with_mandate(self) -> None:
        mandate_id, key = self._start.mandate_id, self._reservation_key
        try:
            if self._spent:
                commit = CommitRequest(key=key, amount=self._spent)
                await purchase_calls.commit(CommitFor(mandate_id=mandate_id, request=commit))
            else:
                release = ReleaseRequest(key=key, reason="nothing was spent")
                await purchase_calls.release(ReleaseFor(mandate_id=mandate_id, request=release))
        except CallFailure as failure:
            self._refusal = PaymentRefusal(rule=failure.code, message=str(failure))


def _refused(kind: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=kind, non_retryable=True)
