"""What a paywall's rails have in common: asking for a payment, reading it, charging it, looking it up.

A charge has one of three outcomes: it certainly happened, it was certainly refused, or nobody knows.
"Nobody knows" is never treated as a refusal.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from waystation.models.base import JsonObject
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.seller.paywall.entries import Charge, Entry, Refund, SignedTransfer


@dataclass(frozen=True, slots=True)
class Settled:
    """The money moved."""

    charge: Charge


@dataclass(frozen=True, slots=True)
class Refused:
    """No money moved, and none will for this credential."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """Nobody knows whether money moved; ask again with the same key."""

    reason: str
    transaction: str | None = None
    """What a facilitator sent to the chain, where it says so."""


Outcome = Settled | Refused | Unclear


class BadPayment(ValueError):
    """The payload can't pay these terms. Checked before anything is charged."""


class PaymentPayload(Protocol):
    """A credential's payload, read and checked against its terms."""

    @property
    def journal_key(self) -> str | None:
        """What the journal calls this payment; None for the challenge id."""
        ...

    @property
    def payer(self) -> str | None:
        """Who signed it, where that is known."""
        ...

    @property
    def transfer(self) -> SignedTransfer | None:
        """What a chain can be asked for, where one is involved."""
        ...

    def check_valid(self, now: datetime) -> None:
        """Checks that it may be charged now, for the first time.

        Raises:
            BadPayment: The payload can't pay these terms.
        """
        ...


class SellerRail(Protocol):
    """One way to be paid."""

    currency: str
    """The asset it charges, as in ``Money``."""
    payee: str
    mpp_method: str

    def mpp_request(self, price: Money) -> JsonObject:
        """Returns the MPP ``request`` object that asks for a price."""
        ...

    def read_mpp(self, challenge_id: str, realm: str, payload: JsonObject, price: Money) -> PaymentPayload:
        """Checks an MPP payload.

        Raises:
            BadPayment: The payload can't pay these terms.
        """
        ...

    async def charge(self, entry: Entry, payment: PaymentPayload) -> Outcome:
        """Charges for an entry, once, no matter how often it is called."""
        ...

    async def find(self, entry: Entry) -> Outcome:
        """Looks for the charge of an entry without making one.

        ``Refused`` says that there will never be one; "none so far" is ``Unclear``.
        """
        ...


@runtime_checkable
class RefundingRail(Protocol):
    """A rail that can give money back."""

    async def refund(self, entry: Entry) -> Refund:
        """Gives the whole charge of an entry back, once, no matter how often it is called.

        Raises:
            Exception: It isn't certain that the money went back.
        """
        ...


@runtime_checkable
class X402Rail(Protocol):
    """A rail that x402 clients can pay as well."""

    def x402_terms(self, price: Money) -> JsonObject:
        """Returns the x402 payment requirements that ask for a price."""
        ...

    def read_x402(self, payload: JsonObject, price: Money) -> PaymentPayload:
        """Checks an x402 payload.

        Raises:
            BadPayment: The payload can't pay these terms.
        """
        ...


def rail_of(method: str) -> Rail:
    """Returns the rail's name for a method of ``RedeemedChallenge``."""
    return {"stripe": Rail.MPP_STRIPE, "evm": Rail.MPP_EVM, "x402": Rail.X402_EXACT}[method]
