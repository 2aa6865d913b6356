"""The life of one payment at a paywall, as pure transitions on an immutable entry.

``claimed`` (before any charge) → ``charged`` or ``refused``; ``charged`` →
``delivered``, by way of ``refunding`` where an answer gives the money back. An
entry is worked on under a *lease*: one worker at a time, and if it dies, another
one after the lease expires. Time is passed as an argument.
"""

from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, Field, model_validator

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
    REFUNDING = "refunding"
    """The answer is recorded, and the money has to go back."""
    DELIVERED = "delivered"
    """The money moved and the answer is recorded, or was too large for that."""
    NAMED = "named"
    """Not a payment but a payer's name for one. The name belongs to this proof alone."""


class Charge(Frozen):
    """A charge that certainly happened."""

    reference: str
    """PaymentIntent id or transaction hash."""
    network: str | None = None
    payer: str | None = None
    charged_at: AwareDatetime


class Refund(Frozen):
    """A charge that was given back."""

    reference: str
    refunded_at: AwareDatetime


class SignedTransfer(Frozen):
    """Which EIP-3009 authorization pays: what a chain is asked for. Not the signature."""

    payer: str
    nonce: str
    valid_before: int
    """Unix seconds: from then on the token contract refuses it."""


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
    headers: str | None = None
    """Digest of the other headers of the request that was first sent with the credential."""
    route: str
    """``GET /reports/7``: for people who read the journal."""
    rail: Rail
    price: Money
    payee: str
    created_at: AwareDatetime
    state: EntryState = EntryState.CLAIMED
    lease: Lease | None = None
    attempts: int = Field(default=0, ge=0)
    transfer: SignedTransfer | None = None
    unclear: str | None = None
    """Why it is unknown whether the last attempt to charge moved money."""
    transaction: str | None = None
    """The transaction that a facilitator named without saying that it succeeded."""
    charge: Charge | None = None
    refusal: str | None = None
    answer: StoredAnswer | None = None
    """None for an answer that was delivered but is too large to keep."""
    refund: Refund | None = None
    names: str | None = None
    """The key of the payment that a name stands for."""
    version: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Checks what must hold between the fields; a failure is a bug of ours or a damaged journal."""
        charged = self.state in _CHARGED_STATES
        _demand((self.charge is not None) is charged, "a charge belongs to the states after it")
        _demand((self.refusal is not None) is (self.state is EntryState.REFUSED), "a refusal has a reason")
        _demand(
            self.answer is None or self.state in (EntryState.REFUNDING, EntryState.DELIVERED),
            "an answer is recorded when it is delivered",
        )
        _demand(
            self.state is not EntryState.REFUNDING or self.answer is not None,
            "what is refunded has been answered",
        )
        _demand(self.refund is None or self.state is EntryState.DELIVERED, "a refund is the end")
        _demand(
            self.unclear is None or self.state is EntryState.CLAIMED, "only a claimed charge can be unclear"
        )
        x402 = self.rail is Rail.X402_EXACT and self.charge is not None
        _demand(not x402 or (self.charge and self.charge.network) is not None, "x402 names its network")
        _demand(self.names is None or self.state is EntryState.NAMED, "only a name names a payment")
        _demand(self.price.amount > 0, "nothing is charged for nothing")
        return self

    def held_by_other(self, owner: str, now: AwareDatetime) -> bool:
        """Returns whether someone else's lease still runs."""
        return self.lease is not None and self.lease.owner != owner and self.lease.until > now

    @property
    def finished(self) -> bool:
        """Whether the client's part is over: refused, or answered with something that was recorded."""
        return self.state is EntryState.REFUSED or self.answer is not None

    @property
    def unkept(self) -> bool:
        """Whether the answer was delivered but not recorded."""
        return self.state is EntryState.DELIVERED and self.answer is None

    def named(self, name: str) -> Self:
        """Returns the entry that keeps a payer's name for this payment."""
        return replaced(
            self, key=name, names=self.key, state=EntryState.NAMED, lease=None, attempts=0, version=0
        )

    def renamed(self, payment: Self) -> Self:
        """Returns the name, standing for another payment from now on."""
        self._expect(EntryState.NAMED)
        return replaced(payment.named(self.key), version=self.version + 1)

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

    def left_unclear(self, reason: str, transaction: str | None = None) -> Self:
        """Returns the entry after an attempt with an unknown outcome. It may be retried with the same key."""
        self._expect(EntryState.CLAIMED)
        known = self.transaction if transaction is None else transaction
        return self._next(unclear=reason, transaction=known, lease=None)

    def undelivered(self) -> Self:
        """Returns the entry after the handler failed: paid, still owed, and may be retried."""
        if not self.unkept:
            self._expect(EntryState.CHARGED)
        return self._next(lease=None)

    def delivered(self, answer: StoredAnswer | None) -> Self:
        """Returns the entry with the response recorded; None for one that is too large."""
        if not self.unkept:
            self._expect(EntryState.CHARGED)
        return self._next(state=EntryState.DELIVERED, answer=answer, lease=None)

    def refunding(self, answer: StoredAnswer) -> Self:
        """Returns the entry with the response recorded, and a refund due."""
        self._expect(EntryState.CHARGED)
        return self._next(state=EntryState.REFUNDING, answer=answer, lease=None)

    def refunded(self, refund: Refund) -> Self:
        """Returns the entry after the money went back."""
        self._expect(EntryState.REFUNDING)
        return self._next(state=EntryState.DELIVERED, refund=refund)

    def _expect(self, state: EntryState) -> None:
        if self.state is not state:
            raise ValueError(f"entry is {self.state}, not {state}")

    def _next(self, **changes: object) -> Self:
        after = replaced(self, **changes, version=self.version + 1)
        assert_follows(self, after)
        return after


_CHARGED_STATES = (EntryState.CHARGED, EntryState.REFUNDING, EntryState.DELIVERED)


def _demand(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def assert_follows(before: Entry, after: Entry) -> None:
    """Asserts what must hold between two versions of an entry; a failure is a bug of ours."""
    assert after.version == before.version + 1, "every change has its own version"
    for field in ("key", "challenge_id", "fingerprint", "scope", "rail", "price", "payee", "created_at"):
        assert getattr(after, field) == getattr(before, field), f"{field} of a payment never changes"
    assert after.attempts >= before.attempts, "attempts are never forgotten"
    assert before.charge is None or after.charge == before.charge, "a charge that happened stays"
    assert before.answer is None or after.answer == before.answer, "a recorded answer stays"
    assert before.refund is None or after.refund == before.refund, "a refund that happened stays"
    assert before.state is not EntryState.REFUSED, "what was refused stays refused"
