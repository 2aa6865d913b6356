"""How a paywall gets its money: Stripe shared payment tokens and EIP-3009 authorizations.

A rail answers one of three things to a charge: it certainly happened, it was
certainly refused, or nobody knows. "Nobody knows" is never treated as a refusal.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

import httpx
import stripe
from pydantic import JsonValue, SecretStr, ValidationError
from stripe import RequestOptions
from stripe.params import PaymentIntentCreateParams, PaymentIntentListParams
from x402.schemas import SettleResponse, VerifyResponse

from waystation.models.base import FrozenOpen, JsonObject
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.protocols.http402 import (
    WireError,
    mpp_evm_nonce,
    parse_address,
    parse_amount,
)
from waystation.protocols.http402.eip3009 import TokenAsset, recover_signer
from waystation.seller.paywall.entries import Charge, Entry
from waystation.stripe_http import STRIPE_API_VERSION

FACILITATOR_TIMEOUT_SECONDS = 30.0
AUTHORIZATION_MAX_SECONDS = 3_600
"""An authorization valid for longer than this is refused."""
CLOCK_SKEW_SECONDS = 60
MAX_RECONCILE_PAGES = 20


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

    def check_valid(self, now: datetime) -> None:
        """Whether it may be charged now, for the first time. Raises ``BadPayment``."""
        ...


class SellerRail(Protocol):
    """One way to be paid."""

    currency: str
    """The asset it charges, as in ``Money``."""
    payee: str
    mpp_method: str

    def mpp_request(self, price: Money) -> JsonObject:
        """The MPP ``request`` object that asks for a price."""
        ...

    def read_mpp(self, challenge_id: str, realm: str, payload: JsonObject, price: Money) -> PaymentPayload:
        """Checks an MPP payload. Raises ``BadPayment``."""
        ...

    async def charge(self, entry: Entry, payment: PaymentPayload) -> Outcome:
        """Charges once for an entry, however often it is called."""
        ...

    async def find(self, entry: Entry) -> Outcome:
        """Looks for the charge of an entry without making one."""
        ...


@runtime_checkable
class X402Rail(Protocol):
    """A rail that x402 clients can pay as well."""

    def x402_terms(self, price: Money) -> JsonObject:
        """The x402 payment requirements that ask for a price."""
        ...

    def read_x402(self, payload: JsonObject, price: Money) -> PaymentPayload:
        """Checks an x402 payload. Raises ``BadPayment``."""
        ...


@dataclass(frozen=True, slots=True)
class TokenPayment:
    """A shared payment token."""

    token: SecretStr
    journal_key: str | None = None
    payer: str | None = None

    def check_valid(self, now: datetime) -> None:
        """Tokens expire at the processor, which knows best."""


class StripeRail:
    """Charges shared payment tokens with PaymentIntents.

    The idempotency key is the challenge id alone: a second token for one
    challenge can't become a second charge.
    """

    mpp_method = "stripe"

    def __init__(self, client: stripe.StripeClient, *, network_id: str, currency: str = "usd") -> None:
        self._client = client
        self.payee = network_id
        self.currency = currency

    def mpp_request(self, price: Money) -> JsonObject:
        """See ``SellerRail``."""
        return {
            "amount": str(price.amount),
            "currency": price.currency,
            "methodDetails": {"networkId": self.payee, "paymentMethodTypes": ["card"]},
        }

    def read_mpp(self, challenge_id: str, realm: str, payload: JsonObject, price: Money) -> TokenPayment:
        """See ``SellerRail``."""
        token = payload.get("spt")
        if not isinstance(token, str) or not 0 < len(token) <= 255 or not token.isascii():
            raise BadPayment("the payload has no shared payment token (spt)")
        return TokenPayment(SecretStr(token))

    async def charge(self, entry: Entry, payment: PaymentPayload) -> Outcome:
        """See ``SellerRail``."""
        if not isinstance(payment, TokenPayment):
            raise TypeError("a StripeRail charges what it has read itself")
        outcome = await self._create(entry, payment)
        if isinstance(outcome, Refused) and entry.attempts > 1:
            # An earlier try may have gone through and its key been forgotten since.
            found = await self.find(entry)
            return outcome if isinstance(found, Refused) else found
        return outcome

    async def _create(self, entry: Entry, payment: TokenPayment) -> Outcome:
        params: PaymentIntentCreateParams = {
            "amount": entry.price.amount,
            "currency": entry.price.currency,
            "confirm": True,
            "payment_method_types": ["card"],
            # A preview parameter, which the types of the released version don't know.
            "payment_method_data": {  # type: ignore[typeddict-item]
                "shared_payment_granted_token": payment.token.get_secret_value()
            },
            "metadata": {
                "machine_payment": "true",
                "mpp_challenge_id": entry.challenge_id,
                "mpp_intent": "charge",
            },
        }
        options: RequestOptions = {
            "idempotency_key": f"mpp_{entry.challenge_id}",
            "stripe_version": STRIPE_API_VERSION,
            "max_network_retries": 0,
        }
        try:
            intent = await self._client.v1.payment_intents.create_async(params, options)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            return Refused(f"the processor refused the token ({error.code or 'invalid_request'})")
        except stripe.StripeError as error:
            return Unclear(f"{type(error).__name__} (HTTP {error.http_status or 'no answer'})")
        return await self._read(intent, entry)

    async def _read(self, intent: stripe.PaymentIntent, entry: Entry) -> Outcome:
        if intent.status == "succeeded":
            if (intent.amount, intent.currency) != (entry.price.amount, entry.price.currency):
                return Unclear("the processor charged another amount than asked")
            charged_at = datetime.fromtimestamp(intent.created, tz=UTC)
            return Settled(Charge(reference=intent.id, charged_at=charged_at))
        if intent.status in ("requires_payment_method", "canceled"):
            return Refused(f"the payment ended as {intent.status}")
        if intent.status == "requires_action":
            return await self._cancel(intent.id, entry)
        return Unclear(f"the payment is {intent.status}")

    async def _cancel(self, intent_id: str, entry: Entry) -> Outcome:
        """A machine can't pass a 3-D Secure check; nobody shall pass it later for a lost answer."""
        options: RequestOptions = {
            "idempotency_key": f"mpp_{entry.challenge_id}_cancel",
            "stripe_version": STRIPE_API_VERSION,
            "max_network_retries": 0,
        }
        try:
            await self._client.v1.payment_intents.cancel_async(intent_id, {}, options)
        except stripe.StripeError as error:
            return Unclear(f"canceling after requires_action: {type(error).__name__}")
        return Refused("the card asks for a step that needs a person (requires_action)")

    async def find(self, entry: Entry) -> Outcome:
        """See ``SellerRail``. Pages through intents created since the entry, by metadata."""
        since = int((entry.created_at - timedelta(seconds=CLOCK_SKEW_SECONDS)).timestamp())
        params: PaymentIntentListParams = {"limit": 100, "created": {"gte": since}}
        options: RequestOptions = {"stripe_version": STRIPE_API_VERSION, "max_network_retries": 0}
        refusal: Outcome = Refused("no charge found")
        try:
            for _ in range(MAX_RECONCILE_PAGES):
                page = await self._client.v1.payment_intents.list_async(params, options)
                for intent in page.data:
                    if _challenge_of(intent) == entry.challenge_id:
                        outcome = await self._read(intent, entry)
                        if not isinstance(outcome, Refused):
                            return outcome
                        refusal = outcome
                if not page.has_more or not page.data:
                    return refusal
                params["starting_after"] = page.data[-1].id
        except stripe.StripeError as error:
            return Unclear(f"listing payments: {type(error).__name__}")
        return Unclear(f"not found in {MAX_RECONCILE_PAGES} pages of payments")


def _challenge_of(intent: stripe.PaymentIntent) -> str | None:
    metadata = intent.metadata
    if metadata is None:
        return None
    value: object = metadata.to_dict().get("mpp_challenge_id")
    return value if isinstance(value, str) else None


class _Authorization(FrozenOpen):
    """The authorization fields as they come in; all strings on the wire."""

    to: str
    value: str
    validAfter: str  # noqa: N815
    validBefore: str  # noqa: N815
    nonce: str


@dataclass(frozen=True, slots=True)
class AuthorizationPayment:
    """A signed EIP-3009 authorization whose signature and terms were checked."""

    authorization: dict[str, str]
    signature: SecretStr
    journal_key: str | None

    @property
    def payer(self) -> str:
        """The address that signed."""
        return self.authorization["from"]

    def check_valid(self, now: datetime) -> None:
        """See ``PaymentPayload``. A resend after the window is fine: it settles nothing new."""
        after, before = int(self.authorization["validAfter"]), int(self.authorization["validBefore"])
        seconds = int(now.timestamp())
        if not after <= seconds < before <= seconds + AUTHORIZATION_MAX_SECONDS:
            raise BadPayment("the authorization isn't valid now, or for too long")


class EvmRail:
    """Settles EIP-3009 authorizations of one token through an x402 facilitator."""

    mpp_method = "evm"

    def __init__(
        self,
        asset: TokenAsset,
        *,
        recipient: str,
        facilitator_url: str,
        client: httpx.AsyncClient | None = None,
        max_timeout_seconds: int = 300,
    ) -> None:
        self._asset = asset
        self._facilitator_url = facilitator_url.rstrip("/")
        self._client = client or httpx.AsyncClient(timeout=FACILITATOR_TIMEOUT_SECONDS)
        self._max_timeout_seconds = max_timeout_seconds
        self.payee = parse_address(recipient)
        self.currency = asset.currency

    def mpp_request(self, price: Money) -> JsonObject:
        """See ``SellerRail``."""
        return {
            "amount": str(price.amount),
            "currency": parse_address(self._asset.address),
            "recipient": self.payee,
            "methodDetails": {
                "chainId": self._asset.chain_id,
                "credentialTypes": ["authorization"],
                "decimals": self._asset.decimals,
            },
        }

    def x402_terms(self, price: Money) -> JsonObject:
        """See ``X402Rail``."""
        return {
            "scheme": "exact",
            "network": self._asset.network,
            "amount": str(price.amount),
            "asset": parse_address(self._asset.address),
            "payTo": self.payee,
            "maxTimeoutSeconds": self._max_timeout_seconds,
            "extra": {
                "assetTransferMethod": "eip3009",
                "name": self._asset.name,
                "version": self._asset.version,
            },
        }

    def read_mpp(
        self, challenge_id: str, realm: str, payload: JsonObject, price: Money
    ) -> AuthorizationPayment:
        """See ``SellerRail``."""
        if payload.get("type") != "authorization":
            raise BadPayment("the payload isn't an EIP-3009 authorization")
        authorization = {key: value for key, value in payload.items() if key not in ("type", "signature")}
        payment = self._read(authorization, payload.get("signature"), price)
        if payment.authorization["nonce"].lower() != mpp_evm_nonce(challenge_id, realm):
            raise BadPayment("the authorization is for another challenge (nonce)")
        return payment

    def read_x402(self, payload: JsonObject, price: Money) -> AuthorizationPayment:
        """See ``X402Rail``."""
        authorization = payload.get("authorization")
        if not isinstance(authorization, dict):
            raise BadPayment("only EIP-3009 authorizations are accepted")
        return self._read(authorization, payload.get("signature"), price)

    def _read(self, raw: JsonObject, signature: object, price: Money) -> AuthorizationPayment:
        try:
            fields = _Authorization.model_validate(raw, strict=True)
            payer, payee = parse_address(raw.get("from")), parse_address(fields.to)
            nonce = bytes.fromhex(fields.nonce.removeprefix("0x"))
            after, before = int(fields.validAfter), int(fields.validBefore)
            value = parse_amount(fields.value)
        except (ValidationError, WireError, ValueError):
            raise BadPayment("the authorization is malformed") from None
        if payee != self.payee or value != price.amount:
            raise BadPayment("the authorization pays another recipient or amount")
        if len(nonce) != 32:
            raise BadPayment("the authorization's nonce isn't 32 bytes")
        authorization = {
            "from": payer,
            "to": payee,
            "value": str(value),
            "validAfter": str(after),
            "validBefore": str(before),
            "nonce": "0x" + nonce.hex(),
        }
        if not isinstance(signature, str) or recover_signer(self._asset, authorization, signature) != payer:
            raise BadPayment("the signature isn't the payer's")
        key = f"{self.currency}:{payer}:{authorization['nonce']}"
        return AuthorizationPayment(authorization, SecretStr(signature), key)

    async def charge(self, entry: Entry, payment: PaymentPayload) -> Outcome:
        """See ``SellerRail``. The chain itself accepts each nonce once."""
        if not isinstance(payment, AuthorizationPayment):
            raise TypeError("an EvmRail charges what it has read itself")
        terms = self.x402_terms(entry.price)
        body: JsonObject = {
            "x402Version": 2,
            "paymentPayload": {
                "x402Version": 2,
                "accepted": terms,
                "payload": {
                    "authorization": dict[str, JsonValue](payment.authorization),
                    "signature": payment.signature.get_secret_value(),
                },
            },
            "paymentRequirements": terms,
        }
        if entry.attempts <= 1:
            # Settling may fail for reasons that tell nothing; verifying first tells most of them.
            refusal = await self._verify(body)
            if refusal is not None:
                return refusal
        answer = await self._ask("settle", body)
        if isinstance(answer, Unclear):
            return answer
        try:
            settled = SettleResponse.model_validate_json(answer.content)
        except ValidationError:
            return Unclear(f"the facilitator's answer can't be read (HTTP {answer.status_code})")
        return self._outcome(settled, entry)

    async def _verify(self, body: JsonObject) -> Outcome | None:
        """A refusal before anything was settled, or None where nothing stands against settling."""
        answer = await self._ask("verify", body)
        if isinstance(answer, Unclear):
            return answer
        try:
            verified = VerifyResponse.model_validate_json(answer.content)
        except ValidationError:
            return Unclear(f"the facilitator's answer can't be read (HTTP {answer.status_code})")
        if verified.is_valid:
            return None
        reason = verified.invalid_reason or "no reason given"
        if reason.startswith("unexpected"):
            return Unclear(f"the facilitator could not verify ({reason})")
        return Refused(f"the facilitator refused the authorization ({reason})")

    async def _ask(self, what: str, body: JsonObject) -> httpx.Response | Unclear:
        url = f"{self._facilitator_url}/{what}"
        try:
            return await self._client.post(url, json=body, timeout=FACILITATOR_TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            return Unclear(f"the facilitator didn't answer ({type(error).__name__})")

    def _outcome(self, settled: SettleResponse, entry: Entry) -> Outcome:
        if settled.success and settled.transaction:
            charge = Charge(
                reference=settled.transaction,
                network=self._asset.network,
                payer=settled.payer,
                charged_at=datetime.now(UTC),
            )
            return Settled(charge)
        reason = settled.error_reason or "no reason given"
        sure = settled.error_reason in DEFINITE_FACILITATOR_REFUSALS and not settled.transaction
        if sure and not settled.success and entry.attempts <= 1:
            return Refused(f"the facilitator refused the authorization ({reason})")
        return Unclear(f"the facilitator could not settle ({reason})")

    async def find(self, entry: Entry) -> Outcome:
        """See ``SellerRail``. Facilitators can't be asked; only a resend settles the question."""
        return Unclear("facilitators offer no lookup; the client's resend will tell")


DEFINITE_FACILITATOR_REFUSALS = frozenset(
    {
        "insufficient_balance",
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_signature",
        "invalid_exact_evm_signature",
        "invalid_exact_evm_nonce_already_used",
        "invalid_exact_evm_payload_authorization_valid_before",
        "invalid_exact_evm_payload_recipient_mismatch",
        "invalid_exact_evm_payload_authorization_value_mismatch",
    }
)
"""Reasons after which a first try has certainly moved nothing."""


def rail_of(method: str) -> Rail:
    """The rail's name for a method of ``RedeemedChallenge``."""
    return {"stripe": Rail.MPP_STRIPE, "evm": Rail.MPP_EVM, "x402": Rail.X402_EXACT}[method]
