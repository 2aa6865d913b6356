"""One worker's hold on one payment: charge if need be, run the handler, record the answer, refund if due."""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from waystation.models.money import Money
from waystation.protocols.http402 import RedeemedChallenge
from waystation.seller.paywall.endpoints import Call
from waystation.seller.paywall.entries import Entry, EntryState, Lease
from waystation.seller.paywall.journal import Journal
from waystation.seller.paywall.rails import (
    PaymentPayload,
    Refused,
    SellerRail,
    Settled,
    Unclear,
)
from waystation.seller.paywall.recording import LargeAnswer, Recorder
from waystation.seller.paywall.refunds import RefundRule, give_back

logger = logging.getLogger(__name__)

_background: set[asyncio.Task[None]] = set()
"""Runs of handlers whose answer is complete but whose background work isn't."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential that was proven to fit this request, with the rail that can charge it."""

    challenge: RedeemedChallenge
    rail: SellerRail
    price: Money
    payment: PaymentPayload
    key: str

    @property
    def fingerprint(self) -> str:
        """The digest of what pays."""
        return self.challenge.proof

    @property
    def expired(self) -> bool:
        """Whether the challenge can't be paid any more, nor an answer that wasn't kept be made again."""
        return self.challenge.expires_at <= datetime.now(UTC)


class Leases:
    """The leases that one process takes on entries."""

    def __init__(self, length: timedelta) -> None:
        self.owner = uuid.uuid4().hex
        self.renew_seconds = length.total_seconds() / 3
        self._length = length

    def new(self) -> Lease:
        """Returns a lease for this process from now on."""
        return Lease(owner=self.owner, until=datetime.now(UTC) + self._length)


class Work:
    """One worker's hold on one payment."""

    def __init__(
        self, journal: Journal, leases: Leases, presented: Presented, call: Call, refund_rule: RefundRule
    ) -> None:
        self._journal = journal
        self._leases = leases
        self._presented = presented
        self._call = call
        self._refund_rule = refund_rule
        self._lock = asyncio.Lock()
        self._lost = False
        self._held: Entry | None = None
        self._client_gone = False
        self.large: asyncio.Future[tuple[Entry, LargeAnswer]] = asyncio.get_running_loop().create_future()
        """An answer that is too large to record, for the request that started this work."""
        self.retry_after: str | None = None
        """What a handler that can't answer now says about when it could."""

    @property
    def _entry(self) -> Entry:
        if self._held is None:
            raise RuntimeError("no entry is being worked on")
        return self._held

    async def run(self, entry: Entry) -> Entry:
        """Works on an entry that was taken, until nothing more can be done now. Returns how it stands."""
        self._held = entry
        renewing = asyncio.create_task(self._renew())
        try:
            if self._entry.state is EntryState.CLAIMED:
                await self._charge()
            if not self._lost and (self._entry.state is EntryState.CHARGED or self._entry.unkept):
                await self._deliver()
            if not self._lost and self._entry.state is EntryState.REFUNDING:
                await self._refund()
        finally:
            renewing.cancel()
        return self._entry

    def abandon(self) -> None:
        """Says that the request that started this work is gone: there is nobody to pass a large answer to."""
        self._client_gone = True
        if self.large.done() and not self.large.cancelled():
            self.large.result()[1].abandon()

    async def _charge(self) -> None:
        try:
            outcome = await self._presented.rail.charge(self._entry, self._presented.payment)
        except Exception as error:  # an unexpected failure says nothing about the money
            logger.exception("charging for challenge %s failed", self._entry.challenge_id)
            outcome = Unclear(type(error).__name__)
        async with self._lock:
            if isinstance(outcome, Settled):
                await self._write(self._entry.charged(outcome.charge))
            elif isinstance(outcome, Refused):
                await self._write(self._entry.refused(outcome.reason))
            else:
                logger.warning(
                    "unclear whether challenge %s was charged: %s", self._entry.challenge_id, outcome.reason
                )
                await self._write(self._entry.left_unclear(outcome.reason, outcome.transaction))

    async def _deliver(self) -> None:
        recorder = await self._run_handler()
        passed_on = recorder.large is not None and await self._pass_on(recorder.large)
        async with self._lock:
            if not self._lost:
                await self._write(self._after(recorder, passed_on))

    def _after(self, recorder: Recorder, passed_on: bool) -> Entry:
        entry, answer = self._entry, recorder.answer
        if passed_on:
            logger.warning("the answer of %s is too large to be kept; delivered once", entry.route)
            return entry.delivered(None)
        if answer is None:
            return entry.undelivered()
        if self._refund_rule(answer.status) and entry.state is EntryState.CHARGED:
            return entry.refunding(answer)
        return entry.delivered(answer)

    async def _run_handler(self) -> Recorder:
        """Runs the handler until its answer is complete, one to retry, too large, or it failed."""
        recorder = Recorder()
        running = asyncio.create_task(self._respond(recorder))
        _background.add(running)
        running.add_done_callback(_background.discard)
        settled = asyncio.create_task(recorder.settled.wait())
        try:
            await asyncio.wait({running, settled}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            raise
        finally:
            settled.cancel()
        if recorder.retry:
            logger.error("paid handler %s answered %s; it runs again", self._entry.route, recorder.status)
            self.retry_after = recorder.retry_after
        return recorder

    async def _respond(self, recorder: Recorder) -> None:
        try:
            await self._call.respond(recorder.send)
        except Exception:
            complete = recorder.answer is not None
            said = " after its answer" if complete else "; the answer is still owed"
            logger.exception("paid handler %s failed%s", self._entry.route, said)
            if recorder.large is not None:
                await recorder.large.break_off()

    async def _pass_on(self, large: LargeAnswer) -> bool:
        """Hands a large answer to the request that waits for it. Returns whether its client took it all."""
        if self._client_gone:
            large.abandon()
        else:
            self.large.set_result((self._entry, large))
        return await large.received()

    async def _refund(self) -> None:
        refund = await give_back(self._presented.rail, self._entry)
        if refund is not None:
            async with self._lock:
                await self._write(self._entry.refunded(refund))

    async def _write(self, entry: Entry) -> None:
        if self._lost:
            return
        if await self._journal.replace(entry):
            self._held = entry
            return
        # The lease expired and another worker took over: its entry counts.
        self._lost = True
        current = await self._journal.load(entry.key)
        if current is not None:
            self._held = current

    async def _renew(self) -> None:
        while not self._lost and not self._entry.finished:
            await asyncio.sleep(self._leases.renew_seconds)
            async with self._lock:
                if self._entry.lease is not None and not self._entry.finished:
                    await self._write(self._entry.renewed(self._leases.new()))
