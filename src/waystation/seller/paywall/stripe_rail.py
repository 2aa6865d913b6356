"""The rail for Stripe: shared payment tokens, charged with PaymentIntents."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import stripe
from pydantic import SecretStr
from stripe import RequestOptions
from stripe.params import (
    PaymentIntentCreateParams,
    PaymentIntentCreateParamsPaymentMethodData,
    PaymentIntentListParams,
    RefundCreateParams,
)

from waystation.models.base import JsonObject
from waystation.models.money import Money
from waystation.seller.paywall.entries import Charge, Entry, Refund, SignedTransfer
from waystation.seller.paywall.rails import BadPayment, Outcome, PaymentPayload, Refused, Settled, Unclear
from waystation.stripe_http import STRIPE_API_VERSION

CLOCK_SKEW_SECONDS = 60
MAX_RECONCILE_PAGES = 20


@dataclass(frozen=True, slots=True)
class TokenPayment:
    """A shared payment token."""

    token: SecretStr
    journal_key: str | None = None
    payer: str | None = None
    transfer: SignedTransfer | None = None

    def check_valid(self, now: datetime) -> None:
        """Checks nothing: the processor knows when a token expires."""


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
            # An earlier attempt may have succeeded, and its key may have been forgotten since.
            found = await self._search(entry)
            return outcome if found is None or isinstance(found, Refused) else found
        return outcome

    async def _create(self, entry: Entry, payment: TokenPayment) -> Outcome:
        params: PaymentIntentCreateParams = {
            "amount": entry.price.amount,
            "currency": entry.price.currency,
            "confirm": True,
            "allowed_payment_method_types": ["card"],
            "payment_method_data": _granted(payment.token),
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
        """Cancels a payment that needs 3-D Secure: no machine can pass it, and no person should later."""
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
        """See ``SellerRail``. Whatever wasn't charged so far may be, by the same credential."""
        found = await self._search(entry)
        if found is None or isinstance(found, Refused):
            return Unclear("no charge found")
        return found

    async def _search(self, entry: Entry) -> Outcome | None:
        """Pages through intents created since the entry, by metadata; None if there is none."""
        since = int((entry.created_at - timedelta(seconds=CLOCK_SKEW_SECONDS)).timestamp())
        params: PaymentIntentListParams = {"limit": 100, "created": {"gte": since}}
        options: RequestOptions = {"stripe_version": STRIPE_API_VERSION, "max_network_retries": 0}
        refusal: Outcome | None = None
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

    async def refund(self, entry: Entry) -> Refund:
        """See ``RefundingRail``."""
        if entry.charge is None:
            raise ValueError("only a charge can be refunded")
        params: RefundCreateParams = {
            "payment_intent": entry.charge.reference,
            "amount": entry.price.amount,
            "metadata": {"mpp_challenge_id": entry.challenge_id},
        }
        options: RequestOptions = {
            "idempotency_key": f"mpp_{entry.challenge_id}_refund",
            "stripe_version": STRIPE_API_VERSION,
            "max_network_retries": 0,
        }
        try:
            refund = await self._client.v1.refunds.create_async(params, options)
        except stripe.InvalidRequestError as error:
            if error.code != "charge_already_refunded":
                raise
            return Refund(reference=entry.charge.reference, refunded_at=datetime.now(UTC))
        return Refund(reference=refund.id, refunded_at=datetime.fromtimestamp(refund.created, tz=UTC))


def _granted(token: SecretStr) -> PaymentIntentCreateParamsPaymentMethodData:
    """Returns a preview parameter, which the released version of ``stripe`` has no type for."""
    return cast(
        PaymentIntentCreateParamsPaymentMethodData, {"shared_payment_granted_token": token.get_secret_value()}
    )


def _challenge_of(intent: stripe.PaymentIntent) -> str | None:
    metadata = intent.metadata
    if metadata is None:
        return None
    value: object = metadata.to_dict().get("mpp_challenge_id")
    return value if isinstance(value, str) else None
