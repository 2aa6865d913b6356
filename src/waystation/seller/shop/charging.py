"""Charging a shared payment token through Stripe's client. The only module of the kit that moves money.

Every call that moves money carries an idempotency key made of the checkout, the generation of its
PaymentIntent and the attempt, never of a token. The client's own retries are off.
"""

import hashlib
from typing import Final

import stripe
from pydantic import SecretStr

from waystation.models.base import Frozen, JsonObject
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
    """Tells tokens apart without keeping them."""
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()


class Charging:
    """The seller's account with the processor."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self._client = client

    async def _call(self, method: str, path: str, key: str | None = None, **params: object) -> JsonObject:
        options = {"idempotency_key": key} if key is not None else {}
        answer = await self._client.raw_request_async(method, path, **options, **params)
        found: JsonObject = answer.data
        return found

    async def facts(
        self, checkout: Checkout, amount: int, token: SecretStr, request: acp.CheckoutCompleteRequest
    ) -> PaymentFacts | Declined:
        """What the processor tells of the payment behind a token."""
        try:
            seen = await self._call("get", f"/v1/shared_payment/granted_tokens/{_path_part(token)}")
        except stripe.InvalidRequestError as error:
            return Declined(reason=_shown(error, token))
        except stripe.StripeError as error:
            raise _unusable(error) from None
        card = _dict(_dict(seen, "payment_method_details"), "card")
        limits = _dict(seen, "usage_limits")
        insights = _dict(_dict(seen, "risk_details"), "insights")
        return PaymentFacts(
            checkout_id=checkout.id,
            amount=amount,
            currency=checkout.basket.currency,
            card_brand=card.get("brand"),
            card_last4=card.get("last4"),
            card_funding=card.get("funding"),
            card_country=card.get("country"),
            card_exp_month=card.get("exp_month"),
            card_exp_year=card.get("exp_year"),
            insights={
                name: RiskInsight(
                    score=_dict(insights, name).get("score"),
                    recommended_action=_dict(insights, name).get("recommended_action"),
                )
                for name in insights
            },
            agent_profile=_dict(seen, "agent_details").get("network_business_profile"),
            token_limit=limits.get("max_amount"),
            token_expires_at=limits.get("expires_at"),
            buyer=request.buyer or checkout.basket.buyer,
            risk_signals=request.risk_signals,
        )

    async def open_intent(self, checkout: Checkout, amount: int) -> str:
        """The PaymentIntent of this generation, made but not confirmed: no money moves."""
        try:
            intent = await self._call(
                "post",
                "/v1/payment_intents",
                key=f"{checkout.id}:intent:{checkout.payment.generation}:{amount}",
                amount=amount,
                currency=checkout.basket.currency,
                metadata={METADATA_CHECKOUT: checkout.id},
                payment_method_types=["card"],
            )
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return str(intent["id"])

    async def confirm(
        self, checkout: Checkout, token: SecretStr | None, proof: acp.AuthenticationOutcomeDetails | None
    ) -> Outcome:
        """The one call that charges. Raises 503 where its outcome is unknown.

        Without a token the payment method that the intent already holds is charged.
        """
        payment = checkout.payment
        params: dict[str, object] = {}
        if proof is not None:
            params["payment_method_options"] = {"card": {"three_d_secure": _imported_3ds(proof)}}
        if token is not None:
            params["payment_method_data"] = {"shared_payment_granted_token": token.get_secret_value()}
        try:
            intent = await self._call(
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
        """The truth about an intent."""
        try:
            intent = await self._call("get", f"/v1/payment_intents/{intent_id}", expand=["latest_charge"])
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return _outcome(intent)

    async def cancel(self, checkout: Checkout) -> Outcome:
        """Makes sure that the intent is never charged, or tells that it has been."""
        payment = checkout.payment
        try:
            # No key of our own: canceling twice is canceling once, while a kept 500 would bar the way.
            intent = await self._call("post", f"/v1/payment_intents/{payment.intent_id}/cancel")
        except stripe.InvalidRequestError:
            return await self.look(str(payment.intent_id))
        except stripe.StripeError as error:
            raise _unusable(error) from None
        return _outcome(intent)

    async def refund(self, intent_id: str, amount: int, key: str) -> str:
        """Refunds a part or all of a charge; the same key never refunds twice. Returns the refund's id."""
        refund = await self._call("post", "/v1/refunds", key=key, payment_intent=intent_id, amount=amount)
        return str(refund["id"])


def _outcome(intent: JsonObject) -> Outcome:
    intent_id, status = str(intent["id"]), intent["status"]
    if status == "succeeded":
        return Charged(intent_id=intent_id, amount=intent["amount_received"], currency=intent["currency"])
    if status == "requires_action":
        method = intent.get("payment_method")
        card = _dict(method, "card") if isinstance(method, dict) else {}
        return AuthenticationNeeded(intent_id=intent_id, card_brand=card.get("brand"))
    if status == "canceled":
        return Void(intent_id=intent_id)
    if status in ("requires_payment_method", "requires_confirmation"):
        return NotPaid(intent_id=intent_id)
    # processing, requires_capture, or something new: not for us to guess.
    raise payment_unknown()


def _unusable(error: stripe.StripeError) -> Exception:
    """Whether the processor refused us (nothing happened) or left us without an answer."""
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return payment_unavailable()
    return payment_unknown()


def _shown(error: stripe.StripeError, token: SecretStr | None) -> str:
    """The processor's own text, without the token, should it name it."""
    text = str(error.user_message or "The payment was refused.")
    return text if token is None else text.replace(token.get_secret_value(), "(the token)")


def _imported_3ds(proof: acp.AuthenticationOutcomeDetails) -> dict[str, str]:
    return {
        "cryptogram": proof.three_ds_cryptogram.get_secret_value(),
        "electronic_commerce_indicator": proof.electronic_commerce_indicator,
        "transaction_id": proof.transaction_id,
        "version": proof.version,
    }


def _dict(found: object, name: str) -> JsonObject:
    inner = found.get(name) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def _path_part(token: SecretStr) -> str:
    """A token as a part of a path; whatever isn't one finds nothing instead of going elsewhere."""
    value = token.get_secret_value()
    return value if value.isascii() and value.replace("_", "").isalnum() else "malformed"
