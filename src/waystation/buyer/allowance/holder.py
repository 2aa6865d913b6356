"""Paying from an allowance without a call to Temporal for each payment.

The allowance's workflow leases its budget, in portions, to one holder: the process that pays. For
each payment the holder pins the challenge in its journal, mints the credential, sends it, and
records the answer. Spent and under way together never exceed what the lease allows. The processor or
the chain is asked in batches what the payments came to, and that is reported to the workflow.

What makes a charge happen at most once is not the lease alone: a token's idempotency key and a
signature's nonce come from the allowance and the payment's key, so the processor and the chain refuse
a second payment for a key even where a journal was lost.
"""

import asyncio
import contextlib
import logging
from datetime import timedelta
from typing import Final, NamedTuple

from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from waystation.buyer.allowance.journal import AllowanceJournal, JournalPayment
from waystation.buyer.allowance.lease import MADE_ELSEWHERE, HeldLease, pause_seconds
from waystation.buyer.allowance.payments import PaymentLimits, PaymentSteps, mint_call
from waystation.buyer.credentials import Credentials
from waystation.buyer.http import PaidHttp, ServerUnavailableError, now
from waystation.buyer.offer_choice import OfferRefused, lower_limit
from waystation.buyer.origins import RequestInvalidError, check_transport, origin_of
from waystation.buyer.outcomes import (
    CLOSED,
    KEY_REUSED,
    HolderRefusedError,
    allowance_answer,
    key_is_reused,
)
from waystation.models.base import replaced
from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    AllowanceStart,
    ClosedCredential,
    HeaderPair,
    MintedCredential,
    Offer,
    PaidHttpRequest,
    Rail,
    RedeemAnswer,
)
from waystation.temporal.calls import update
from waystation.temporal.messages import ALLOWANCE_UNTIL_CLOSING

logger = logging.getLogger(__name__)

REPORT_EVERY_SECONDS: Final = 5.0
REPORT_AFTER_PAYMENTS: Final = 25
REPORT_PAUSE_SECONDS: Final = 1.0
"""Between tries to reach the allowance."""
SEND_ATTEMPTS: Final = 12
"""The same credential each time; about two minutes of trouble at a server."""
CREDENTIAL_LIFETIME: Final = timedelta(minutes=10)

EXHAUSTED: Final = "AllowanceExhausted"


class Wanted(NamedTuple):
    """What one key stands for."""

    request: PaidHttpRequest
    max_price: Money

    def check_same(self, begun: "Wanted", key: str) -> None:
        """Raises ``HolderRefusedError`` where something else was begun under the key."""
        if (self.request.digest(), self.max_price) != (begun.request.digest(), begun.max_price):
            raise HolderRefusedError(KEY_REUSED, key_is_reused(key))


class AllowanceHolder:
    """Pays from one allowance, as long as it holds the lease. One for each allowance in a process."""

    def __init__(
        self,
        client: Client,
        allowance_id: str,
        start: AllowanceStart,
        *,
        journal: AllowanceJournal,
        http: PaidHttp,
        credentials: Credentials,
    ) -> None:
        self._id, self._start = allowance_id, start
        self._journal = journal
        self._steps = PaymentSteps(http, credentials, owner=allowance_id)
        self._lease = HeldLease(client, allowance_id, journal=journal, steps=self._steps)
        self._paying: dict[str, tuple[Wanted, asyncio.Task[AllowanceAnswer]]] = {}
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._finishing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Takes the lease, or goes on with the one that this machine's journal has.

        Raises:
            HolderRefusedError: the allowance is closed, or another process holds it.
        """
        await self._lease.take()
        self._tasks = [asyncio.create_task(self._report_steadily()), asyncio.create_task(self._watch())]

    async def finish(self) -> None:
        """Takes no more payments, ends those under way, and reports for the last time."""
        if self._finishing is None:
            self._lease.closing = True
            self._finishing = asyncio.create_task(self._finish_all())
        await asyncio.shield(self._finishing)

    async def _finish_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        paying = [task for _, task in self._paying.values()]
        await asyncio.gather(*self._tasks, *paying, return_exceptions=True)
        await self._lease.report_for_the_last_time()

    # One payment

    async def pay(
        self,
        request: PaidHttpRequest,
        first_answer: tuple[HeaderPair, ...],
        *,
        key: str,
        max_price: Money,
    ) -> AllowanceAnswer:
        """Pays one request and gives its answer; the same ``key`` again gives the same one.

        A caller that is canceled meanwhile leaves the payment to be finished.

        Raises:
            HolderRefusedError: nothing was begun.
        """
        wanted = Wanted(request, max_price)
        if key in self._paying:
            begun, paying = self._paying[key]
            wanted.check_same(begun, key)
        else:
            paying = asyncio.create_task(self._pay(wanted, first_answer, key))
            self._paying[key] = wanted, paying
            paying.add_done_callback(lambda _: self._paying.pop(key, None))
        return await asyncio.shield(paying)

    async def _pay(self, wanted: Wanted, first_answer: tuple[HeaderPair, ...], key: str) -> AllowanceAnswer:
        known = await self._journal.load(self._id, key)
        if known is not None:
            wanted.check_same(Wanted(known.request, known.max_price or wanted.max_price), key)
            if known.outcome is not None:
                return known.outcome
            return await self._finish(known)
        offer = self._choose(wanted, first_answer)
        if isinstance(offer, AllowanceAnswer):
            return offer
        await self._check_lost_holder(offer, key)
        await self._take_room(offer.price.amount)
        payment = await self._pin(wanted, offer, key)
        return await self._finish(payment)

    def _choose(self, wanted: Wanted, first_answer: tuple[HeaderPair, ...]) -> Offer | AllowanceAnswer:
        check_transport(wanted.request.url)
        if origin_of(wanted.request.url) != self._start.seller:
            raise HolderRefusedError(CLOSED, f"this allowance is for {self._start.seller} alone")
        try:
            most = lower_limit(self._start.max_price, wanted.max_price)
        except OfferRefused as refused:
            raise HolderRefusedError(refused.rule, str(refused)) from None
        limits = PaymentLimits(most, self._start.rails, self._start.expected_payee)
        return self._steps.choose(wanted.request, first_answer, limits, at=now())

    async def _check_lost_holder(self, offer: Offer, key: str) -> None:
        """After a holder was lost, no key of its may be paid again.

        A token's idempotency key tells by itself when it is minted; of a signature the chain is asked
        first. The nonce of an MPP signature comes from the challenge, so nobody can tell.
        """
        if not self._lease.terms.after_loss or offer.rail is Rail.MPP_STRIPE:
            return
        if offer.rail is Rail.X402_EXACT:
            used = await self._steps.authorization_was_used(offer, self._payment_key(key))
            if used is False:
                return
        raise HolderRefusedError(
            MADE_ELSEWHERE,
            f"a process that vanished may have paid for '{key}'; look at the seller's side, or use a new key",
        )

    async def _take_room(self, amount: int) -> None:
        """Counts a payment before anything of it exists, asking for more of the budget if need be."""
        self._lease.check_open()
        # A lease about to end is renewed first: a process that was asleep may well reach the allowance.
        if self._lease.room < amount or self._lease.ends_soon:
            await self._lease.report()
            self._lease.check_open()
        # No ``await`` between this check and the count: payments made at once share the room.
        if self._lease.room < amount:
            left = max(self._lease.room, 0)
            raise HolderRefusedError(EXHAUSTED, f"{left} of the budget is left, the server asks for {amount}")
        self._lease.count(amount)

    async def _pin(self, wanted: Wanted, offer: Offer, key: str) -> JournalPayment:
        """The payment in the journal, before anything exists that could be charged."""
        at = now()
        lease = self._lease.terms
        payment = JournalPayment(
            key=key,
            lease=lease.number,
            state="pinned",
            counted=offer.price.amount,
            request=wanted.request,
            max_price=wanted.max_price,
            mint=mint_call(
                offer,
                payment_id=self._payment_key(key),
                at=at,
                expires_at=min(at + CREDENTIAL_LIFETIME, lease.valid_until),
                payment_method=self._start.payment_method or lease.payment_method,
            ),
        )
        try:
            await self._journal.write(self._id, payment, at=at)
        except BaseException:
            self._lease.count(-offer.price.amount)
            raise
        return payment

    async def _finish(self, payment: JournalPayment) -> AllowanceAnswer:
        """From the pinned offer to an outcome; taken up here again after a crash."""
        credential = payment.credential
        if credential is None:
            minted = await self._lease.mint(payment)
            if isinstance(minted, AllowanceAnswer):
                return await self._lease.record(payment, minted)
            credential = minted
            payment = replaced(payment, credential=credential)
            await self._journal.write(self._id, payment, at=payment.mint.at)
        redeemed = await self._send(payment, credential)
        if redeemed is None or redeemed.answer is None:
            return await self._lease.close(payment, redeemed)
        # The price counts at once; processor or chain is asked with the next report.
        believed = ClosedCredential(money_moved="yes", source="nobody")
        outcome = allowance_answer(payment.mint.offer, credential, redeemed, believed)
        answered = replaced(payment, state="answered", redeemed=redeemed, outcome=outcome)
        await self._journal.write(self._id, answered, at=payment.mint.at)
        self._lease.answered += 1
        if self._lease.answered >= REPORT_AFTER_PAYMENTS:
            self._due.set()
        return outcome

    async def _send(self, payment: JournalPayment, credential: MintedCredential) -> RedeemAnswer | None:
        """What came back for the credential; None when nothing did."""
        for attempt in range(SEND_ATTEMPTS):
            try:
                return await self._steps.send(payment.request, payment.mint, credential)
            except ServerUnavailableError as error:
                pause = error.wait.total_seconds() if error.wait else pause_seconds(attempt)
                await asyncio.sleep(pause)
            except RequestInvalidError:
                return None
        return None

    def _payment_key(self, key: str) -> str:
        return f"{self._id}:{key}"

    # Beside the payments

    async def _report_steadily(self) -> None:
        while True:
            self._due.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), REPORT_EVERY_SECONDS)
            renewal_due = self._lease.ends_in_seconds < self._lease.terms.lasts_seconds / 2
            if not self._lease.answered and not renewal_due:
                continue
            try:
                await self._lease.report()
            except HolderRefusedError as refused:
                logger.warning("%s takes no report (%s)", self._id, refused.rule)
                await asyncio.sleep(REPORT_PAUSE_SECONDS)

    async def _watch(self) -> None:
        """Learns at once that the allowance was settled or its mandate revoked."""
        while not self._lease.closing:
            try:
                # Under one id: an update whose answer was lost is still under way, and Temporal allows ten.
                closing = await update(
                    self._lease.handle, ALLOWANCE_UNTIL_CLOSING, update_id=ALLOWANCE_UNTIL_CLOSING.name
                )
                self._lease.closing = self._lease.closing or closing
                if not closing:  # the run is being renewed
                    await asyncio.sleep(REPORT_PAUSE_SECONDS)
            except WorkflowUpdateFailedError:
                await asyncio.sleep(REPORT_PAUSE_SECONDS)
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:
                    self._lease.closing = True
                await asyncio.sleep(REPORT_PAUSE_SECONDS)
        self._tasks.remove(asyncio.current_task())  # type: ignore[arg-type]
        await self.finish()
