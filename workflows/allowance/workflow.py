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
from typing import ClassVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from waystation.models.base import WorkflowStart
    from waystation.models.decisions import Cancel
    from waystation.models.mandates import RevokeRequest
    from waystation.models.payments import (
        AllowanceAnswer,
        AllowanceLease,
        AllowanceOpening,
        AllowancePayment,
        AllowanceReport,
        AllowanceView,
        LeaseRequest,
        PaymentRefusal,
    )
    from waystation.models.trail import AuditTrail
    from waystation.temporal.messages import ALLOWANCE
    from workflows.allowance.authorization import AllowanceAuthorization, refusal_of
    from workflows.allowance.journal import AllowanceJournal
    from workflows.allowance.leases import ALLOWANCE_LEASED, AllowanceLeases
    from workflows.allowance.payments import AllowancePayments
    from workflows.allowance.state import AllowanceState
    from workflows.calls import CallFailure
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.outbox import Outbox
    from workflows.refusals import INTERNAL_ERROR, refusal, require

MAX_CALLS_PER_RUN = 300
"""After so many payments and reports the allowance continues as new, to keep its history short."""
MAX_REMEMBERED_ANSWER_BYTES = 512 * 1024
"""Answers that the next run still gives again; of older payments it knows that they were made."""


class AllowanceRun(AllowanceOpening, WorkflowStart):
    """What starts a run; ``state`` carries it over."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"state"})

    state: AllowanceState | None = None


@workflow.defn(name=ALLOWANCE.name)
class Allowance:
    """One budget at one seller. Its workflow id is the root of its payments' idempotency keys."""

    @workflow.init
    @starting
    def __init__(self, run: AllowanceRun) -> None:
        state = run.state
        self._outbox = Outbox(run.start.session_id, numbered=state.notes if state else 0)
        journal = AllowanceJournal(run.start, state, self._outbox)
        self._journal = journal
        self._authorization = AllowanceAuthorization(journal)
        self._leases = AllowanceLeases(journal)
        self._payments = AllowancePayments(journal)
        self._renewing_run = False

    @workflow.run
    @ending
    async def run(self, run: AllowanceRun) -> AllowanceView:
        """Reserves, serves payments, settles."""
        journal = self._journal
        telling = self._outbox.start()
        try:
            await self._authorization.open()
            await self._serve(run)
        except CallFailure as failure:
            why = refusal_of(failure)
            journal.refuse(why)
            journal.note("allowance.refused", "mandate", {"rule": why.rule})
        except asyncio.CancelledError:
            journal.note("workflow.cancel", "operator", {})
        except Exception:
            workflow.logger.exception("The allowance can't go on; it is settled")
            journal.refuse(PaymentRefusal(rule="internal_error", message=INTERNAL_ERROR))
            journal.note("allowance.broken", "waystation", {})
        journal.close()
        await self._leases.await_last_report()
        await workflow.wait_condition(workflow.all_handlers_finished)
        await self._authorization.settle()
        await workflow.wait_condition(lambda: self._outbox.empty)
        telling.cancel()
        return self.status()

    async def _serve(self, run: AllowanceRun) -> None:
        """Waits for the end; continues as new where the history gets long."""
        journal = self._journal
        remaining = max(journal.state.ends_at_seconds - workflow.now().timestamp(), 0.001)
        try:
            await workflow.wait_condition(
                lambda: journal.state.closing or journal.calls_in_run >= MAX_CALLS_PER_RUN, timeout=remaining
            )
        except TimeoutError:
            journal.note("allowance.ended", "waystation", {})
            return
        if journal.state.closing:
            return
        self._renewing_run = True
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() and self._outbox.empty)
        if not journal.state.closing:
            state = journal.carried(MAX_REMEMBERED_ANSWER_BYTES)
            workflow.continue_as_new(AllowanceRun(start=run.start, state=state))

    # A holder

    @workflow.update
    @answering
    async def lease(self, request: LeaseRequest) -> AllowanceLease:
        """Takes the allowance over, or goes on with it after a restart.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceExhausted``; ``AllowanceLeased`` while another
                holder may live.
        """
        await self._journal.until_opened()
        self._journal.check_open()
        if self._payments.under_way:
            raise refusal(ALLOWANCE_LEASED, "payments are under way without a holder; try again")
        return self._leases.take(request)

    @lease.validator
    def _lease_is_well_formed(self, request: LeaseRequest) -> None:
        require(request, LeaseRequest)

    @workflow.update
    @answering
    def report(self, report: AllowanceReport) -> AllowanceLease:
        """Counts what a holder has paid.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceReportRefused``.
        """
        return self._leases.report(report)

    @report.validator
    def _report_is_well_formed(self, report: AllowanceReport) -> None:
        require(report, AllowanceReport)

    @workflow.update
    @answering
    async def until_closing(self) -> bool:
        """Waits until no more payments are taken; returns ``False`` when it must be asked again."""
        await workflow.wait_condition(lambda: self._journal.state.closing or self._renewing_run)
        return self._journal.state.closing

    # Payments that this workflow makes

    @workflow.update
    @answering
    async def pay(self, payment: AllowancePayment) -> AllowanceAnswer:
        """Pays one request and gives its answer.

        Raises:
            ApplicationError: ``AllowanceClosed``, ``AllowanceExhausted``, ``AllowanceLeased``,
                ``AllowanceAnswerForgotten``.
        """
        await self._journal.until_opened()
        return await self._payments.pay(payment)

    @pay.validator
    def _payment_is_well_formed(self, payment: AllowancePayment) -> None:
        require(payment, AllowancePayment)

    # What people may say

    @workflow.signal
    @drop_unless(Cancel)
    def settle(self, wish: Cancel) -> None:
        """No more payments; commit what was spent."""
        self._journal.note_signal("settle.received", wish.by, {"reason": wish.reason})
        self._journal.close()

    @workflow.signal
    @drop_unless(RevokeRequest)
    def mandate_revoked(self, revocation: RevokeRequest) -> None:
        """The mandate was revoked; sent by the mandate itself."""
        self._journal.note_signal("mandate.revoked", revocation.by, {"reason": revocation.reason})
        self._journal.close()

    @workflow.query
    def status(self) -> AllowanceView:
        """Returns what is spent and held."""
        return self._journal.view()

    @workflow.query
    def answer(self, key: str) -> AllowanceAnswer | None:
        """Returns what a payment that this workflow made came to; also after it has ended."""
        return self._journal.state.answers.get(key)

    @workflow.query
    def digest(self) -> str:
        """Returns what its id stands for: the digest of all that it was started with."""
        return self._journal.start.digest()

    @workflow.query
    def digest_of(self, key: str) -> str | None:
        """Returns what the key of a payment that this workflow made stands for."""
        return self._journal.state.digests.get(key)

    @workflow.query
    def audit(self) -> AuditTrail:
        """Returns every step so far, each entry carrying the hash of the one before."""
        return self._journal.trail()
