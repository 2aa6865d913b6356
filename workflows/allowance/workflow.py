r"""The Allowance workflow: many small payments to one seller within one reservation.

The budget is reserved from the mandate once. It is spent in one of two ways:

- by a *holder*, a process that has what it takes to pay: it leases the budget in portions (update
  ``lease``), pays by itself, and reports (update ``report``);
- by this workflow, for processes that hold nothing that pays: update ``pay``, one activity each.

Spent + under way never exceeds the budget: a lease's portion, or the most that a payment may cost,
is held before anything is minted. When the allowance is settled (signal ``settle``, or its time is
over) what was spent is committed and the rest goes back. What a holder was leased and never
accounted for counts as spent, after time enough to correct it.

    temporal workflow signal -w <allowance id> --name settle --input '{"by": "alice"}'
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field, JsonValue
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    import workflows.allowance.rules as allowance_rules
    import workflows.mandate.calls as mandates
    import workflows.paid_request.rules as rules
    import workflows.policies as policies
    from activities.contract import AllowanceCall, CommitFor, PaidRequestCalls, ReleaseFor, ReserveFor
    from waystation.buyer.origins import origin_of
    from waystation.models.base import Frozen
    from waystation.models.decisions import Cancel
    from waystation.models.mandates import (
        CommitRequest,
        ReleaseRequest,
        ReserveAnswer,
        ReserveRequest,
        RevokeRequest,
    )
    from waystation.models.payments import (
        AllowanceAnswer,
        AllowanceLease,
        AllowancePayment,
        AllowanceReport,
        AllowanceStart,
        AllowanceView,
        LeaseRequest,
        PaymentRefusal,
    )
    from waystation.models.trail import AuditTrail
    from workflows.allowance.rules import LeaseRecord, Ledger
    from workflows.arguments import drop_unless
    from workflows.calls import CallFailure, call_options, durable
    from workflows.keys import step_key
    from workflows.outbox import Outbox
    from workflows.refusals import refusal, require
    from workflows.trail import Trail

MAX_CALLS_PER_RUN = 300
"""After so many payments and reports the allowance continues as new, to keep its history short."""
MAX_REMEMBERED_ANSWER_BYTES = 512 * 1024
"""Answers that the next run still gives again; of older payments it knows that they were made."""

ALLOWANCE_CLOSED = "AllowanceClosed"
ALLOWANCE_EXHAUSTED = "AllowanceExhausted"
ALLOWANCE_LEASED = "AllowanceLeased"
ANSWER_FORGOTTEN = "AllowanceAnswerForgotten"
"""Error types of a payment that is refused before anything happened."""

_PAY = call_options(
    policies.ALLOWANCE_CALL_TIMEOUT, policies.REDEEM_CALL_RETRY, heartbeat=policies.PAID_REQUEST_HEARTBEAT
)
_CLOSE = call_options(
    policies.CLOSE_CALL_TIMEOUT,
    policies.CLOSE_CALL_RETRY,
    heartbeat=policies.PAID_REQUEST_HEARTBEAT,
    give_up=policies.CLOSE_GIVE_UP,
)


class AllowanceState(Frozen):
    """What one run hands to the next."""

    reserved: ReserveAnswer
    ledger: Ledger
    ends_at_seconds: int
    answers: dict[str, AllowanceAnswer] = Field(default_factory=dict)
    trail: Trail
    notes: int
    """How many notes its session was sent."""


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
        state = run.state
        self._reserved = state.reserved if state else None
        self._ledger = state.ledger if state else Ledger(budget=run.start.budget.amount)
        self._ends_at = state.ends_at_seconds if state else 0
        self._answers = dict(state.answers) if state else {}
        self._trail = state.trail if state else Trail(max_entries=allowance_rules.MAX_AUDIT_ENTRIES)
        self._outbox = Outbox(run.start.session_id, numbered=state.notes if state else 0)
        self._calls_in_run = 0
        self._paying: set[str] = set()
        self._closing = False
        self._renewing_run = False
        self._refusal: PaymentRefusal | None = None

    @workflow.run
    async def run(self, run: AllowanceRun) -> AllowanceView:
        """Reserve, serve payments, settle."""
        telling = self._outbox.start()
        try:
            await self._open()
            remaining = max(self._ends_at - workflow.now().timestamp(), 0.001)
            try:
                await workflow.wait_condition(
                    lambda: self._closing or self._calls_in_run >= MAX_CALLS_PER_RUN, timeout=remaining
                )
            except TimeoutError:
                self._note("allowance.ended", "waystation", {})
                self._closing = True
            if not self._closing:
                await self._continue(run)
        except CallFailure as failure:
            self._refusal = PaymentRefusal(rule=failure.code, message=str(failure))
            self._note("allowance.refused", "mandate", {"rule": failure.code})
        except asyncio.CancelledError:
            self._note("workflow.cancel", "operator", {})
        self._closing = True
        await self._await_last_report()
        await workflow.wait_condition(workflow.all_handlers_finished)
        await self._settle_with_mandate()
        await workflow.wait_condition(lambda: self._outbox.empty)
        telling.cancel()
        return self.status()

    # A holder

    @workflow.update
    async def lease(self, request: LeaseRequest) -> AllowanceLease:
        """Take the allowance over, or go on with it after a restart.

        Raises:
            ApplicationError: ``AllowanceClosed``; ``AllowanceLeased`` while another holder may live.
        """
        await workflow.wait_condition(lambda: self._reserved is not None or self._closing)
        self._check_open()
        if self._paying:
            raise refusal(ALLOWANCE_LEASED, "payments are under way without a holder; try again")
        current = self._ledger.lease
        now_seconds = int(workflow.now().timestamp())
        if current is not None and current.holder != request.holder:
            free_at = current.ends_at_seconds + int(policies.LEASE_GRACE.total_seconds())
            if now_seconds < free_at:
                wait_seconds = free_at - now_seconds
                raise refusal(
                    ALLOWANCE_LEASED, f"another process pays from it; free in {wait_seconds} seconds at most"
                )
            self._ledger = self._ledger.lose_lease()
            self._note("holder.lost", "waystation", {"lease": current.number, "counted": current.granted})
        if self._ledger.lease is None:
            self._ledger = self._ledger.new_lease(request.holder)
            number = self._ledger.lease.number if self._ledger.lease else 0
            self._note("holder.leased", self._start.agent, {"lease": number, "holder": request.holder})
        return self._extended()

    @lease.validator
    def _lease_is_well_formed(self, request: LeaseRequest) -> None:
        require(request, LeaseRequest)

    @workflow.update
    def report(self, report: AllowanceReport) -> AllowanceLease:
        """What a holder paid. One that was given up for lost corrects what was assumed.

        Raises:
            ApplicationError: ``AllowanceClosed`` for a lease that never was.
        """
        try:
            self._ledger, fresh = self._ledger.take_report(report)
        except allowance_rules.UnknownLeaseError as error:
            raise refusal(ALLOWANCE_CLOSED, str(error)) from None
        for payment in fresh:
            self._note("payment.reported", self._start.agent, allowance_rules.audited(payment))
        if fresh:
            self._announce([allowance_rules.shown(payment) for payment in fresh])
        if report.final:
            self._note("holder.done", self._start.agent, {"lease": report.lease})
        self._calls_in_run += bool(fresh)
        return self._extended(report.lease)

    @report.validator
    def _report_is_well_formed(self, report: AllowanceReport) -> None:
        require(report, AllowanceReport)

    @workflow.update
    async def until_closing(self) -> bool:
        """Wait until no more payments are taken; False when it must be asked again."""
        await workflow.wait_condition(lambda: self._closing or self._renewing_run)
        return self._closing

    def _extended(self, number: int | None = None) -> AllowanceLease:
        """The lease from now on, with a fresh portion of the budget."""
        lasts_seconds = int(policies.LEASE_LIFETIME.total_seconds())
        ends_at = workflow.now() + policies.LEASE_LIFETIME
        lease = self._ledger.lease
        if lease is not None and number in (None, lease.number):
            portion = 0 if self._closing else self._start.max_price.amount
            self._ledger = self._ledger.extend(int(ends_at.timestamp()), portion)
            lease = self._ledger.lease
        else:
            lease = None
        methods = self._reserved.payment_methods if self._reserved else ()
        return AllowanceLease(
            number=lease.number if lease else number or 0,
            may_spend=lease.granted if lease else 0,
            lasts_seconds=lasts_seconds,
            ends_at=ends_at,
            payment_method=self._start.payment_method or next(iter(methods), None),
            valid_until=self._reserved.valid_until if self._reserved else ends_at,
            after_loss=bool(self._ledger.lost),
            closing=self._closing or lease is None,
        )

    async def _await_last_report(self) -> None:
        """A holder that lives reports within moments; one that is gone is given time to come back."""
        if self._ledger.lease is None:
            return
        now_seconds = workflow.now().timestamp()
        patience = policies.LEASE_GRACE + policies.LOST_HOLDER_PATIENCE
        remaining = self._ledger.lease.ends_at_seconds - now_seconds + patience.total_seconds()
        try:
            await workflow.wait_condition(lambda: self._ledger.lease is None, timeout=max(remaining, 1))
        except TimeoutError:
            lost: LeaseRecord = self._ledger.lease
            self._ledger = self._ledger.lose_lease()
            self._note("holder.lost", "waystation", {"lease": lost.number, "counted": lost.granted})

    # Payments that this workflow makes

    @workflow.update
    async def pay(self, payment: AllowancePayment) -> AllowanceAnswer:
        """Pay one request and give its answer.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceExhausted``, ``AllowanceLeased``,
                ``AllowanceAnswerForgotten``.
        """
        await workflow.wait_condition(lambda: self._reserved is not None or self._closing)
        await workflow.wait_condition(lambda: payment.key not in self._paying)
        if payment.key in self._answers:
            return self._answers[payment.key]
        self._check(payment)
        most = self._start.max_price.amount
        self._paying.add(payment.key)
        self._ledger = self._ledger.hold(most)
        try:
            call = self._call(payment)
            answer = await self._pay(call)
        finally:
            self._paying.discard(payment.key)
            self._ledger = self._ledger.hold(-most)
        self._ledger = self._ledger.spend(payment.key, answer.amount)
        self._calls_in_run += 1
        self._answers[payment.key] = answer
        self._note("payment.made", self._start.agent, allowance_rules.audited_answer(payment, answer))
        self._announce([allowance_rules.shown_answer(payment, answer, self._start.budget.currency)])
        return answer

    @pay.validator
    def _payment_is_well_formed(self, payment: AllowancePayment) -> None:
        require(payment, AllowancePayment)

    def _check(self, payment: AllowancePayment) -> None:
        self._check_open()
        if self._ledger.lease is not None:
            raise refusal(ALLOWANCE_LEASED, "a process holds this allowance and pays by itself")
        if payment.key in self._ledger.keys:
            raise refusal(ANSWER_FORGOTTEN, f"'{payment.key}' was paid long ago and its answer isn't kept")
        if origin_of(payment.request.url) != self._start.seller:
            raise refusal(ALLOWANCE_CLOSED, f"this allowance is for {self._start.seller} alone")
        if self._ledger.left < self._start.max_price.amount:
            raise refusal(
                ALLOWANCE_EXHAUSTED, f"{self._ledger.left} of the budget is left, one payment may cost more"
            )

    def _check_open(self) -> None:
        if self._closing or self._reserved is None:
            why = self._refusal.message if self._refusal else "it was settled or has ended"
            raise refusal(ALLOWANCE_CLOSED, f"the allowance takes no more payments: {why}")
        if self._reserved.approval_required:
            raise refusal(ALLOWANCE_CLOSED, "the mandate wants a person to approve payments of this size")
        if self._ledger.payments >= allowance_rules.MAX_PAYMENTS:
            raise refusal(ALLOWANCE_EXHAUSTED, "it has made its last payment; open a new allowance")

    def _call(self, payment: AllowancePayment) -> AllowanceCall:
        if self._reserved is None:
            raise refusal(ALLOWANCE_CLOSED, "the allowance isn't open")
        now = workflow.now()
        return AllowanceCall(
            payment=payment,
            payment_id=step_key(workflow.info().workflow_id, payment.key),
            max_price=self._start.max_price,
            rails=self._start.rails,
            expected_payee=self._start.expected_payee,
            payment_method=self._start.payment_method or next(iter(self._reserved.payment_methods), None),
            at=now,
            expires_at=min(now + policies.CREDENTIAL_LIFETIME, self._reserved.valid_until),
        )

    async def _pay(self, call: AllowanceCall) -> AllowanceAnswer:
        try:
            return await durable(PaidRequestCalls.pay_within_allowance, call, _PAY)
        except CallFailure as failure:
            return await self._find_truth(call, failure)
        except asyncio.CancelledError:
            return await self._find_truth(call, None)

    async def _find_truth(self, call: AllowanceCall, failure: CallFailure | None) -> AllowanceAnswer:
        """No answer came: what the processor or chain says; what nobody knows counts as spent."""
        try:
            return await durable(PaidRequestCalls.close_within_allowance, call, _CLOSE)
        except CallFailure as unclear:
            # Not even the credential could be had: a final refusal to mint means that none exists.
            minted = unclear.kind not in rules.NEVER_MINTED
            refusal = PaymentRefusal(rule=unclear.code, message=str(failure or unclear))
            moved = "unknown" if minted else "no"
            amount = self._start.max_price.amount if minted else 0
            return AllowanceAnswer(money_moved=moved, amount=amount, refusal=refusal)

    # What people may say

    @workflow.signal
    @drop_unless(Cancel)
    def settle(self, wish: Cancel) -> None:
        """No more payments; commit what was spent."""
        self._heard("settle.received", wish.by, {"reason": wish.reason})
        self._closing = True

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was taken back; sent by the mandate itself."""
        self._heard("mandate.revoked", revocation.by, {"reason": revocation.reason})
        self._closing = True

    @workflow.query
    def status(self) -> AllowanceView:
        """What is spent and held."""
        lease = self._ledger.lease
        return AllowanceView(
            allowance_id=workflow.info().workflow_id,
            open=not self._closing and self._reserved is not None,
            budget=self._start.budget,
            spent=self._ledger.spent,
            held=self._ledger.held,
            payments=self._ledger.payments,
            holder=lease.holder if lease else None,
            refusal=self._refusal,
        )

    @workflow.query
    def answer(self, key: str) -> AllowanceAnswer | None:
        """What a payment that this workflow made came to; also after it has ended."""
        return self._answers.get(key)

    @workflow.query
    def audit(self) -> AuditTrail:
        """Every step so far, each entry carrying the hash of the one before."""
        return self._trail.of(workflow.info().workflow_id)

    # The mandate

    async def _open(self) -> None:
        if self._reserved is not None:
            return
        start = self._start
        self._ends_at = int(workflow.now().timestamp()) + start.lifetime_seconds
        if start.max_price.currency != start.budget.currency or not start.max_price <= start.budget:
            raise CallFailure("AllowanceInvalid", "allowance_invalid", "max_price must fit into the budget")
        hold = timedelta(seconds=start.lifetime_seconds) + policies.HOLD_MARGIN
        self._reserved = await mandates.reserve(
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
        budget = start.budget
        self._note("mandate.reserved", "mandate", {"amount": budget.amount, "currency": budget.currency})

    @property
    def _reservation_key(self) -> str:
        return step_key(workflow.info().workflow_id, "budget")

    async def _continue(self, run: AllowanceRun) -> None:
        self._renewing_run = True
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() and self._outbox.empty)
        if self._reserved is None or self._closing:
            return
        state = AllowanceState(
            reserved=self._reserved,
            ledger=self._ledger,
            ends_at_seconds=self._ends_at,
            answers=allowance_rules.newest_answers(self._answers, MAX_REMEMBERED_ANSWER_BYTES),
            trail=self._trail,
            notes=self._outbox.numbered,
        )
        workflow.continue_as_new(AllowanceRun(start=run.start, state=state))

    async def _settle_with_mandate(self) -> None:
        mandate_id, key, spent = self._start.mandate_id, self._reservation_key, self._ledger.spent
        try:
            if spent:
                commit = CommitRequest(key=key, amount=spent)
                await mandates.commit(CommitFor(mandate_id=mandate_id, request=commit))
                self._note("mandate.committed", "mandate", {"amount": spent})
            else:
                release = ReleaseRequest(key=key, reason="nothing was spent")
                await mandates.release(ReleaseFor(mandate_id=mandate_id, request=release))
                self._note("mandate.released", "mandate", {})
        except CallFailure as failure:
            self._refusal = PaymentRefusal(rule=failure.code, message=str(failure))
            self._note("mandate.settle_failed", "mandate", {"code": failure.code})

    # The trail and the session

    def _note(self, action: str, actor: str, detail: Mapping[str, JsonValue]) -> None:
        self._trail = self._trail.noted(action, actor, detail, time=workflow.now())

    def _heard(self, action: str, actor: str, detail: Mapping[str, JsonValue]) -> None:
        self._trail = self._trail.heard(action, actor, detail, time=workflow.now())

    def _announce(self, updates: list[dict[str, JsonValue]]) -> None:
        allowance_id = workflow.info().workflow_id
        common = {"allowance_id": allowance_id, "turn_id": self._start.turn_id}
        self._outbox.put(
            [
                {
                    "type": "payment.updated",
                    "data": {"payment_id": f"{allowance_id}:{update['key']}", **common, **update},
                }
                for update in updates
            ]
        )
