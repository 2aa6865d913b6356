"""Shared payment tokens at the processor: issue, read, revoke, through Stripe's own client.

Settings alone decide between Stripe and the sandbox processor (``waystation.stripe_http.open_stripe``). Every
POST carries an explicit idempotency key; the client's own retries are off.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import stripe
from pydantic import ConfigDict, Field, JsonValue, ValidationError

from waystation.errors import WaystationError
from waystation.models.base import FrozenOpen
from waystation.models.money import MinorUnits, Money
from waystation.models.purchases import NextAction, TokenStatus
from waystation.models.times import clamped
from waystation.stripe_http import STRIPE_API_VERSION

_ISSUED: Final = "/v1/shared_payment/issued_tokens"


class ProcessorUnavailableError(WaystationError):
    """The processor or the chain gave no clear answer; ask again."""


class _Limits(FrozenOpen):
    expires_at: int | None = None


class _Captured(FrozenOpen):
    value: MinorUnits | None = None
    amount: MinorUnits | None = None


class _Details(FrozenOpen):
    amount_captured: MinorUnits | _Captured | None = None


class IssuedToken(FrozenOpen):
    """What the processor says of an issued token, reduced to what decides. ``id`` *is* the secret."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str = Field(repr=False)
    status: TokenStatus | None = None
    deactivated_reason: str | None = None
    usage_limits: _Limits | None = None
    usage_details: _Details | None = None
    next_action: JsonValue = None

    @property
    def expires_at(self) -> datetime | None:
        """Until when it may be charged."""
        ends = self.usage_limits.expires_at if self.usage_limits else None
        return clamped(datetime.fromtimestamp(ends, UTC)) if ends is not None else None

    @property
    def captured(self) -> int | None:
        """What was charged, in minor units."""
        stated = self.usage_details.amount_captured if self.usage_details else None
        if not isinstance(stated, _Captured):
            return stated
        return stated.value if stated.value is not None else stated.amount

    @property
    def is_spent(self) -> bool:
        """Whether it was charged."""
        return bool(self.captured) or self.deactivated_reason == "consumed"

    def next_step(self) -> NextAction | None:
        """Returns the person's next step: ``use_stripe_sdk``, which we ask for, or ``redirect_to_url``."""
        action = self.next_action
        if not isinstance(action, dict):
            return None
        kind = str(action.get("type"))
        inner = action.get(kind)
        return NextAction.model_validate(
            {"type": kind, "url": inner.get("url"), "value": inner.get("value")}
            if isinstance(inner, dict)
            else {"type": kind}
        )


class TokenAnswer(FrozenOpen):
    """A token as the processor states it, and the id of the request that asked."""

    token: IssuedToken
    request_id: str | None


class Tokens:
    """Issues, reads and revokes the tokens of one processor account."""

    def __init__(self, processor: stripe.StripeClient) -> None:
        self._processor = processor

    async def issue(
        self,
        *,
        payment_method: str,
        payee: str,
        external_id: str,
        max_amount: Money,
        expires_at: datetime,
        purchase_id: str,
        key: str,
        with_sdk: bool = False,
    ) -> TokenAnswer:
        """Issues a token for one payee, one currency and at most ``max_amount``, valid until ``expires_at``.

        Args:
            external_id: the payee's own id for what is paid.
            with_sdk: whether Stripe's SDK can lead a person through an authentication.

        Raises:
            stripe.StripeError: The processor issued no token.
            ProcessorUnavailableError: Its answer isn't shaped as documented.
        """
        return await self._ask(
            "post",
            _ISSUED,
            key,
            {
                "payment_method": payment_method,
                "seller_details": {"network_business_profile": payee, "external_id": external_id},
                "usage_limits": {
                    "currency": max_amount.currency,
                    "max_amount": max_amount.amount,
                    "expires_at": int(expires_at.timestamp()),
                },
                "shared_metadata": {"purchase_id": purchase_id},
                **({"use_stripe_sdk": True} if with_sdk else {}),
            },
        )

    async def read(self, token_id: str) -> TokenAnswer:
        """Returns what the processor says of a token."""
        return await self._ask("get", _path(token_id))

    async def revoke(self, token_id: str, *, key: str) -> TokenAnswer:
        """Revokes a token and returns its state afterwards, which tells whether it had been spent."""
        try:
            return await self._ask("post", f"{_path(token_id)}/revoke", key)
        except stripe.InvalidRequestError as error:
            if error.http_status == 409:  # a request with the same key is still in progress
                raise
        # Already deactivated: consumed, expired or revoked. Reading tells which.
        return await self.read(token_id)

    async def _ask(
        self, method: str, path: str, key: str | None = None, parameters: Mapping[str, object] | None = None
    ) -> TokenAnswer:
        keyed = {"idempotency_key": key} if key is not None else {}
        response = await self._processor.raw_request_async(
            method, path, stripe_version=STRIPE_API_VERSION, **(parameters or {}), **keyed
        )
        try:
            token = IssuedToken.model_validate(response.data)
            _ = token.expires_at  # raises if it is out of the calendar's range
        except (ValidationError, ValueError, OverflowError, OSError):
            raise ProcessorUnavailableError(
                "the processor's answer about a payment token isn't shaped as expected"
            ) from None
        headers: Mapping[str, str] = response.headers
        return TokenAnswer(token=token, request_id=headers.get("request-id") or headers.get("Request-Id"))


def _path(token_id: str) -> str:
    return f"{_ISSUED}/{quote(token_id, safe='')}"
