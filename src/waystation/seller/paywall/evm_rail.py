"""The rail for EVM tokens: EIP-3009 authorizations, settled through an x402 facilitator."""

from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from pydantic import JsonValue, SecretStr, ValidationError
from x402.schemas import SettleResponse, VerifyResponse

from waystation.models.base import FrozenOpen, JsonObject, replaced
from waystation.models.money import Money
from waystation.protocols.http402 import (
    WireError,
    mpp_evm_nonce,
    parse_address,
    parse_amount,
)
from waystation.protocols.http402.eip3009 import TokenAsset, recover_signer
from waystation.seller.paywall.entries import Charge, Entry, SignedTransfer
from waystation.seller.paywall.evm_chain import TokenChain
from waystation.seller.paywall.rails import BadPayment, Outcome, PaymentPayload, Refused, Settled, Unclear

FACILITATOR_TIMEOUT_SECONDS = 30.0
AUTHORIZATION_MAX_SECONDS = 3_600
"""An authorization valid for longer than this is refused."""
MIN_TIMEOUT_SECONDS = 10
SETTLING_SECONDS = 6
"""Facilitators settle nothing that expires within so many seconds."""


class _Authorization(FrozenOpen):
    """The authorization's fields as received: all strings on the wire."""

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

    @property
    def transfer(self) -> SignedTransfer:
        """What a chain can be asked for."""
        return SignedTransfer(
            payer=self.payer,
            nonce=self.authorization["nonce"],
            valid_before=int(self.authorization["validBefore"]),
        )

    def check_valid(self, now: datetime) -> None:
        """See ``PaymentPayload``. A resend after that time is fine: it settles nothing new."""
        after, before = int(self.authorization["validAfter"]), int(self.authorization["validBefore"])
        seconds = int(now.timestamp())
        if not after <= seconds or not seconds + SETTLING_SECONDS <= before:
            raise BadPayment("the authorization isn't valid now, or expires before it can be settled")
        if before > seconds + AUTHORIZATION_MAX_SECONDS:
            raise BadPayment(f"the authorization is valid for more than {AUTHORIZATION_MAX_SECONDS} seconds")


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
        rpc_url: str | None = None,
        max_timeout_seconds: int = 300,
    ) -> None:
        """``rpc_url`` is a JSON-RPC endpoint of the chain: it tells what became of a payment whose settlement
        nobody answered. Without it only people can find out (``Paywall.unclear``).

        ``max_timeout_seconds`` (x402: ``maxTimeoutSeconds``) is for how long payers sign.

        Raises:
            ValueError: An address can't be read, or ``max_timeout_seconds`` is out of range.
        """
        if not MIN_TIMEOUT_SECONDS <= max_timeout_seconds <= AUTHORIZATION_MAX_SECONDS:
            raise ValueError(
                f"max_timeout_seconds is from {MIN_TIMEOUT_SECONDS} to {AUTHORIZATION_MAX_SECONDS}"
            )
        self._asset = asset
        self._facilitator_url = facilitator_url.rstrip("/")
        self._client = client or httpx.AsyncClient(timeout=FACILITATOR_TIMEOUT_SECONDS)
        self._chain = TokenChain(asset, rpc_url, self._client) if rpc_url else None
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
        if entry.attempts > 1:
            # An earlier attempt may have settled, and stock facilitators don't recognize their own.
            known = await self.find(entry)
            if not isinstance(known, Unclear):
                return known
        else:
            # A failure to settle often explains nothing. Verifying first explains most failures.
            refusal = await self._verify(body)
            if refusal is not None:
                return await self._certain(refusal, entry)
        return await self._certain(await self._settle(body, entry), entry)

    async def _certain(self, outcome: Outcome, entry: Entry) -> Outcome:
        """Asks the chain where the facilitator leaves it open whether money moved."""
        if not isinstance(outcome, Unclear):
            return outcome
        if outcome.transaction is not None:
            entry = replaced(entry, transaction=outcome.transaction)
        found = await self.find(entry)
        return outcome if isinstance(found, Unclear) else found

    async def _settle(self, body: JsonObject, entry: Entry) -> Outcome:
        answer = await self._ask("settle", body)
        if isinstance(answer, Unclear):
            return answer
        try:
            settled = SettleResponse.model_validate_json(answer.content)
        except ValidationError:
            return Unclear(f"the facilitator's answer can't be read (HTTP {answer.status_code})")
        return self._outcome(settled, entry)

    async def _verify(self, body: JsonObject) -> Outcome | None:
        """Returns a refusal before anything is settled, or None if nothing prevents settling."""
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
        if reason == NONCE_USED or reason.startswith("unexpected"):
            return Unclear(f"the facilitator could not verify ({reason})")
        return Refused(f"the facilitator refused the authorization ({reason})")

    async def _ask(self, what: str, body: JsonObject) -> httpx.Response | Unclear:
        url = f"{self._facilitator_url}/{what}"
        try:
            answer = await self._client.post(
                url, json=body, timeout=FACILITATOR_TIMEOUT_SECONDS, follow_redirects=False
            )
        except httpx.HTTPError as error:
            return Unclear(f"the facilitator didn't answer ({type(error).__name__})")
        if answer.is_redirect:
            # A signed authorization goes only where the seller wants it to go.
            return Unclear(f"the facilitator redirects (HTTP {answer.status_code}); correct facilitator_url")
        return answer

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
        return Unclear(f"the facilitator could not settle ({reason})", settled.transaction or None)

    async def find(self, entry: Entry) -> Outcome:
        """See ``SellerRail``. Facilitators have no lookup, so the chain itself is asked."""
        if self._chain is None or entry.transfer is None:
            return Unclear("facilitators offer no lookup, and no rpc_url is configured")
        return await self._chain.outcome(entry, entry.transfer)


NONCE_USED = "invalid_exact_evm_nonce_already_used"
"""Who used it, and for whom, only the chain can say: perhaps it was an earlier attempt of ours."""


DEFINITE_FACILITATOR_REFUSALS = frozenset(
    {
        "insufficient_balance",
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
        "invalid_exact_evm_payload_signature",
        "invalid_exact_evm_signature",
        "invalid_exact_evm_payload_authorization_valid_before",
        "invalid_exact_evm_payload_recipient_mismatch",
        "invalid_exact_evm_payload_authorization_value_mismatch",
    }
)
"""Reasons that prove that a first attempt moved no money."""
