"""One worker's hold on one payment: charge if need be, run the handler, record the answer."""

import asyncio
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import HTTPException
from fastapi.responses import JSONResponse

from waystation.models.money import Money
from waystation.protocols.http402 import (
    RedeemedChallenge,
)
from waystation.seller.paywall.answers import recorded
from waystation.seller.paywall.endpoints import Handler
from waystation.seller.paywall.entries import Entry, EntryState, Lease, StoredAnswer
from waystation.seller.paywall.journal import Journal
from waystation.seller.paywall.rails import (
    PaymentPayload,
    Refused,
    SellerRail,
    Settled,
    Unclear,
)


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential that was proven to fit this request, with the rail that can charge it."""

    challenge: RedeemedChallenge
    rail: SellerRail
    price: Money
    payment: PaymentPayload
    key: str
    fingerprint: str


class Leases:
    """The leases that one process takes on entries."""

    def __init__(self, length: timedelta) -> None:
        self.owner = uuid.uuid4().hex
        self.renew_seconds = length.total_seconds() / 3
        self._length = length

    def new(self) -> Lease:
        """Returns a lease for this process from now on."""
        return Lease(owner=self.owner, until=datetime.now(UTC) + self._length)


logger = logging.getLogger(__name__)


class Work:
    """One worker's hold on one payment: charge if need be, run the handler, record the answer."""

    def __init__(
        self, journal: Journal, leases: Leases, entry: Entry, presented: Presented, handler: Handler
    ) -> None:
        self._journal = journal
        self._leases = leases
        self._entry = entry
        self._presented = presented
        self._handler = handler
        self._lock = asyncio.Lock()
        self._lost = False

    async def run(self) -> Entry:
        renewing = asyncio.create_task(self._renew())
        try:
            if self._entry.state is EntryState.CLAIMED:
                await self._charge()
            if self._entry.state is EntryState.CHARGED and not self._lost:
                await self._deliver()
        finally:
            renewing.cancel()
        return self._entry

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
                await self._write(self._entry.left_unclear(outcome.reason))

    async def _deliver(self) -> None:
        answer = await self._run_handler()
        async with self._lock:
            if answer is None:
                await self._write(self._entry.undelivered())
            else:
                await self._write(self._entry.delivered(answer))

    async def _run_handler(self) -> StoredAnswer | None:
        """Returns the handler's response, or None if it failed and must run again for a resend."""
        try:
            response = await self._handler()
        except HTTPException as error:
            response = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        except Exception:
            logger.exception("paid handler %s failed; the answer is still owed", self._entry.route)
            return None
        if response.status_code >= 500:
            logger.error("paid handler %s answered %d", self._entry.route, response.status_code)
            return None
        try:
            return await recorded(response)
        except ValueError:
            logger.exception("the answer of %s can't be kept", self._entry.route)
            return None

    async def _write(self, entry: Entry) -> None:
        if self._lost:
            return
        if await self._journal.replace(entry):
            self._entry = entry
            return
        # The lease expired and another worker took over: its entry counts.
        self._lost = True
        current = await self._journal.load(entry.key)
        if current is not None:
            self._entry = current

    async def _renew(self) -> None:
        while not self._lost and not self._entry.finished:
            await asyncio.sleep(self._leases.renew_seconds)
            async with self._lock:
                if self._entry.lease is not None and not self._entry.finished:
                    await self._write(self._entry.renewed(self._leases.new()))
