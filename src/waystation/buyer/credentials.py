"""Payment credentials for HTTP 402: mints one for exactly one offer, and finds out what became of it.

Minting is deterministic: the same call returns the same token (by the processor's idempotency key) or the
same signature (its nonce comes from the key), so a repeat can't pay twice. The processor or the chain,
never the server, is asked whether money moved.
"""

from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import stripe
from pydantic import SecretStr

from waystation.buyer.chain import ChainUnavailableError
from waystation.buyer.http import now
from waystation.buyer.tokens import ProcessorUnavailableError, Tokens
from waystation.errors import WaystationError
from waystation.models.payments import (
    ClosedCredential,
    HeaderPair,
    MintCall,
    MintedCredential,
    Offer,
    PaidHttpRequest,
    ProbeAnswer,
    Rail,
)
from waystation.protocols import http402
from waystation.protocols.http402 import WireError
from waystation.redaction import fingerprint
from waystation.settings import Settings
from waystation.stripe_http import open_stripe

if TYPE_CHECKING:
    from waystation.buyer.wallet import Wallet

CHAIN_MARGIN_SECONDS: Final = 60
"""An expired authorization may still be in a block that we don't see yet."""


class NotMintedError(WaystationError):
    """This side can't pay the offer, and no credential exists. ``rule`` is stable."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Credentials:
    """Mints and closes credentials, by card through the processor and in tokens through the wallet."""

    def __init__(self, *, processor: stripe.StripeClient | None, wallet: "Wallet | None") -> None:
        """Without ``processor``, nothing is paid by card; without ``wallet``, nothing in tokens."""
        self._tokens = Tokens(processor) if processor is not None else None
        self._wallet = wallet

    @property
    def can_pay(self) -> bool:
        """Whether anything can be paid at all."""
        return self._tokens is not None or self._wallet is not None

    def read_offers(
        self, request: PaidHttpRequest, headers: tuple[HeaderPair, ...], *, at: datetime
    ) -> ProbeAnswer:
        """Returns the offers of a 402 answer that this side could pay, and why it can't pay the others."""
        parsed = http402.parse_offers(headers, now=at)
        usable, unusable = [], list(parsed.refused)
        for offer in parsed.offers:
            reason = self._cannot_pay(offer)
            if reason is None:
                usable.append(offer)
                if len(usable) == http402.MAX_OFFERS:
                    break
            else:
                unusable.append(f"{offer.rail}: {reason}")
        return ProbeAnswer(request=request, offers=tuple(usable), unusable=tuple(unusable))

    def _cannot_pay(self, offer: Offer) -> str | None:
        if offer.rail is Rail.MPP_STRIPE:
            return None if self._tokens is not None else "no payment processor is configured"
        if self._wallet is None:
            return "no wallet is configured"
        return None if self._wallet.can_pay(offer) else f"the wallet may not spend {offer.price.currency}"

    async def mint(self, call: MintCall) -> MintedCredential:
        """Issues a token or signs an authorization for exactly this offer. Sends nothing to the server.

        Raises:
            NotMintedError: This side can't pay the offer; final.
            stripe.StripeError: The processor issued no token.
        """
        if call.offer.rail is Rail.MPP_STRIPE:
            return await self._issue(call)
        if self._wallet is None:
            raise NotMintedError("no_wallet", "no wallet is configured; set WAYSTATION_WALLET_KEYSTORE")
        try:
            return self._wallet.mint(call.offer, key=call.key, now=call.at)
        except WireError as error:
            raise NotMintedError("wallet_refused", str(error)) from None

    async def _issue(self, call: MintCall) -> MintedCredential:
        if self._tokens is None:
            raise NotMintedError("no_processor", "no payment processor is configured")
        if call.payment_method is None:
            raise NotMintedError("no_payment_method", "the mandate names no payment method to pay from")
        answer = await self._tokens.issue(
            payment_method=call.payment_method,
            payee=call.offer.payee,
            external_id=call.offer.challenge_id,
            max_amount=call.offer.price,
            expires_at=call.expires_at,
            purchase_id=call.payment_id,
            key=call.key,
        )
        token = answer.token
        value = http402.stripe_credential(call.offer.wire, token.id)
        return MintedCredential(
            header=http402.credential_header(call.offer.wire),
            value=SecretStr(value),
            fingerprint=fingerprint(value),
            token_id=SecretStr(token.id),
            valid_before=token.expires_at or call.expires_at,
        )

    async def close(self, offer: Offer, credential: MintedCredential, *, key: str) -> ClosedCredential:
        """Asks the processor or the chain what became of a credential, and revokes an unused token.

        Raises:
            ProcessorUnavailableError, stripe.StripeError: There was no clear answer.
        """
        if offer.rail is Rail.MPP_STRIPE:
            return await self._close_token(credential, key)
        return await self._close_authorization(offer, credential)

    async def _close_token(self, credential: MintedCredential, key: str) -> ClosedCredential:
        if self._tokens is None or credential.token_id is None:
            return ClosedCredential(money_moved="unknown", source="nobody")
        token_id = credential.token_id.get_secret_value()
        token = (await self._tokens.read(token_id)).token
        if token.status != "deactivated":
            token = (await self._tokens.revoke(token_id, key=f"{key}:revoke")).token
        if token.is_spent:
            return ClosedCredential(money_moved="yes", amount=token.captured, source="processor")
        if token.status != "deactivated":
            raise ProcessorUnavailableError("the token is still active after its revocation")
        return ClosedCredential(money_moved="no", source="processor")

    async def authorization_was_used(self, offer: Offer, *, key: str) -> bool | None:
        """Returns whether the signature made for ``key`` has moved money; None if nobody can tell.

        Raises:
            ProcessorUnavailableError: The chain's endpoint doesn't answer.
        """
        if self._wallet is None:
            return None
        try:
            return await self._wallet.was_used(
                offer.price.currency, self._wallet.address, self._wallet.nonce(offer, key)
            )
        except ChainUnavailableError as error:
            raise ProcessorUnavailableError(str(error)) from None

    async def _close_authorization(self, offer: Offer, credential: MintedCredential) -> ClosedCredential:
        if self._wallet is None or credential.nonce is None or credential.payer is None:
            return ClosedCredential(money_moved="unknown", source="nobody")
        try:
            used = await self._wallet.was_used(offer.price.currency, credential.payer, credential.nonce)
        except ChainUnavailableError as error:
            raise ProcessorUnavailableError(str(error)) from None
        if used is None:
            return ClosedCredential(money_moved="unknown", source="nobody")
        if used:
            return ClosedCredential(money_moved="yes", amount=offer.price.amount, source="chain")
        end = credential.valid_before
        over = end is not None and now() > end + timedelta(seconds=CHAIN_MARGIN_SECONDS)
        return ClosedCredential(money_moved="no" if over else "unknown", source="chain")


async def open_credentials(settings: Settings, resources: AsyncExitStack) -> Credentials:
    """Opens whatever the settings provide to pay with; ``resources`` closes it.

    The wallet's libraries are loaded only if there is a wallet.
    """
    processor, money = None, settings.money
    if money.stripe_key is not None:
        processor, connections = open_stripe(
            money.stripe_key.get_secret_value(), api_base=money.stripe_api_base
        )
        resources.push_async_callback(connections.close_async)
    wallet = None
    if settings.wallet.keystore is not None or settings.wallet.private_key is not None:
        from waystation.buyer.wallet import Wallet

        if (wallet := Wallet.from_settings(settings.wallet)) is not None:
            resources.push_async_callback(wallet.close)
    return Credentials(processor=processor, wallet=wallet)
