"""Charges shared payment tokens through Stripe's client. The only module of the kit that moves money.

Every call that moves money carries an idempotency key made of the checkout, the generation of its
PaymentIntent and the attempt, never of a token. The client's own retries are off.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeVar

import stripe
from pydantic import SecretStr, StrictInt, ValidationError, model_validator

from waystation.models.base import Frozen, FrozenOpen
from waystation.models.money import MinorUnits
from waystation.protocols import acp
from waystation.seller.shop.errors import payment_unavailable, payment_unknown
from waystation.seller.shop.merchant import PaymentFacts, RiskInsight
from waystation.seller.shop.records import Checkout

METADATA_CHECKOUT: Final = "acp_checkout_session_id"


class Charged(Frozen):
    """Money has moved."""

    intent_id: str
    amount: int
    currency: str


class AuthenticationNeeded(Frozen):
    """The card's issuer wants 3DS first."""

    intent_id: str
    card_brand: str | None


class Declined(Frozen):
    """Nothing was charged; ``reason`` may be shown."""

    reason: str


class NotPaid(Frozen):
    """The intent exists, was not charged, and could still be."""

    intent_id: str


class Void(Frozen):
    """The intent is canceled: it will never be charged."""

    intent_id: str


Outcome = Charged | AuthenticationNeeded | Declined | NotPaid | Void


def token_digest(token: SecretStr) -> str:
    """Returns a digest that identifies a token without storing it."""
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()


class _Card(FrozenOpen):
    brand: str | None = None
    last4: str | None = None
    funding: str | None = None
    country: str | None = None
    exp_month: StrictInt | None = None
    exp_year: StrictInt | None = None


class _PaymentMethodDetails(FrozenOpen):
    card: _Card = _Card()


class _Limits(FrozenOpen):
    max_amount: MinorUnits | None = None
    expires_at: StrictInt | None = None


class _Insight(FrozenOpen):
    score: StrictInt | Decimal | None = None
    recommended_action: str | None = None


class _RiskDetails(FrozenOpen):
    insights: Mapping[str, _Insight | None] | None = None

    @property
    def known_insights(self) -> dict[str, RiskInsight]:
        return {
            name: RiskInsight(score=one.score, recommended_action=one.recommended_action)
            for name, one in (self.insights or {}).items()
            if one is not None
        }


class _AgentDetails(FrozenOpen):
    network_business_profile: str | None = None


class _GrantedToken(FrozenOpen):
    """The processor's view of a token granted to us: the parts that a risk system needs."""

    payment_method_details: _PaymentMethodDetails = _PaymentMethodDetails()
    usage_limits: _Limits = _Limits()
    risk_details: _RiskDetails = _RiskDetails()
    agent_details: _AgentDetails = _AgentDetails()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        """Every part of a granted token may be null."""
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, Mapping) else data


class _Intent(FrozenOpen):
    """The parts of a PaymentIntent that decide anything."""

    id: str
    status: str
    amount_received: MinorUnits | None = None
    currency: str | None = None
    payment_method: str | _PaymentMethodDetails | None = None


class _Refund(FrozenOpen):
    id: str


Answer = TypeVar("Answer", bound=FrozenOpen)


def _read(model: type[Answer], answer: object) -> Answer:
    """Parses the processor's answer. An answer of another shape says nothing about the money."""
    try:
        return model.model_validate(answer)
    except ValidationError:
        raise payment_unknown() from None


class Charging:
    """The seller's account with the processor."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._client = client

    async def _call(self, method: str, path: str, key: str | None = None, **params: object) -> object:
        options = {"idempotency_key": key} if key is not None else {}
        answer = await self._client.raw_request_async(method, path, **options, **params)
        return answer.data

    async def _intent(self, method: str, path: str, key: str | None = None, **params: object) -> _Intent:
        return _read(_Intent, await self._call(method, path, key, **params))

    async def facts(
        self, checkout: Checkout, amount: int, token: SecretStr, request: acp.CheckoutCompleteRequest
    ) -> PaymentFacts | Declined:
        """Returns what the processor says about the payment behind a token."""
        try:
            answer = await self._call("get", f"/v1/shared_payment/granted_tokens/{_path_part(token)}")
        except stripe.InvalidRequestError as error:
            return Declined(reason=_shown(error, token))
        except stripe.StripeError as error:
            raise _unusable(error) from None
        seen = _read(_GrantedToken, answer)
        card, limits = seen.payment_method_details.card, seen.usage_limits
        return PaymentFacts(
            checkout_id=checkout.id,
            amount=amount,
            currency=checkout.basket.currency,
            card_brand=card.brand,
            card_last4=card.last4,
            card_funding=card.funding,
            card_country=card.country,
            card_exp_month=card.exp_month,
            card_exp_year=card.exp_year,
            insights=seen.risk_details.known_insights,
            agent_profile=seen.agent_details.network_business_profile,
            token_limit=limits.max_amount,
            token_expires_at=limits.expires_at,
            buyer=request.buyer or checkout.basket.buyer,
            risk_signals=request.risk_signals,
        )

    async def open_intent(self, checkout: Checkout, amount: int) -> str:
        """Returns the PaymentIntent of this generation, made but not confirmed: no money moves."""
        try:
            intent = await self._intent(
                "post",
                "/v1/payment_intents",
                key=f"{checkout.id}:intent:{checkout.payment.generation}:{amount}",
                amount=amount,
                currency=checkout.basket.currency,
                metadata={METADATA_CHECKOUT: checkout.id},
                allowed_payment_method_types=["card"],
            )
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return intent.id

    async def confirm(
        self, checkout: Checkout, token: SecretStr | None, proof: acp.AuthenticationOutcomeDetails | None
    ) -> Outcome:
        """Confirms the PaymentIntent: the one call that charges. Answers 503 where the outcome is unknown.

        Without a token, charges the payment method that the intent already holds.
        """
        payment = checkout.payment
        params: dict[str, object] = {}
        if proof is not None:
            params["payment_method_options"] = {"card": {"three_d_secure": _imported_3ds(proof)}}
        if token is not None:
            params["payment_method_data"] = {"shared_payment_granted_token": token.get_secret_value()}
        try:
            intent = await self._intent(
                "post",
                f"/v1/payment_intents/{payment.intent_id}/confirm",
                key=f"{checkout.id}:confirm:{payment.generation}:{payment.attempt}",
                **params,
            )
        except stripe.CardError as error:
            return Declined(reason=_shown(error, token))
        except stripe.InvalidRequestError as error:
            if error.code == "payment_intent_unexpected_state":
                return await self.look(str(payment.intent_id))
            # Among them: more than the token allows, a token used or revoked, another seller's token.
            return Declined(reason=_shown(error, token))
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return _outcome(intent)

    async def look(self, intent_id: str) -> Outcome:
        """Returns what became of an intent, as the processor says."""
        try:
            intent = await self._intent("get", f"/v1/payment_intents/{intent_id}", expand=["latest_charge"])
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return _outcome(intent)

    async def cancel(self, checkout: Checkout) -> Outcome:
        """Makes sure that the intent is never charged, or reports that it already was."""
        payment = checkout.payment
        try:
            # No idempotency key: canceling twice does no harm, while a stored 500 would block every retry.
            intent = await self._intent("post", f"/v1/payment_intents/{payment.intent_id}/cancel")
        except stripe.InvalidRequestError:
            return await self.look(str(payment.intent_id))
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return _outcome(intent)

    async def refund(self, intent_id: str, amount: int, key: str) -> str:
        """Refunds part or all of a charge. The same key never refunds twice. Returns the refund's id."""
        answer = await self._call("post", "/v1/refunds", key=key, payment_intent=intent_id, amount=amount)
        return _read(_Refund, answer).id


def _outcome(intent: _Intent) -> Outcome:
    if intent.status == "succeeded":
        if intent.amount_received is None or intent.currency is None:
            raise payment_unknown()
        return Charged(intent_id=intent.id, amount=intent.amount_received, currency=intent.currency)
    if intent.status == "requires_action":
        method = intent.payment_method
        brand = method.card.brand if isinstance(method, _PaymentMethodDetails) else None
        return AuthenticationNeeded(intent_id=intent.id, card_brand=brand)
    if intent.status == "canceled":
        return Void(intent_id=intent.id)
    if intent.status in ("requires_payment_method", "requires_confirmation"):
        return NotPaid(intent_id=intent.id)
    # processing, requires_capture, or something new: we don't guess.
    raise payment_unknown()


def _unusable(error: stripe.StripeError) -> Exception:
    """Returns whether the processor refused us (nothing happened) or left us without an answer."""
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return payment_unavailable()
    return payment_unknown()


def _shown(error: stripe.StripeError, token: SecretStr | None) -> str:
    """Returns the processor's message with the token removed."""
    text = str(error.user_message or "The payment was refused.")
    return text if token is None else text.replace(token.get_secret_value(), "(the token)")


def _imported_3ds(proof: acp.AuthenticationOutcomeDetails) -> dict[str, str]:
    return {
        "cryptogram": proof.three_ds_cryptogram.get_secret_value(),
        "electronic_commerce_indicator": proof.electronic_commerce_indicator,
        "transaction_id": proof.transaction_id,
        "version": proof.version,
    }


def _path_part(token: SecretStr) -> str:
    """Returns a token as a path segment. Anything else becomes a segment that finds nothing."""
    value = token.get_secret_value()
    return value if value.isascii() and value.replace("_", "").isalnum() else "malformed"
