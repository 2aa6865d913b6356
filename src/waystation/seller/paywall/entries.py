"""The life of one payment at a paywall, as pure transitions on an immutable entry.

``claimed`` (before any charge) → ``charged`` or ``refused``; ``charged`` →
``delivered``. An entry is worked on under a *lease*: one worker at a time, and
if it dies, another one after the lease expires. Time is passed as an argument.
"""

from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field

from waystation.models.base import Frozen, replaced
from waystation.models.money import Money
from waystation.models.payments import HeaderPair, Rail


class EntryState(StrEnum):
    """Where a payment stands."""

    CLAIMED = "claimed"
    """Written down; the charge may or may not have happened yet."""
    CHARGED = "charged"
    """The money moved; the answer is still owed."""
    REFUSED = "refused"
    """The processor refused for certain; no money moved."""
    DELIVERED = "delivered"
    """The money moved and the answer is recorded."""
    NAMED = "named"
    """Not a payment but a payer's name for one. The name belongs to this proof alone."""


class Charge(Frozen):
    """A charge that certainly happened."""

    reference: str
    """PaymentIntent id or transaction hash."""
    network: str | None = None
    payer: str | None = None
    charged_at: AwareDatetime


class StoredAnswer(Frozen):
    """The response that was paid for, kept so that it can be delivered again."""

    status: int
    headers: tuple[HeaderPair, ...]
    body_base64: str


class Lease(Frozen):
    """Who works on an entry, and until when nobody else may."""

    owner: str
    until: AwareDatetime


class Entry(Frozen):
    """Everything a paywall knows about one payment. Holds no token and no signature."""

    key: str
    """The challenge id; for EVM rails the identity of the signed authorization."""
    challenge_id: str
    fingerprint: str
    scope: str
    """Digest of realm, method, path, query and body that the payment is for."""
    route: str
    """``GET /reports/7``: for people who read the journal."""
    rail: Rail
    price: Money
    payee: str
    created_at: AwareDatetime
    state: EntryState = EntryState.CLAIMED
    lease: Lease | None = None
    attempts: int = 0
    unclear: str | None = None
    """Why it is unknown whether the last attempt to charge moved money."""
    charge: Charge | None = None
    refusal: str | None = None
    answer: StoredAnswer | None = None
    version: int = Field(default=0, ge=0)

    def held_by_other(self, owner: str, now: AwareDatetime) -> bool:
        """Returns whether someone else's lease still runs."""
        return self.lease is not None and self.lease.owner != owner and self.lease.until > now

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in (EntryState.REFUSED, EntryState.DELIVERED)

    def named(self, identifier: str, payer: str) -> Self:
        """Returns the entry that keeps a payer's identifier for this payment. Payers share no names."""
        return replaced(self, key=f"name:{payer}:{identifier}", state=EntryState.NAMED, lease=None)

    def taken(self, lease: Lease) -> Self:
        """Returns the entry leased to a worker, which will try once more."""
        return self._next(lease=lease, attempts=self.attempts + 1)

    def renewed(self, lease: Lease) -> Self:
        """Returns the entry with its lease renewed."""
        return self._next(lease=lease)

    def charged(self, charge: Charge) -> Self:
        """Returns the entry after a certain charge."""
        self._expect(EntryState.CLAIMED)
        return self._next(state=EntryState.CHARGED, charge=charge, unclear=None)

    def refused(self, reason: str) -> Self:
        """Returns the entry after a certain refusal: no money moved, and none will."""
        self._expect(EntryState.CLAIMED)
        return self._next(state=EntryState.REFUSED, refusal=reason, unclear=None, lease=None)

    def left_unclear(self, reason: str) -> Self:
        """Returns the entry after an attempt with an unknown outcome. It may be retried with the same key."""
        self._expect(EntryState.CLAIMED)
        return self._next(unclear=reason, lease=None)

    def undelivered(self) -> Self:
        """Returns the entry after the handler failed: paid, still owed, and may be retried."""
        self._expect(EntryState.CHARGED)
        return self._next(lease=None)

    def delivered(self, answer: StoredAnswer) -> Self:
        """Returns the entry with the response recorded."""
        self._expect(EntryState.CHARGED)
        return self._next(state=EntryState.DELIVERED, answer=answer, lease=None)

    def _expect(self, state: EntryState) -> None:
        if self.state is not state:
            raise ValueError(f"entry is {self.state}, not {state}")

    def _next(self, **changes: object) -> Self:
        return replaced(self, **changes, version=self.version + 1)
