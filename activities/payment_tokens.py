"""Activities over shared payment tokens: issue, read, revoke, through Stripe's own client.

Against Stripe or the sandbox processor by settings alone (:func:`waystation.stripe_http.open_stripe`).
Every POST carries an explicit idempotency key; the client's own retries are off.
"""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import stripe
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contract, failures
from activities.contract import IssueToken, PaymentTokenCalls, RevokeToken, TokenRef
from activities.heartbeats import heartbeating
from waystation.models.purchases import (
    NextAction,
    PaymentToken,
    TokenStatus,
)
from waystation.redaction import fingerprint
from waystation.stripe_http import STRIPE_API_VERSION

_ISSUED: Final = "/v1/shared_payment/issued_tokens"


class PaymentTokenActivities(PaymentTokenCalls):
    """Calls the payment processor."""

    def __init__(self, client: stripe.StripeClient | None) -> None:
        self._client = client

    @property
    def _stripe(self) -> stripe.StripeClient:
        if self._client is None:
            raise ApplicationError(
                "no payment processor is configured; set WAYSTATION_STRIPE_KEY for the worker",
                "no_processor",
                type=contract.PROCESSOR_REFUSED,
                non_retryable=True,
            )
        return self._client

    @activity.defn
    @heartbeating
    async def issue_payment_token(self, call: IssueToken) -> PaymentToken:
        """Issue a token (``POST /v1/shared_payment/issued_tokens``).

        Raises:
            ApplicationError: ``PaymentMethodDeclined``, ``ProcessorRefused`` or ``ProcessorUnavailable``.
        """
        return await self._token(
            "issue the payment token",
            self._stripe.raw_request_async(
                "post",
                _ISSUED,
                payment_method=call.payment_method,
                seller_details={"network_business_profile": call.payee, "external_id": call.checkout_id},
                usage_limits={
                    "currency": call.max_amount.currency,
                    "max_amount": call.max_amount.amount,
                    "expires_at": int(call.expires_at.timestamp()),
                },
                shared_metadata={"purchase_id": call.purchase_id},
                idempotency_key=call.idempotency_key,
                stripe_version=STRIPE_API_VERSION,
            ),
        )

    @activity.defn
    @heartbeating
    async def read_payment_token(self, call: TokenRef) -> PaymentToken:
        """What the processor says of a token (``GET …/{id}``)."""
        path = f"{_ISSUED}/{quote(call.token.id, safe='')}"
        return await self._token(
            "read the payment token",
            self._stripe.raw_request_async("get", path, stripe_version=STRIPE_API_VERSION),
        )

    @activity.defn
    @heartbeating
    async def revoke_payment_token(self, call: RevokeToken) -> PaymentToken:
        """Revoke a token; its state after that tells whether it was spent before."""
        path = f"{_ISSUED}/{quote(call.token.id, safe='')}/revoke"
        try:
            return await self._token(
                "revoke the payment token",
                self._stripe.raw_request_async(
                    "post", path, idempotency_key=call.idempotency_key, stripe_version=STRIPE_API_VERSION
                ),
            )
        except ApplicationError as error:
            if error.type != contract.PROCESSOR_REFUSED:
                raise
        # Already deactivated: consumed, expired or revoked. Reading tells which.
        return await self.read_payment_token(TokenRef(token=call.token))

    async def _token(self, what: str, request: Awaitable[Any]) -> PaymentToken:
        try:
            response = await request
        except stripe.StripeError as error:
            raise failures.processor_error(error, what) from None
        return _token_from(response.data, response.headers)


def _token_from(data: Any, headers: Any) -> PaymentToken:
    try:
        token_id = data["id"]
        status: TokenStatus = data.get("status") or "active"
        limits = data.get("usage_limits") or {}
        expires_at = limits.get("expires_at")
        details = data.get("usage_details") or {}
        captured = details.get("amount_captured")
        return PaymentToken(
            id=token_id,
            fingerprint=fingerprint(token_id),
            status=status,
            deactivated_reason=data.get("deactivated_reason"),
            expires_at=datetime.fromtimestamp(expires_at, UTC) if expires_at is not None else None,
            next_action=_next_action(data.get("next_action")),
            captured=captured.get("value", captured.get("amount"))
            if isinstance(captured, dict)
            else captured,
            request_id=headers.get("request-id") or headers.get("Request-Id"),
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ApplicationError(
            "the processor's answer about a payment token has another shape than expected",
            type=contract.PROCESSOR_UNAVAILABLE,
        ) from None


def _next_action(action: Any) -> NextAction | None:
    """``use_stripe_sdk`` since 2026-04-22.preview, ``redirect_to_url`` since 2026-07-29.preview."""
    if not isinstance(action, dict):
        return None
    kind = str(action.get("type"))
    inner = action.get(kind) or {}
    return NextAction(type=kind, url=inner.get("url"), value=inner.get("value"))
