"""HTTP 402 between agent, server and processor: offers, requests and their answers, credentials.

Users import them from ``waystation.models.payments``. Nothing here holds a secret except
``MintedCredential``, which stays in the process that made it: histories have a ``SealedCredential``.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
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

from waystation.models.base import Frozen
from waystation.models.digests import Digested
from waystation.models.money import MinorUnits, Money
from waystation.models.proofs import FORGOTTEN, Sealed
from waystation.models.times import Instant
from waystation.models.urls import Url

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


class MintCall(Frozen):
    """One credential for one offer. Everything that shapes it is given, so a repeat makes the same one."""

    offer: Offer
    payment_id: str
    key: str
    at: datetime
    expires_at: datetime
    payment_method: str | None = None
