"""Activities over shared payment tokens: issue, read, revoke, through Stripe's own client.

Against Stripe or the sandbox processor by settings alone (``waystation.stripe_http.open_stripe``).
Every POST carries an explicit idempotency key; the client's own retries are off.
"""

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import stripe
from pydantic import JsonValue
from stripe import StripeResponse
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contract, failures
from activities.contract import IssueToken, PaymentTokenCalls, RevokeToken, TokenRef
from activities.heartbeats import heartbeating
from waystation.models.base import FrozenOpen
from waystation.models.money import MinorUnits
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
        """Issues a token (``POST /v1/shared_payment/issued_tokens``).

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
                use_stripe_sdk=True,
                idempotency_key=call.idempotency_key,
                stripe_version=STRIPE_API_VERSION,
            ),
        )

    @activity.defn
    @heartbeating
    async def read_payment_token(self, call: TokenRef) -> PaymentToken:
        """Returns what the processor says of a token (``GET …/{id}``)."""
        path = f"{_ISSUED}/{quote(call.token.id, safe='')}"
        return await self._token(
            "read the payment token",
            self._stripe.raw_request_async("get", path, stripe_version=STRIPE_API_VERSION),
        )

    @activity.defn
    @heartbeating
    async def revoke_payment_token(self, call: RevokeToken) -> PaymentToken:
        """Revokes a token; its state after that tells whether it was spent before."""
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

    async def _token(self, what: str, request: Awaitable[StripeResponse]) -> PaymentToken:
        try:
            response = await request
        except stripe.StripeError as error:
            raise failures.processor_error(error, what) from None
        return _token_from(response.data, response.headers)


class _Limits(FrozenOpen):
    expires_at: int | None = None


class _Captured(FrozenOpen):
    value: MinorUnits | None = None
    amount: MinorUnits | None = None


class _Details(FrozenOpen):
    amount_captured: MinorUnits | _Captured | None = None

    @property
    def captured(self) -> int | None:
        stated = self.amount_captured
        if not isinstance(stated, _Captured):
            return stated
        return stated.value if stated.value is not None else stated.amount


class _IssuedToken(FrozenOpen):
    """What the processor says of an issued token, as far as it decides anything."""

    id: str
    status: TokenStatus | None = None
    deactivated_reason: str | None = None
    usage_limits: _Limits | None = None
    usage_details: _Details | None = None
    next_action: JsonValue = None


def _token_from(data: object, headers: Mapping[str, str]) -> PaymentToken:
    try:
        issued = _IssuedToken.model_validate(data)
        expires_at = issued.usage_limits.expires_at if issued.usage_limits else None
        return PaymentToken(
            id=issued.id,
            fingerprint=fingerprint(issued.id),
            status=issued.status or "active",
            deactivated_reason=issued.deactivated_reason,
            expires_at=datetime.fromtimestamp(expires_at, UTC) if expires_at is not None else None,
            next_action=_next_action(issued.next_action),
            captured=issued.usage_details.captured if issued.usage_details else None,
            request_id=headers.get("request-id") or headers.get("Request-Id"),
        )
    except (ValueError, OverflowError):
        raise ApplicationError(
            "the processor's answer about a payment token has another shape than expected",
            type=contract.PROCESSOR_UNAVAILABLE,
        ) from None


def _next_action(action: JsonValue) -> NextAction | None:
    """Returns the person's next step: ``use_stripe_sdk``, which we ask for, or ``redirect_to_url``."""
    if not isinstance(action, dict):
        return None
    kind = str(action.get("type"))
    inner = action.get(kind)
    return NextAction.model_validate(
        {"type": kind, "url": inner.get("url"), "value": inner.get("value")}
        if isinstance(inner, dict)
        else {"type": kind}
    )
