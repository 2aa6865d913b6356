"""The Mandate workflow: one person's permission for one agent to spend.

``reserve``, ``commit``, ``release`` and ``refund`` are updates, ``revoke`` is a signal (so
``temporal workflow signal --name revoke --input '{"by": "alice"}'`` works), ``balance``
is a query. Every change is one synchronous step over the pure rules, so requests that
arrive together are decided one after the other and the cap holds.

Whoever can reach Temporal can start one, so nothing is reserved before the grant is proven: a signature over
the terms and this workflow's id, made by whoever authenticated the owner.
"""

import contextlib
from datetime import datetime, timedelta
from functools import partial
from typing import ClassVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    import workflows.mandate.rules as rules
    import workflows.policies as policies
    from activities.contract import HolderQuestion, MandateCalls
    from waystation.models.base import WorkflowStart
    from waystation.models.mandates import (
        GRANT_NOT_PROVEN,
        CommitRequest,
        MandateTerms,
        MandateView,
        RefundRequest,
        ReleaseRequest,
        Reservation,
        ReserveAnswer,
        ReserveRequest,
        RevokeRequest,
    )
    from waystation.models.proofs import Proof, ProofVerdict
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import HOLDER_MANDATE_REVOKED
    from waystation.temporal.names import MANDATE_WORKFLOW
    from workflows.guards import answering, drop_unless, ending, starting
    from workflows.mandate.rules import MandateLedger, MandateRefusal
    from workflows.proofs import verdict_on
    from workflows.refusals import require

HOLD_EXTENSION_SECONDS = 900
"""How long a hold is extended when its holder is found at work."""

CLOSING_GRACE_SECONDS = 3_600
"""After its end, a mandate still answers for this long, so that late commits find it."""

MAX_EVENTS_BEFORE_ROLLOVER = 8_000
"""History events after which the mandate continues as new, whatever the server suggests."""


UNPROVEN_BY = "waystation"
"""Who is said to have revoked a mandate whose grant is not proven."""


class MandateStart(WorkflowStart):
    """What starts a mandate; ``ledger`` carries it over into a new run."""

    CARRIED: ClassVar[frozenset[str]] = frozenset({"ledger"})

    terms: MandateTerms
    proof: Proof | None = None
    """Of the grant: ``kind`` is ``grant``, what is said are the terms."""
    ledger: MandateLedger | None = None


@workflow.defn(name=MANDATE_WORKFLOW)
class Mandate:
    """Keeps spent + reserved within the cap. Its workflow id is the mandate's id."""

    @workflow.init
    @starting
    def __init__(self, start: MandateStart) -> None:
        # Only a run that this workflow itself renewed has a past; whoever starts one can write anything here.
        ledger = start.ledger if _is_renewed() else None
        self._ledger = ledger or MandateLedger(mandate_id=workflow.info().workflow_id, terms=start.terms)
        self._granted = ledger is not None
        self._told_holders = self._ledger.revoked is not None

    @workflow.run
    @ending
    async def run(self, start: MandateStart) -> MandateView:
        """Lives until its validity and every hold have ended, then returns the final balance.

        Without a proof of the grant it ends at once, revoked.
        """
        if not self._granted:
            await self._check_grant(start)
        while self._granted and not self._is_over():
            wake_at = self._next_deadline()
            wait = max((wake_at - workflow.now()).total_seconds(), 0)
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(partial(self._has_work, wake_at), timeout=wait)
            await self._settle_lapsed_holds()
            await self._tell_holders_of_revocation()
            if self._should_roll_over():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(start.model_copy(update={"ledger": self._ledger}))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.balance()

    @workflow.update
    @answering
    async def reserve(self, request: ReserveRequest) -> ReserveAnswer:
        """Sets an amount aside, once the grant is proven; the same key again confirms it.

        Raises:
            ApplicationError: The mandate refuses; type ``MandateRefused``, details hold the rule's name.
        """
        if not self._granted:
            await workflow.wait_condition(lambda: self._granted or self._ledger.revoked is not None)
        with _refusals():
            self._ledger, answer = rules.reserve(self._ledger, request, workflow.now())
        return answer

    @reserve.validator
    def _reserve_is_well_formed(self, request: ReserveRequest) -> None:
        require(request, ReserveRequest)

    @workflow.update
    @answering
    def commit(self, request: CommitRequest) -> Reservation:
        """Records a payment that was made."""
        with _refusals():
            self._ledger, settled = rules.commit(self._ledger, request, workflow.now())
        return settled

    @commit.validator
    def _commit_is_well_formed(self, request: CommitRequest) -> None:
        require(request, CommitRequest)

    @workflow.update
    @answering
    def release(self, request: ReleaseRequest) -> Reservation:
        """Releases the room of a payment that was not made."""
        with _refusals():
            self._ledger, settled = rules.release(self._ledger, request, workflow.now())
        return settled

    @release.validator
    def _release_is_well_formed(self, request: ReleaseRequest) -> None:
        require(request, ReleaseRequest)

    @workflow.update
    @answering
    def refund(self, request: RefundRequest) -> Reservation:
        """Records what has come back of a payment."""
        with _refusals():
            self._ledger, settled = rules.refund(self._ledger, request)
        return settled

    @refund.validator
    def _refund_is_well_formed(self, request: RefundRequest) -> None:
        require(request, RefundRequest)

    @workflow.signal
    @drop_unless(RevokeRequest)
    def revoke(self, request: RevokeRequest) -> None:
        """Revokes the mandate: nothing more can be reserved, and payments under way are told."""
        self._ledger = rules.revoke(self._ledger, request)

    @workflow.query
    def standing(self) -> MandateView:
        """Returns the balance without the reservations, of which there may be thousands."""
        return rules.view(self._ledger, workflow.now(), with_reservations=False)

    @workflow.query
    def balance(self) -> MandateView:
        """Returns what is spent, reserved and left, and every reservation still remembered."""
        return rules.view(self._ledger, workflow.now())

    async def _check_grant(self, start: MandateStart) -> None:
        info = workflow.info()
        if info.cron_schedule is not None or info.retry_policy is not None:
            verdict = ProofVerdict(
                valid=False, why="a mandate is started once, without a schedule or retries"
            )
        else:
            verdict = await verdict_on("grant", start.terms, start.proof, at_start=True)
        self._granted = verdict.valid
        if not verdict.valid:
            why = f"{GRANT_NOT_PROVEN}: {verdict.why}"
            self._ledger = rules.revoke(self._ledger, RevokeRequest(by=UNPROVEN_BY, reason=why[:500]))

    def _has_work(self, wake_at: datetime) -> bool:
        """Returns whether the loop must run before ``wake_at``, as after a new, shorter hold."""
        untold = self._ledger.revoked is not None and not self._told_holders
        return untold or self._should_roll_over() or self._next_deadline() < wake_at

    def _should_roll_over(self) -> bool:
        info = workflow.info()
        return (
            info.is_continue_as_new_suggested()
            or info.get_current_history_length() > MAX_EVENTS_BEFORE_ROLLOVER
        )

    def _is_over(self) -> bool:
        return not self._ledger.open_keys and workflow.now() >= self._closing_time()

    def _closing_time(self) -> datetime:
        return self._ledger.terms.valid_until + timedelta(seconds=CLOSING_GRACE_SECONDS)

    def _next_deadline(self) -> datetime:
        """Returns when the next hold runs out; without holds, when the mandate ends."""
        holds = [self._ledger.reservations[key].held_until for key in self._ledger.open_keys]
        return min(holds, default=self._closing_time())

    async def _settle_lapsed_holds(self) -> None:
        now = workflow.now()
        lapsed = [k for k in self._ledger.open_keys if self._ledger.reservations[k].held_until <= now]
        for key in lapsed:
            if await self._holder_is_at_work(key):
                until = workflow.now() + timedelta(seconds=HOLD_EXTENSION_SECONDS)
                self._ledger = rules.extend_hold(self._ledger, key, until)
            elif key in self._ledger.open_keys:  # it may have been settled while we asked
                lapse = ReleaseRequest(key=key, reason="the hold ran out and nobody is at work on it")
                self._ledger, _ = rules.release(self._ledger, lapse, workflow.now())

    async def _holder_is_at_work(self, key: str) -> bool:
        holder = self._ledger.reservations[key].holder
        if holder is None:
            return False
        try:
            return await workflow.execute_activity_method(
                MandateCalls.holder_is_running,
                HolderQuestion(workflow_id=holder),
                start_to_close_timeout=policies.MANDATE_CALL_TIMEOUT,
                retry_policy=policies.MANDATE_CALL_RETRY,
            )
        except ActivityError:
            return True  # if it isn't known, the room must not be given away

    async def _tell_holders_of_revocation(self) -> None:
        if self._ledger.revoked is None or self._told_holders:
            return
        self._told_holders = True
        for key in self._ledger.open_keys:
            holder = self._ledger.reservations[key].holder
            if holder is None:
                continue
            try:
                await tell_workflow(holder, HOLDER_MANDATE_REVOKED, self._ledger.revoked)
            except ApplicationError:
                workflow.logger.info("a holder of a revoked mandate is gone", extra={"holder": holder})


def _is_renewed() -> bool:
    """Whether an earlier run, which was proven, continued as this one: not a schedule, nor a retry."""
    info = workflow.info()
    return info.continued_run_id is not None and info.cron_schedule is None and info.retry_policy is None


class _refusals:  # noqa: N801 - reads as a statement
    """Turns a rule's refusal into the error that a caller of the update gets."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MandateRefusal):
            raise ApplicationError(
                str(error), error.rule, type="MandateRefused", non_retryable=True
            ) from None
