"""Mandates: what a person allows one agent to spend, where, and until when.

All amounts are integers of minor units of the mandate's one currency.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from waystation.models.base import Frozen
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS, MinorUnits, Money
from waystation.models.times import Instant
from waystation.models.urls import ORIGIN_PATTERN, check_origin

MAX_SELLERS: Final = 200
MAX_CONSTRAINTS: Final = 20
MAX_PAYMENT_METHODS: Final = 5
MAX_HOLD_SECONDS: Final = 90 * 24 * 3600
MAX_KEY_LENGTH_CHARS: Final = 255
ANY_SELLER: Final = "*"
GRANT_NOT_PROVEN: Final = "the grant is not proven"
"""How the reason begins for which an unproven mandate is revoked."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
PaymentMethodId = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,10}_[A-Za-z0-9_]{1,200}$")]
"""Names a method saved at the processor; never a card's number."""
Key = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH_CHARS)]
PositiveMinorUnits = Annotated[StrictInt, Field(gt=0, le=MAX_AMOUNT_MINOR_UNITS)]


def _check_seller(text: str) -> str:
    return text if text == ANY_SELLER else check_origin(text)


Seller = Annotated[
    str,
    AfterValidator(_check_seller),
    WithJsonSchema({"type": "string", "pattern": rf"^\*$|{ORIGIN_PATTERN}"}),
]
"""A seller by its web origin in lower case (``https://shop.example``), or ``*`` for any seller."""

MandateStatus = Literal["pending", "active", "revoked", "expired"]
ReservationState = Literal["held", "committed", "released"]
PaymentProtocol = Literal["acp", "mpp", "x402"]


class MaxPayments(Frozen):
    """At most ``count`` payments, counting those under way."""

    type: Literal["max_payments"] = "max_payments"
    count: Annotated[StrictInt, Field(ge=1, le=1_000_000)]


class AllowedItems(Frozen):
    """Only these item ids may be bought."""

    type: Literal["allowed_items"] = "allowed_items"
    item_ids: tuple[Name, ...] = Field(min_length=1, max_length=1000)


class AllowedProtocols(Frozen):
    """Only these ways of paying may be used."""

    type: Literal["allowed_protocols"] = "allowed_protocols"
    protocols: tuple[PaymentProtocol, ...] = Field(min_length=1)


class ShipToCountries(Frozen):
    """Goods may be sent to these countries only (ISO 3166-1 alpha-2), and the seller's cart must say so.

    What is digital or picked up is not affected.
    """

    type: Literal["ship_to_countries"] = "ship_to_countries"
    countries: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")], ...] = Field(min_length=1)


Constraint = Annotated[
    MaxPayments | AllowedItems | AllowedProtocols | ShipToCountries, Field(discriminator="type")
]
"""A further limit. One of an unknown ``type`` is refused when the mandate is made, never ignored."""


class MandateTerms(Frozen):
    """What the person grants.

    A payment of more than ``approval_threshold`` needs a person's approval of the exact
    cart; 0 (the default) means that every payment does. ``approvers`` names who may
    approve; empty means anyone whom the API lets approve, but never the agent itself.
    ``payment_methods`` are the processor's ids of saved methods, tried in order; card
    numbers are never accepted.
    """

    owner: Name
    agent: Name
    cap: Money
    per_payment_cap: PositiveMinorUnits | None = None
    approval_threshold: MinorUnits = 0
    valid_from: Instant | None = None
    valid_until: Instant
    sellers: tuple[Seller, ...] = Field(min_length=1, max_length=MAX_SELLERS)
    payment_methods: tuple[PaymentMethodId, ...] = Field(default=(), max_length=MAX_PAYMENT_METHODS)
    approvers: tuple[Name, ...] = Field(default=(), max_length=50)
    constraints: tuple[Constraint, ...] = Field(default=(), max_length=MAX_CONSTRAINTS)
    refunds_give_room: StrictBool = True
    """Whether what a seller says it refunded may be spent again. Nobody but the seller vouches for it."""

    @field_validator("cap")
    @classmethod
    def _cap_is_positive(cls, cap: Money) -> Money:
        if cap.amount == 0:
            raise ValueError("a cap of 0 allows nothing; give the total that may be spent, in minor units")
        return cap

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.valid_from is not None and self.valid_from >= self.valid_until:
            raise ValueError("valid_until must be later than valid_from")
        if self.per_payment_cap is not None and self.per_payment_cap > self.cap.amount:
            raise ValueError("per_payment_cap is larger than the cap; lower it or raise the cap")
        if self.agent in self.approvers:
            raise ValueError("the agent cannot be one of its own approvers; name people")
        return self

    @property
    def allows_any_seller(self) -> bool:
        """Whether any seller at all may be paid."""
        return ANY_SELLER in self.sellers


class HeldReservation(Frozen):
    """A reservation as its holder remembers it: what the mandate holds for it, or has committed."""

    key: str
    amount: Money
    digest: str | None = None
    """Of the cart that it was made for; another cart needs another reservation."""


class ReserveRequest(Frozen):
    """Sets an amount aside for one payment. The same ``key`` again returns the same reservation.

    ``holder`` is the workflow that will commit or release it: while that runs, the hold is kept past
    ``hold_seconds``, so that a payment in flight doesn't lose its room.
    """

    key: Key
    amount: Money
    seller: Name
    agent: Name
    protocol: PaymentProtocol
    hold_seconds: Annotated[StrictInt, Field(ge=1, le=MAX_HOLD_SECONDS)]
    holder: Name | None = None
    item_ids: tuple[str, ...] = ()
    ship_to_country: str | None = None
    is_sent: bool = False
    """Something is (or may be) sent to an address, which ``ship_to_country`` may not know."""
    many_payments: bool = False
    """The amount is a budget for any number of payments (an allowance)."""
    other_protocols: tuple[PaymentProtocol, ...] = ()
    """Further ways in which the amount may be paid; each must be allowed."""


class Reservation(Frozen):
    """One reservation as the mandate keeps it."""

    key: Key
    amount: MinorUnits
    seller: Name
    state: ReservationState
    spent: MinorUnits = 0
    """What was paid, before refunds."""
    refunded: MinorUnits = 0
    holder: Name | None = None
    held_until: datetime
    settled_at: datetime | None = None


class ReserveAnswer(Frozen):
    """The reservation, and what the mandate says about paying it."""

    reservation: Reservation
    approval_required: bool
    approvers: tuple[str, ...] = ()
    owner: str
    payment_methods: tuple[str, ...] = ()
    valid_until: datetime


class CommitRequest(Frozen):
    """The payment was made: ``amount`` (minor units; by default all of it) is spent, the rest released."""

    key: Key
    amount: MinorUnits | None = None


class RefundRequest(Frozen):
    """``amount`` (minor units) of a payment has come back so far, all refunds together."""

    key: Key
    amount: PositiveMinorUnits


class ReleaseRequest(Frozen):
    """The payment was not made and will not be: the room is free again."""

    key: Key
    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class RevokeRequest(Frozen):
    """The person revokes the mandate. Payments already under way are told."""

    by: Name
    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class MandateView(Frozen):
    """A mandate and its balance at one moment."""

    mandate_id: str
    status: MandateStatus
    terms: MandateTerms
    spent: Money
    """Paid and not refunded."""
    reserved: Money
    left: Money
    refunded: Money
    """What was refunded. It counts as left to spend, unless the terms exclude it."""
    payments: int
    reservations: tuple[Reservation, ...] = ()
    revoked_by: str | None = None
    revoked_because: str | None = None
