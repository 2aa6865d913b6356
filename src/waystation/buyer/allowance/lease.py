"""The lease of an allowance, as its holder keeps it: what is counted, closed and reported.

A payment is *closed* once the processor or the chain was asked what it came to. Answered payments are
closed in batches, beside the next payments; those without an answer at once.
"""

import asyncio
import logging
import time
from datetime import timedelta
from typing import Final, TypeVar

import stripe
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from waystation.buyer.allowance.journal import AllowanceJournal, JournalLockedError, JournalPayment
from waystation.buyer.allowance.payments import PaymentSteps
from waystation.buyer.credentials import Credentials, NotMintedError
from waystation.buyer.http import PaidHttp, now
from waystation.buyer.outcomes import CLOSED, LEASED, HolderRefusedError, allowance_answer
from waystation.buyer.tokens import ProcessorUnavailableError
from waystation.models.base import replaced
from waystation.models.payments import (
    MAX_REPORTED_AT_ONCE,
    AllowanceAnswer,
    AllowanceLease,
    AllowanceReport,
    ClosedCredential,
    LeaseRequest,
    MintedCredential,
    MoneyMoved,
    PaymentRefusal,
    RedeemAnswer,
    ReportedPayment,
)
from waystation.temporal.calls import update
from waystation.temporal.messages import ALLOWANCE_LEASE, ALLOWANCE_REPORT
from waystation.temporal.retention import DEFAULT_RETENTION_HOURS
from waystation.temporal.tokens import UpdateName

Argument = TypeVar("Argument")

logger = logging.getLogger(__name__)

FINAL_REPORT_SECONDS: Final = 30.0
"""How long a holder that ends waits for the allowance to take its last report; the next one repeats it."""
FIRST_PAUSE_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 15.0
PROCESSOR_ATTEMPTS: Final = 8
"""About a minute of trouble at the processor."""
RETENTION: Final = timedelta(hours=DEFAULT_RETENTION_HOURS)
"""Reported payments, and their answers for a repeated key, are kept as long as ended workflows."""
LEASE_MARGIN_SECONDS: Final = 2.0
"""No payment is begun this close to the lease's end."""

UNREACHABLE: Final = "AllowanceUnreachable"
MADE_ELSEWHERE: Final = "payment_made_elsewhere"
"""The key was paid by a holder that vanished with its journal; what it came to isn't known here."""


class HeldLease:
    """One lease in this machine's journal: what is counted against it, and what is reported."""

    def __init__(
        self, client: Client, allowance_id: str, *, journal: AllowanceJournal, steps: PaymentSteps
    ) -> None:
        self.handle = client.get_workflow_handle(allowance_id)
        self.id = allowance_id
        self.journal, self.steps = journal, steps
        self.closing = False
        self.answered = 0
        """Payments that processor or chain was not asked about yet."""
        self._terms: AllowanceLease | None = None
        self._ends_seconds = 0.0
        self._counted = 0
        self._number = 1
        self._reporting = asyncio.Lock()

    @property
    def terms(self) -> AllowanceLease:
        """The lease as the allowance gave it last."""
        if self._terms is None:
            raise HolderRefusedError(CLOSED, "the allowance isn't held here")
        return self._terms

    @property
    def room(self) -> int:
        """What may still be spent, in minor units."""
        return self.terms.may_spend - self._counted

    @property
    def ends_in_seconds(self) -> float:
        """How long the lease lasts without being renewed, by this machine's steady clock."""
        return self._ends_seconds - time.monotonic()

    @property
    def ends_soon(self) -> bool:
        """Whether it is too close to its end for a payment to begin."""
        return self.ends_in_seconds < LEASE_MARGIN_SECONDS

    def check_open(self) -> None:
        """Raises ``HolderRefusedError`` once the allowance takes no more payments."""
        if self.closing:
            raise HolderRefusedError(
                CLOSED, "the allowance takes no more payments: it was settled or has ended"
            )

    async def take(self) -> None:
        """Asks for the lease, or goes on with the one in the journal. Raises HolderRefusedError."""
        try:
            self.journal.lock(self.id)
        except JournalLockedError as error:
            raise HolderRefusedError(LEASED, str(error)) from None
        try:
            await self._update(ALLOWANCE_LEASE, LeaseRequest(holder=self.journal.id))
            await self._resume(self.terms.number)
            await self.journal.begin(self.id, self.terms.number)
        except BaseException:
            self.journal.unlock(self.id)
            raise

    async def take_up(self, number: int) -> None:
        """Goes on with what a process of this machine left behind, to report it and no more."""
        self.journal.lock(self.id)
        at = now()
        self.closing = True
        self._terms = AllowanceLease(
            number=number, may_spend=0, lasts_seconds=0, ends_at=at, payment_method=None, valid_until=at
        )
        await self._resume(number)

    async def _resume(self, number: int) -> None:
        self._counted = await self.journal.counted(self.id, number)
        self._number = await self.journal.next_number(self.id, number)
        self.answered = len(await self.journal.in_state(self.id, number, "answered"))

    def count(self, amount: int) -> None:
        """Takes an amount from the lease's room, or gives it back when negative."""
        self._counted += amount

    # What payments came to

    async def mint(self, payment: JournalPayment) -> MintedCredential | AllowanceAnswer:
        """The credential of a payment, or why there is none and never will be."""
        for attempt in range(PROCESSOR_ATTEMPTS):
            try:
                return await self.steps.mint(payment.mint)
            except NotMintedError as error:
                return unpaid(error.rule, str(error))
            except stripe.StripeError as error:
                if error.http_status == 409 or not isinstance(error, _FINAL):
                    await asyncio.sleep(pause_seconds(attempt))
                elif isinstance(error, stripe.IdempotencyError):
                    why = f"the processor knows a token for '{payment.key}' of another process"
                    return unpaid(MADE_ELSEWHERE, f"{why}; it is not paid again")
                else:
                    code = error.code or type(error).__name__
                    return unpaid("processor_refused", f"the processor issued no token ({code})")
            except ProcessorUnavailableError:
                await asyncio.sleep(pause_seconds(attempt))
        raise HolderRefusedError(
            "processor_unavailable", "the processor doesn't answer; the same key may be tried again"
        )

    async def close(self, payment: JournalPayment, redeemed: RedeemAnswer | None) -> AllowanceAnswer:
        """Asks processor or chain what a payment without an answer came to, and records it."""
        credential = payment.credential
        if credential is None:
            minted = await self.mint(payment)
            if isinstance(minted, AllowanceAnswer):
                return await self.record(payment, minted)
            credential = minted
        closed = ClosedCredential(money_moved="unknown", source="nobody")
        for attempt in range(PROCESSOR_ATTEMPTS):
            try:
                closed = await self.steps.ask(payment.mint, credential)
                break
            except (stripe.StripeError, ProcessorUnavailableError):
                await asyncio.sleep(pause_seconds(attempt))
        outcome = allowance_answer(payment.mint.offer, credential, redeemed, closed)
        done = replaced(payment, credential=credential, redeemed=redeemed)
        return await self.record(done, outcome)

    async def record(self, payment: JournalPayment, outcome: AllowanceAnswer) -> AllowanceAnswer:
        """The last word on a payment, numbered for the report."""
        number, self._number = self._number, self._number + 1
        closed = replaced(payment, state="closed", outcome=outcome, counted=outcome.amount, number=number)
        await self.journal.write(self.id, closed, at=payment.mint.at)
        self.count(outcome.amount - payment.counted)
        return outcome

    # Reports

    async def report(self, *, final: bool = False) -> None:
        """Asks what became of the answered payments, and tells the allowance of all that are closed.

        Raises:
            HolderRefusedError: it doesn't take them now.
        """
        async with self._reporting:
            await self._close_answered()
            number = self.terms.number
            while True:
                batch = await self.journal.unreported(self.id, number, MAX_REPORTED_AT_ONCE)
                last = len(batch) < MAX_REPORTED_AT_ONCE
                payments = tuple(map(_reported, batch))
                await self._update(
                    ALLOWANCE_REPORT, AllowanceReport(lease=number, payments=payments, final=final and last)
                )
                if batch:
                    await self.journal.reported(self.id, number, payments[-1].number)
                if last:
                    return

    async def report_for_the_last_time(self) -> None:
        """Ends every payment and the lease. What doesn't arrive is repeated from the journal later."""
        try:
            async with asyncio.timeout(FINAL_REPORT_SECONDS):
                for payment in await self.journal.in_state(self.id, self.terms.number, "pinned"):
                    await self.close(payment, None)
                await self.report(final=True)
                await self.journal.finish(self.id)
        except (TimeoutError, HolderRefusedError) as error:
            if isinstance(error, HolderRefusedError) and error.rule == CLOSED:
                await self.journal.finish(self.id)  # it has settled without us
            else:
                logger.warning("the last report of %s didn't arrive; it is repeated later", self.id)
        finally:
            self.journal.unlock(self.id)

    async def _close_answered(self) -> None:
        for payment in await self.journal.in_state(self.id, self.terms.number, "answered"):
            credential = payment.credential
            if credential is None:
                continue
            try:
                closed = await self.steps.ask(payment.mint, credential)
            except (stripe.StripeError, ProcessorUnavailableError):
                closed = ClosedCredential(money_moved="unknown", source="nobody")
            if closed.money_moved == "unknown" and closed.source == "nobody" and not self.closing:
                continue  # asked again with the next report
            outcome = allowance_answer(payment.mint.offer, credential, payment.redeemed, closed)
            await self.record(payment, outcome)
            self.answered -= 1

    async def _update(self, name: UpdateName[Argument, AllowanceLease], argument: Argument) -> None:
        asked_seconds = time.monotonic()
        try:
            terms = await update(self.handle, name, argument)
        except WorkflowUpdateFailedError as failed:
            cause = failed.cause
            rule = (cause.type if isinstance(cause, ApplicationError) else None) or UNREACHABLE
            raise HolderRefusedError(rule, str(cause)) from None
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                raise HolderRefusedError(CLOSED, "the allowance has ended; open a new one") from None
            raise HolderRefusedError(UNREACHABLE, "Temporal doesn't answer; try again later") from None
        self._terms = terms
        self._ends_seconds = asked_seconds + terms.lasts_seconds
        self.closing = self.closing or terms.closing


_FINAL: Final = (
    stripe.CardError,
    stripe.InvalidRequestError,
    stripe.AuthenticationError,
    stripe.PermissionError,
    stripe.IdempotencyError,
)


async def report_what_was_left(
    client: Client, *, journal: AllowanceJournal, http: PaidHttp, credentials: Credentials, but: str
) -> None:
    """Ends and reports what processes of this machine have left behind; ``but`` is taken up by itself.

    Forgets what was reported long ago.
    """
    await journal.forget(made_before=now() - RETENTION)
    for allowance_id, number in (await journal.unfinished()).items():
        if allowance_id == but:
            continue
        steps = PaymentSteps(http, credentials, owner=allowance_id)
        lease = HeldLease(client, allowance_id, journal=journal, steps=steps)
        try:
            await lease.take_up(number)
        except JournalLockedError:
            continue
        await lease.report_for_the_last_time()


def unpaid(rule: str, message: str) -> AllowanceAnswer:
    """A payment that this holder did not make."""
    moved: MoneyMoved = "unknown" if rule == MADE_ELSEWHERE else "no"
    return AllowanceAnswer(money_moved=moved, refusal=PaymentRefusal(rule=rule, message=message))


def _reported(payment: JournalPayment) -> ReportedPayment:
    outcome, number, offer = payment.outcome, payment.number, payment.mint.offer
    assert outcome is not None, "a payment is reported once it is closed"
    assert number is not None, "a closed payment has its number"
    return ReportedPayment(
        number=number,
        key=payment.key,
        url=payment.request.url,
        method=payment.request.method,
        rail=offer.rail,
        price=offer.price,
        payee=offer.payee,
        amount=outcome.amount,
        money_moved=outcome.money_moved,
        rule=outcome.refusal.rule if outcome.refusal else None,
        answer_sha256=outcome.answer.body_sha256 if outcome.answer else None,
        receipt=outcome.receipt.reference if outcome.receipt else None,
        credential=payment.credential.fingerprint if payment.credential else None,
    )


def pause_seconds(attempt: int) -> float:
    """Before the next try."""
    return min(FIRST_PAUSE_SECONDS * (1 << attempt), MAX_PAUSE_SECONDS)
