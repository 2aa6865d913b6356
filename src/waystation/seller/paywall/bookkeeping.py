"""What a periodic job and people do about payments that didn't end by themselves."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from waystation.seller.paywall.entries import Charge, Entry, EntryState, Refund
from waystation.seller.paywall.journal import Journal, every_in_state
from waystation.seller.paywall.rails import Refused, SellerRail, Settled
from waystation.seller.paywall.refunds import give_back

UNCLEAR_AFTER = timedelta(minutes=2)
"""A payment that is being charged for so long is looked up, or shown to people."""


class Bookkeeping:
    """The journal of a paywall, looked through from time to time. It charges nothing."""

    def __init__(self, journal: Journal, rails: Sequence[SellerRail]) -> None:
        self.journal = journal
        self._rails = tuple(rails)

    async def reconcile(self, *, older_than: timedelta = UNCLEAR_AFTER) -> int:
        """Resolves charges whose outcome is unknown, and makes refunds that are due.

        Returns how many turned out to be charged. Run it from time to time.
        """
        found = 0
        for entry in await self.unclear(older_than=older_than):
            rail = self._rail_for(entry)
            outcome = None if rail is None else await rail.find(entry)
            if isinstance(outcome, Settled):
                found += await self.journal.replace(entry.charged(outcome.charge))
            elif isinstance(outcome, Refused):
                await self.journal.replace(entry.refused(outcome.reason))
        for entry in await self.refunds_due():
            refund = await give_back(self._rail_for(entry), entry)
            if refund is not None:
                await self.journal.replace(entry.refunded(refund))
        return found

    async def unclear(self, *, older_than: timedelta = UNCLEAR_AFTER) -> Sequence[Entry]:
        """Returns payments of which nobody knows whether money moved, and that nobody works on."""
        now = datetime.now(UTC)
        entries = await every_in_state(self.journal, EntryState.CLAIMED, created_before=now - older_than)
        return [entry for entry in entries if not entry.held_by_other("", now)]

    async def undelivered(self) -> Sequence[Entry]:
        """Returns payments that were charged but not delivered yet: refund them, or wait."""
        return await every_in_state(self.journal, EntryState.CHARGED, created_before=datetime.now(UTC))

    async def refunds_due(self) -> Sequence[Entry]:
        """Returns payments whose answer gives the money back, and whose money isn't back yet."""
        return await every_in_state(self.journal, EntryState.REFUNDING, created_before=datetime.now(UTC))

    async def note_charged(self, entry: Entry, charge: Charge) -> bool:
        """Writes down that an unclear payment moved money, as a person has found. Its resend is delivered.

        Returns False if the entry has changed since it was listed: list again.
        """
        return await self.journal.replace(entry.charged(charge))

    async def note_refused(self, entry: Entry, reason: str) -> bool:
        """Writes down that an unclear payment moved no money and never will. Its resend is a 402.

        Returns False if the entry has changed since it was listed: list again.
        """
        return await self.journal.replace(entry.refused(reason))

    async def note_refunded(self, entry: Entry, reference: str) -> bool:
        """Writes down that a person has sent the money of a due refund back.

        Returns False if the entry has changed since it was listed: list again.
        """
        refund = Refund(reference=reference, refunded_at=datetime.now(UTC))
        return await self.journal.replace(entry.refunded(refund))

    def _rail_for(self, entry: Entry) -> SellerRail | None:
        for rail in self._rails:
            if (rail.currency, rail.payee) == (entry.price.currency, entry.payee):
                return rail
        return None
