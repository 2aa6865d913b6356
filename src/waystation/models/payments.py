"""The contract of HTTP 402 payments: offers, receipts, requests and their outcomes.

Amounts are integers of minor units (:class:`~waystation.models.money.Money`).
Nothing here holds a secret except :class:`MintedCredential`, which exists only
inside encrypted workflow payloads.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, SecretStr, StringConstraints, field_serializer

from waystation.models.base import Frozen
from waystation.models.money import Money

MAX_URL_CHARACTERS = 8_192
MAX_REQUEST_HEADERS = 64
MAX_REQUEST_BODY_BASE64_CHARACTERS = 1_400_000
"""About 1 MiB of request body; it travels inside the workflow's own payload."""


class Rail(StrEnum):
    """A way to pay: the wire protocol and the payment method."""

    MPP_STRIPE = "mpp-stripe"
    """MPP method ``stripe``, intent ``charge``: a shared payment token."""
    MPP_EVM = "mpp-evm"
    """MPP method ``evm``, intent ``charge``: an EIP-3009 authorization."""
    X402_EXACT = "x402-exact"
    """x402 version 2, scheme ``exact`` on an EVM network."""


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
    expires_at: AwareDatetime | None
    wire: str
    wire_index: int = 0

    def same_terms(self, other: "Offer") -> bool:
        """Whether both ask the same price for the same payee in the same realm."""
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
    timestamp: AwareDatetime | None = None
    signed: Literal[False] = False
    matches_payment: bool | None = None
    """True or False once compared with the processor or chain; None while unknown."""


class MintedCredential(Frozen):
    """A payment credential, written down before it is ever sent.

    Never logged; the workflow's payload codec encrypts it at rest.
    """

    header: str
    """Name of the request header that carries it."""
    value: SecretStr
    fingerprint: str
    """SHA-256 of the value: how logs and the audit trail name the credential."""
    token_id: str | None = None
    """Id of the issued shared payment token, to read and revoke it."""
    payer: str | None = None
    """EVM address that signed."""
    nonce: str | None = None
    """EIP-3009 nonce: at most one transfer can ever settle for it."""
    valid_before: datetime | None = None

    @field_serializer("value")
    def _reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


Url = Annotated[str, StringConstraints(pattern=r"^https?://", max_length=MAX_URL_CHARACTERS)]
HeaderPair = tuple[str, str]


class PaidHttpRequest(Frozen):
    """The HTTP request to make, as the caller wants it made."""

    url: Url
    method: Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")] = "GET"
    headers: tuple[HeaderPair, ...] = Field(default=(), max_length=MAX_REQUEST_HEADERS)
    body_base64: Annotated[str, StringConstraints(max_length=MAX_REQUEST_BODY_BASE64_CHARACTERS)] = ""


class HttpAnswer(Frozen):
    """An HTTP answer, with its body inline or (when large) stored beside the history."""

    status: int
    headers: tuple[HeaderPair, ...]
    body_base64: str = ""
    body_ref: str | None = None
    """Where a large body lies in the answer store; ``body_base64`` is empty then."""
    body_bytes: int
    body_sha256: str
