"""Activities over shared payment tokens: issue, read, revoke (``waystation.buyer.tokens``)."""

from collections.abc import Awaitable

import stripe
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contract, failures
from activities.contract import PaymentTokenCalls, RevokeToken, TokenRef
from activities.heartbeats import heartbeating
from activities.secrets import check_open, opened, sealed
from waystation.buyer.tokens import ProcessorUnavailableError, TokenAnswer, Tokens
from waystation.models.purchases import IssueToken, PaymentToken
from waystation.redaction import fingerprint
from waystation.temporal.sealing import Vault


class PaymentTokenActivities(PaymentTokenCalls):
    """Calls the payment processor."""

    def __init__(self, client: stripe.StripeClient | None, vault: Vault) -> None:
        self._known = Tokens(client) if client is not None else None
        self._vault = vault

    @property
    def _tokens(self) -> Tokens:
        if self._known is None:
            raise ApplicationError(
                "no payment processor is configured; set WAYSTATION_STRIPE_KEY for the worker",
                "no_processor",
                type=contract.PROCESSOR_REFUSED,
                non_retryable=True,
            )
        return self._known

    @activity.defn
    @heartbeating
    async def issue_payment_token(self, call: IssueToken) -> PaymentToken:
        """Issues a token (``POST /v1/shared_payment/issued_tokens``).

        Raises:
            ApplicationError: ``PaymentMethodDeclined``, ``ProcessorRefused`` or ``ProcessorUnavailable``.
        """
        check_open(self._vault)
        return await self._answered(
            "issue the payment token",
            self._tokens.issue(
                payment_method=call.payment_method,
                payee=call.payee,
                external_id=call.checkout_id,
                max_amount=call.max_amount,
                expires_at=call.expires_at,
                purchase_id=call.purchase_id,
                key=call.idempotency_key,
                with_sdk=True,
            ),
        )

    @activity.defn
    @heartbeating
    async def read_payment_token(self, call: TokenRef) -> PaymentToken:
        """Returns what the processor says of a token (``GET …/{id}``)."""
        token_id = opened(self._vault, call.token.sealed)
        return await self._answered("read the payment token", self._tokens.read(token_id))

    @activity.defn
    @heartbeating
    async def revoke_payment_token(self, call: RevokeToken) -> PaymentToken:
        """Revokes a token; its state afterwards tells whether it had been spent."""
        token_id = opened(self._vault, call.token.sealed)
        return await self._answered(
            "revoke the payment token", self._tokens.revoke(token_id, key=call.idempotency_key)
        )

    async def _answered(self, what: str, asked: Awaitable[TokenAnswer]) -> PaymentToken:
        try:
            answer = await asked
        except stripe.StripeError as error:
            raise failures.processor_error(error, what) from None
        except ProcessorUnavailableError as error:
            raise ApplicationError(str(error), type=contract.PROCESSOR_UNAVAILABLE) from None
        token = answer.token
        return PaymentToken(
            sealed=sealed(self._vault, token.id),
            fingerprint=fingerprint(token.id),
            status=token.status or "unknown",
            deactivated_reason=token.deactivated_reason,
            expires_at=token.expires_at,
            next_action=token.next_step(),
            captured=token.captured,
            request_id=answer.request_id,
        )
