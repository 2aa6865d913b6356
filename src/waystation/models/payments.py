"""The contract of HTTP 402 payments: offers, receipts, requests and their outcomes.

Amounts are integers of minor units (``Money``).
Nothing here holds a secret except ``MintedCredential``, which stays in the process that made it:
histories have a ``SealedCredential``.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    FieldSerializationInfo,
    JsonValue,
    SecretStr,
    StringConstraints,
    field_serializer,
    model_validator,
)

from waystation.models.base import Frozen, WorkflowStart
from waystation.models.digests import Digested
from waystation.models.money import MinorUnits, Money
from waystation.models.proofs import FORGOTTEN, Sealed
from waystation.models.times import Instant
from waystation.models.urls import Origin, Url

MAX_REQUEST_HEADERS = 64
MAX_REQUEST_BODY_BASE64_CHARACTERS = 1_400_000
"""About 1 MiB of request body, which is part of the workflow's own payload."""


REVEAL: Final = "reveal the secrets of a credential"
"""The context of serialization in which a credential shows its secrets."""


class Rail(StrEnum):
    """A way to pay: the wire protocol and the payment method."""

    MPP_STRIPE = "mpp-stripe"
    """MPP method ``stripe``, intent ``charge``: a shared payment token."""
    MPP_EVM = "mpp-evm"
    """MPP method ``evm``, intent ``charge``: an EIP-3009 authorization."""
    X402_EXACT = "x402-exact"
    """x402 version 2, scheme ``exact`` on an EVM network."""

    @property
    def protocol(self) -> Literal["mpp", "x402"]:
        """The rail's protocol as mandates name it."""
        return "x402" if self is Rail.X402_EXACT else "mpp"


class Offer(Frozen):
    """One way to pay that a 402 answer offers, read strictly.

    ``wire`` is the header value the offer came in, kept untouched because a
    credential must echo it byte for byte; ``wire_index`` picks the entry of
    ``accepts`` in an x402 header (0 for MPP).
    """

    rail: Rail
    challenge_id: str
    realm: str
    price: Money
    payee: str
    """Stripe network id, or the EIP-55 address that receives the tokens."""
    expires_at: Instant | None
    wire: str
    wire_index: int = 0

    def same_terms(self, other: "Offer") -> bool:
        """Returns whether both ask the same price for the same payee in the same realm."""
        return (self.rail, self.realm, self.price, self.payee) == (
            other.rail,
            other.realm,
            other.price,
            other.payee,
        )


class Receipt(Frozen):
    """What the server says about the payment. Unsigned: it proves nothing to anyone else."""

    rail: Rail
    status: str
    reference: str
    """PaymentIntent id or transaction hash, as claimed by the server."""
    timestamp: Instant | None = None
    signed: Literal[False] = False
    matches_payment: bool | None = None
    """True or False once compared with the processor or chain; None while unknown."""


class MintedCredential(Frozen):
    """A payment credential as the process that sends it has it. Never logged.

    Its secrets are masked wherever it is serialized, in a payload too, but in the context ``REVEAL``, for
    what is sealed before it is kept.
    """

    header: str
    """Name of the request header that carries it."""
    value: SecretStr
    fingerprint: str
    """How logs and the audit trail name the credential; see ``waystation.redaction``."""
    token_id: SecretStr | None = None
    """The issued shared payment token, to read and revoke it."""
    payer: str | None = None
    """EVM address that signed."""
    nonce: str | None = None
    """EIP-3009 nonce: at most one transfer can ever settle for it."""
    valid_before: datetime | None = None

    @field_serializer("value", "token_id")
    def _mask(self, value: SecretStr | None, info: FieldSerializationInfo) -> str | None:
        if value is None:
            return None
        return value.get_secret_value() if info.context == REVEAL else str(value)


class SealedCredential(Frozen):
    """A payment credential in a workflow's history, recorded before it is ever sent.

    What could be spent by whoever reads it is sealed for workers; the rest names it and tells when it ends.
    """

    sealed: Sealed = Field(repr=False)
    """A ``MintedCredential`` as JSON."""
    fingerprint: str
    is_token: bool = False
    """Whether it is a shared payment token, which may be charged even unsent."""
    valid_before: datetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _forgets_what_is_in_clear(cls, given: object) -> object:
        """Reads histories of earlier releases, without the credential that they give away."""
        if isinstance(given, dict) and "value" in given:
            return {
                "sealed": FORGOTTEN,
                "fingerprint": given.get("fingerprint"),
                "is_token": given.get("token_id") is not None,
                "valid_before": given.get("valid_before"),
            }
        return given


HeaderPair = tuple[str, str]


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")


def _check_header(pair: HeaderPair) -> HeaderPair:
    name, value = pair
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("a header's name has 1 to 256 letters, digits and characters of !#$%&'*+-.^_`|~")
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError(f"the value of {name} has to be printable ASCII with no blanks around it")
    return pair


def _check_base64(text: str) -> str:
    try:
        base64.b64decode("".join(text.splitlines()), validate=True)  # "base64 file" writes lines
    except binascii.Error:
        raise ValueError("the body has to be base64") from None
    return text


class PaidHttpRequest(Digested):
    """The HTTP request to make, as the caller wants it made. What can't be sent is refused here."""

    url: Url
    method: Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")] = "GET"
    headers: tuple[Annotated[HeaderPair, AfterValidator(_check_header)], ...] = Field(
        default=(), max_length=MAX_REQUEST_HEADERS
    )
    body_base64: Annotated[
        str,
        StringConstraints(max_length=MAX_REQUEST_BODY_BASE64_CHARACTERS),
        AfterValidator(_check_base64),
    ] = ""

    def covered(self) -> JsonValue:
        """Returns all of the request that a server may answer differently to."""
        headers: list[JsonValue] = [list(pair) for pair in telling_headers(self.headers)]
        return [self.method, self.url, headers, self.body_base64]


_TRACING_HEADERS = frozenset({"traceparent", "tracestate", "baggage", "x-request-id", "user-agent"})
"""They only say where a request came from, and differ each time it is made."""


def telling_headers(headers: Iterable[HeaderPair]) -> list[HeaderPair]:
    """Returns the headers that make a request another one, their names in lower case, in a fixed order."""
    return sorted((name.lower(), value) for name, value in headers if name.lower() not in _TRACING_HEADERS)


class HttpAnswer(Frozen):
    """An HTTP answer, with its body inline or (if large) stored outside the history."""

    status: int
    headers: tuple[HeaderPair, ...]
    body_base64: str = ""
    body_ref: str | None = None
    """Where a large body is in the answer store; ``body_base64`` is then empty."""
    body_bytes: int
    body_sha256: str


MoneyMoved = Literal["no", "yes", "unknown"]


class ProbeAnswer(Frozen):
    """A server's answer to the bare request: the resource itself, or its price."""

    request: PaidHttpRequest
    """As finally answered: redirects within the origin are followed as long as nothing is paid."""
    answer: HttpAnswer | None = None
    """Anything but a 402."""
    offers: tuple[Offer, ...] = ()
    """What this side could pay, in the server's order."""
    unusable: tuple[str, ...] = ()
    """Why other offers are not taken."""


class RedeemAnswer(Frozen):
    """The answer to a credential. ``refused`` is only what the server says: it may have charged."""

    kind: Literal["answered", "refused", "redirected", "too_large"]
    answer: HttpAnswer | None = None
    receipt: Receipt | None = None
    problem: str | None = None
    """Last part of the problem type of a refusal, such as ``payment-expired``; x402's ``errorReason``."""


class ClosedCredential(Frozen):
    """The truth about a credential, from the processor or the chain and not from the server."""

    money_moved: MoneyMoved
    amount: MinorUnits | None = None
    """What was charged, in minor units, where the processor says so."""
    source: Literal["processor", "chain", "nobody"]


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
    approval_timeout_seconds: Annotated[int, Field(ge=1, le=MAX_APPROVAL_SECONDS)] = 3600

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
    approved_by: str | None = None
    credential_fingerprint: str | None = None
    money_moved: MoneyMoved = "no"
    receipt: Receipt | None = None
    answer: HttpAnswer | None = None
    refusal: PaymentRefusal | None = None
    updated_at: datetime
    agent: str | None = None
    session_id: str | None = None
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


class MintCall(Frozen):
    """One credential for one offer. Everything that shapes it is given, so a repeat makes the same one."""

    offer: Offer
    payment_id: str
    key: str
    at: datetime
    expires_at: datetime
    payment_method: str | None = None
