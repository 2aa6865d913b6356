"""The contract of HTTP 402 payments: what is asked for, what came of it, and budgets for many of them.

Amounts are integers of minor units (``Money``).
"""

import hashlib
import json
import operator
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, StrictInt, StringConstraints

from waystation.models.base import Frozen, WorkflowStart
from waystation.models.digests import Digested
from waystation.models.money import MinorUnits, Money
from waystation.models.paid_http import (
    MAX_REQUEST_BODY_BASE64_CHARACTERS,
    MAX_REQUEST_HEADERS,
    REVEAL,
    ClosedCredential,
    HeaderPair,
    HttpAnswer,
    MintCall,
    MintedCredential,
    MoneyMoved,
    Offer,
    PaidHttpRequest,
    ProbeAnswer,
    Rail,
    Receipt,
    RedeemAnswer,
    SealedCredential,
    telling_headers,
)
from waystation.models.times import Instant
from waystation.models.urls import Origin

__all__ = [
    "FINAL_PAID_REQUEST_STATUSES",
    "MAX_ALLOWANCE_SECONDS",
    "MAX_APPROVAL_SECONDS",
    "MAX_RAILS",
    "MAX_REPORTED_AT_ONCE",
    "MAX_REQUEST_BODY_BASE64_CHARACTERS",
    "MAX_REQUEST_HEADERS",
    "REVEAL",
    "AllowanceAnswer",
    "AllowanceLease",
    "AllowanceOpening",
    "AllowancePayment",
    "AllowanceReport",
    "AllowanceStart",
    "AllowanceView",
    "ClosedCredential",
    "HeaderPair",
    "HttpAnswer",
    "LeaseRequest",
    "MintCall",
    "MintedCredential",
    "MoneyMoved",
    "Offer",
    "PaidHttpRequest",
    "PaidRequestStart",
    "PaidRequestStatus",
    "PaidRequestView",
    "PaymentRefusal",
    "ProbeAnswer",
    "Rail",
    "Receipt",
    "RedeemAnswer",
    "ReportedPayment",
    "SealedCredential",
    "telling_headers",
]

MAX_RAILS = 3
MAX_APPROVAL_SECONDS = 7 * 24 * 3600

PaidRequestStatus = Literal[
    "probing",
    "choosing",
    "awaiting_approval",
    "paying",
    "confirming",
    "free",
    "delivered",
    "refused",
    "failed",
    "undelivered",
    "unknown",
]
"""Where a paid request stands; the last six are final.

``free``: answered without payment. ``delivered``: paid and answered. ``refused``: one of our rules, the
mandate or a person ruled it out. ``failed``: the server or the processor failed, and no money moved.
``undelivered``: the money moved but the answer never came. ``unknown``: the answer never came and nobody can
tell whether money moved; it counts as spent.
"""

FINAL_PAID_REQUEST_STATUSES: frozenset[str] = frozenset(
    {"free", "delivered", "refused", "failed", "undelivered", "unknown"}
)


class PaidRequestStart(WorkflowStart, Digested):
    """What starts a PaidRequest workflow, whose workflow id is the paid request's id.

    ``max_price`` also fixes the currency: offers in another one aren't taken, and amounts are never
    converted. ``rails`` are the acceptable ways to pay, preferred ones first. ``first_answer`` holds the
    headers of a 402 answer that the caller already has, which saves asking again.
    """

    NOT_DIGESTED = MappingProxyType({"first_answer": "the server makes another one each time it is asked"})

    request: PaidHttpRequest
    max_price: Money
    mandate_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    agent: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    rails: tuple[Rail, ...] = Field(
        default=(Rail.MPP_STRIPE, Rail.X402_EXACT, Rail.MPP_EVM), min_length=1, max_length=MAX_RAILS
    )
    expected_payee: str | None = None
    """Stripe network id or EVM address; nobody else is paid."""
    payment_method: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,10}_[A-Za-z0-9_]{1,200}$")] | None = (
        None
    )
    """Saved payment method to issue the token from; by default the mandate's first one."""
    first_answer: tuple[HeaderPair, ...] | None = None
    session_id: str | None = None
    turn_id: str | None = None
    approval_timeout_seconds: Annotated[StrictInt, Field(ge=1, le=MAX_APPROVAL_SECONDS)] = 3600

    def earlier_digest(self) -> str:
        """Returns the digest of who pays, from which mandate, for which request, without any limit."""
        facts = [self.mandate_id, self.agent, self.request.digest()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class PaymentRefusal(Frozen):
    """Why the request wasn't paid or answered. ``rule`` is stable; ``message`` says what to do."""

    rule: str
    message: str


class PaidRequestView(Frozen):
    """A paid request at one moment, without any secret."""

    payment_id: str
    status: PaidRequestStatus
    final: bool
    url: str
    method: str
    offer: Offer | None = None
    terms_digest: str | None = None
    """What an approval must name: the digest of price, payee, realm and request."""
    body_sha256: str | None = None
    """SHA-256 of the request's body in base64, as the digest covers it; ``None`` without a body."""
    approval_deadline: datetime | None = None
    """Until when somebody may decide, while that is waited for."""
    approvers: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """Who alone may approve, as the mandate says; of the others, anybody with the role may."""
    approved_by: str | None = None
    credential_fingerprint: str | None = None
    money_moved: MoneyMoved = "no"
    receipt: Receipt | None = None
    answer: HttpAnswer | None = None
    refusal: PaymentRefusal | None = None
    updated_at: datetime
    agent: str | None = None
    mandate_id: str | None = None
    session_id: str | None = None
    turn_id: str | None = None
    start_digest: str | None = None
    """``PaidRequestStart.earlier_digest``, for processes of earlier releases; see the query ``digest``."""


# Allowances

MAX_ALLOWANCE_SECONDS = 24 * 3600


class AllowanceStart(Digested):
    """What starts an Allowance workflow: a budget at one seller, reserved from a mandate as a whole.

    Payments within it need no reservation of their own. What was spent is committed when the allowance is
    settled or ``lifetime_seconds`` have passed; the rest is released.
    """

    mandate_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    agent: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    seller: Origin
    """Web origin in lower case; no other is paid."""
    budget: Money
    max_price: Money
    """The most that one payment may cost."""
    rails: tuple[Rail, ...] = Field(
        default=(Rail.MPP_STRIPE, Rail.X402_EXACT, Rail.MPP_EVM), min_length=1, max_length=MAX_RAILS
    )
    expected_payee: str | None = None
    payment_method: str | None = None
    lifetime_seconds: Annotated[int, Field(ge=1, le=MAX_ALLOWANCE_SECONDS)] = 3600
    session_id: str | None = None
    turn_id: str | None = None

    def earlier_digest(self) -> str:
        """Returns the digest without how long it lasts and for which turn it is."""
        terms = self.model_dump_json(exclude={"lifetime_seconds", "session_id", "turn_id"})
        return hashlib.sha256(terms.encode()).hexdigest()


class AllowanceOpening(Frozen):
    """What a client starts an Allowance workflow with; a run adds its state."""

    start: AllowanceStart


class LeaseRequest(Frozen):
    """Update ``lease``: a process that can make payments itself takes over the allowance.

    ``holder`` names the process's journal, not the process: after a restart it continues its lease.
    """

    holder: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]


class AllowanceLease(Frozen):
    """What a holder may do, and until when. At most one process holds an allowance at a time."""

    number: int
    """The lease's number within the allowance, from 1."""
    may_spend: MinorUnits
    """The limit on spent and under way together, within this lease; grows with each report."""
    lasts_seconds: int
    """Counted from when the lease was asked for."""
    ends_at: Instant
    """By the workflow's clock; credentials are not made to outlive the mandate."""
    payment_method: str | None
    valid_until: Instant
    after_loss: bool = False
    """An earlier holder vanished, and nobody here knows everything it paid for."""
    closing: bool = False
    """No more payments; the holder reports one last time."""


class ReportedPayment(Frozen):
    """One payment that a holder made, after the processor or chain was asked about it."""

    number: int
    """The payment's number within the lease, from 1."""
    key: str
    url: str
    method: str
    rail: Rail
    price: Money
    payee: str
    amount: MinorUnits
    """What counts as spent."""
    money_moved: MoneyMoved
    rule: str | None = None
    """Why there was no answer."""
    answer_sha256: str | None = None
    receipt: str | None = None
    """The server's reference, unsigned."""
    credential: str | None = None
    """The credential's fingerprint."""


MAX_REPORTED_AT_ONCE = 50


class AllowanceReport(Frozen):
    """Update ``report``: what the holder has paid since the last one. Repeats are harmless."""

    lease: int
    payments: Annotated[tuple[ReportedPayment, ...], Field(max_length=MAX_REPORTED_AT_ONCE)] = ()
    final: bool = False
    """Nothing more follows: the lease ends, and what it didn't spend is free again."""


class AllowancePayment(Digested):
    """Update ``pay``: one request within an allowance, whose 402 answer the caller already has.

    The same ``key`` again is the same payment and returns the same answer.
    """

    NOT_DIGESTED = MappingProxyType(
        {
            "key": "it is what stands for the rest",
            "first_answer": "the server makes another one each time it is asked",
        }
    )

    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
    request: PaidHttpRequest
    first_answer: tuple[HeaderPair, ...]
    max_price: Money | None = None
    """Of this payment, in the allowance's currency; the allowance's own limit holds besides."""

    def earlier_digest(self) -> str:
        """Returns the digest of the request alone, without the limit."""
        return self.request.digest()


class AllowanceAnswer(Frozen):
    """What became of one payment within an allowance."""

    money_moved: MoneyMoved
    amount: MinorUnits = 0
    """What was spent (or counts as spent), in minor units."""
    answer: HttpAnswer | None = None
    receipt: Receipt | None = None
    refusal: PaymentRefusal | None = None
    credential_fingerprint: str | None = None
    request_digest: str | None = None
    """Of the request that was paid, where the allowance's workflow paid it."""


class AllowanceView(Frozen):
    """An allowance at one moment."""

    allowance_id: str
    open: bool
    budget: Money
    spent: MinorUnits
    held: MinorUnits
    """Set aside for payments under way."""
    payments: int
    holder: str | None = None
    """The journal of the process that makes the payments itself."""
    refusal: PaymentRefusal | None = None
    agent: str | None = None
    session_id: str | None = None
    start_digest: str | None = None
    """``AllowanceStart.earlier_digest``, for processes of earlier releases; see the query ``digest``."""
