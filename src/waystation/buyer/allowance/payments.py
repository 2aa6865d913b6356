"""The steps of one payment within an allowance, for its holder and for the worker's activity alike.

Choose an offer, mint its credential, send the request, close the credential. The holder journals
between the steps and has its own retries; the activity runs them in one go and is safe to run again.
Keys and choice are made here alone, so that both make the same credential from the same payment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from waystation.buyer.credentials import Credentials
from waystation.buyer.http import PaidHttp
from waystation.buyer.offer_choice import OfferRefused, choose_offer
from waystation.buyer.outcomes import allowance_answer
from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    ClosedCredential,
    HeaderPair,
    MintCall,
    MintedCredential,
    Offer,
    PaidHttpRequest,
    PaymentRefusal,
    Rail,
    RedeemAnswer,
)


@dataclass(frozen=True)
class PaymentLimits:
    """What one payment may cost, on which rails, and to whom it may go."""

    max_price: Money
    rails: Sequence[Rail]
    expected_payee: str | None


def mint_key(payment_id: str) -> str:
    """Returns the idempotency key of a payment's credential; a signature's nonce comes from it too."""
    return f"{payment_id}:mint"


def mint_call(
    offer: Offer, *, payment_id: str, at: datetime, expires_at: datetime, payment_method: str | None
) -> MintCall:
    """Returns the call that mints a payment's credential: the same arguments make the same credential."""
    return MintCall(
        offer=offer,
        payment_id=payment_id,
        key=mint_key(payment_id),
        at=at,
        expires_at=expires_at,
        payment_method=payment_method,
    )


class PaymentSteps:
    """Takes the steps of payments within one allowance; the caller keeps their order."""

    def __init__(self, http: PaidHttp, credentials: Credentials, *, owner: str) -> None:
        """Large answers are kept for ``owner``, the allowance's workflow."""
        self._http, self._credentials, self._owner = http, credentials, owner

    def choose(
        self,
        request: PaidHttpRequest,
        first_answer: tuple[HeaderPair, ...],
        limits: PaymentLimits,
        *,
        at: datetime,
    ) -> Offer | AllowanceAnswer:
        """Returns the offer to take, or the refusal if none will be paid."""
        probed = self._credentials.read_offers(request, first_answer, at=at)
        try:
            return choose_offer(
                probed.offers,
                unusable=probed.unusable,
                max_price=limits.max_price,
                rails=limits.rails,
                expected_payee=limits.expected_payee,
            )
        except OfferRefused as refused:
            refusal = PaymentRefusal(rule=refused.rule, message=str(refused))
            return AllowanceAnswer(money_moved="no", refusal=refusal)

    async def mint(self, call: MintCall) -> MintedCredential:
        """Issues a token or signs an authorization for exactly the offer. Sends nothing to the server."""
        return await self._credentials.mint(call)

    async def send(
        self, request: PaidHttpRequest, call: MintCall, credential: MintedCredential
    ) -> RedeemAnswer:
        """Sends the request with its credential; a repeat sends the same one.

        Raises:
            ServerUnavailableError: no answer came; money may have moved.
        """
        return await self._http.send(
            request, call.offer, credential, key=f"{call.payment_id}:request", owner=self._owner
        )

    async def ask(self, call: MintCall, credential: MintedCredential) -> ClosedCredential:
        """Asks the processor or the chain whether money moved, and revokes an unused token."""
        return await self._credentials.close(call.offer, credential, key=call.payment_id)

    async def close(
        self, call: MintCall, credential: MintedCredential, redeemed: RedeemAnswer | None
    ) -> AllowanceAnswer:
        """Returns what a payment came to, by the word of processor or chain."""
        return allowance_answer(call.offer, credential, redeemed, await self.ask(call, credential))

    async def authorization_was_used(self, offer: Offer, payment_id: str) -> bool | None:
        """Returns whether the signature for a payment was used on chain; ``None`` where nobody can tell."""
        return await self._credentials.authorization_was_used(offer, key=mint_key(payment_id))
