"""Completing a checkout: at most one charge, and an order if and only if there was one.

The steps, each recorded before the next one begins:

1. price again; if the total has changed since the agent saw it, say so and charge nothing
2. read the token's facts, ask the merchant's risk hook, reserve the goods
3. create the PaymentIntent (no money moves), record it with the attempt: ``complete_in_progress``
4. confirm it: the one call that charges
5. order, completed checkout and webhook event, in one transaction

Whatever crashes in between, the recorded PaymentIntent shows what happened: it was charged (step 5 follows),
or it was not and is canceled at the processor before anything else is tried.
"""

import time
from typing import Final

from pydantic import SecretStr

from waystation.models.base import replaced
from waystation.protocols import acp
from waystation.protocols.acp import (
    CheckoutStatus,
    ErrorCode,
    MessageError,
    MessageErrorCode,
    MessageWarning,
    MessageWarningCode,
)
from waystation.seller.shop import pricing
from waystation.seller.shop.charging import (
    AuthenticationNeeded,
    Charged,
    Declined,
    NotPaid,
    Outcome,
    token_digest,
)
from waystation.seller.shop.checkouts import Checkouts, changed
from waystation.seller.shop.errors import (
    AcpError,
    OrderRefusedError,
    OutOfStockError,
    conflict,
    payment_unknown,
)
from waystation.seller.shop.merchant import NewOrder, RiskDecision
from waystation.seller.shop.orders import new_order, order_id_of
from waystation.seller.shop.records import Checkout, Payment
from waystation.seller.shop.webhooks import deliveries_of

DIRECTORY_SERVERS: Final = {"amex": "american_express", "mastercard": "mastercard"}


class Completion:
    """Payments and what follows them."""

    def __init__(self, checkouts: Checkouts) -> None:
        self.checkouts = checkouts
        self.settings = checkouts.settings
        self.merchant = checkouts.merchant
        self.store = checkouts.store
        self.charging = checkouts.charging

    async def complete(
        self, identity: str, checkout_id: str, request: acp.CheckoutCompleteRequest
    ) -> Checkout:
        async with self.checkouts.locks.of(checkout_id):
            checkout = await self.checkouts.expire(await self.checkouts.load(identity, checkout_id))
            token = _token(request)
            if checkout.status.is_completing:
                same_attempt = checkout.payment.token_digest == token_digest(token)
                checkout = await self.settle_begun(checkout, token)
                if same_attempt and not _can_go_on(checkout, request):
                    return checkout
            if checkout.status is CheckoutStatus.COMPLETED:
                return checkout
            if checkout.status.is_terminal:
                raise conflict(f"The checkout is {checkout.status.value} and can't be completed.")
            if checkout.status is CheckoutStatus.AUTHENTICATION_REQUIRED:
                return await self._after_authentication(checkout, token, request)
            return await self._pay(checkout, token, request)

    # The first attempt and further ones

    async def _pay(
        self, checkout: Checkout, token: SecretStr, request: acp.CheckoutCompleteRequest
    ) -> Checkout:
        checkout, payable = await self._priced_again(checkout, request)
        if not payable:
            return checkout
        amount = pricing.total_amount(checkout.basket, checkout.quote)
        if amount == 0:
            return await self._order(checkout, None)
        facts = await self.charging.facts(checkout, amount, token, request)
        if isinstance(facts, Declined):
            return await self._declined(checkout, facts.reason)
        decision = await self.merchant.assess(facts)
        if not decision.allowed:
            return await self._refused(checkout, decision)
        try:
            await self.merchant.reserve(checkout.id, checkout.basket)
        except OutOfStockError as error:
            return await self._out_of_stock(checkout, error)
        checkout = await self._begun(checkout, amount, token)
        return await self._settle(checkout, await self.charging.confirm(checkout, token, _proof(request)))

    async def _priced_again(
        self, checkout: Checkout, request: acp.CheckoutCompleteRequest
    ) -> tuple[Checkout, bool]:
        """Returns the checkout at today's prices, and whether it may be charged for what the agent has seen.

        It is saved only if it may not be charged: otherwise the attempt, recorded next, saves it.
        """
        seen = pricing.total_amount(checkout.basket, checkout.quote)
        basket = checkout.basket
        if request.buyer is not None:
            basket = replaced(basket, buyer=request.buyer)
        quote = await self.checkouts.quoted(basket)
        now = pricing.total_amount(basket, quote)
        notices: tuple[acp.Message, ...] = ()
        if now != seen:
            content = (
                "The price has changed since it was last shown. Nothing was charged; look at the new total."
            )
            notices = (
                MessageWarning(
                    code=MessageWarningCode.PRICE_CHANGE,
                    param="$.totals",
                    content=content,
                    resolution="requires_buyer_review",
                ),
            )
        status = pricing.open_status(basket, quote)
        checkout = changed(
            checkout,
            basket=basket,
            quote=quote,
            status=status,
            notices=notices,
            continue_url=quote.continue_url,
            order_notes=request.order_notes or checkout.order_notes,
        )
        if status is CheckoutStatus.READY_FOR_PAYMENT and now == seen:
            return checkout, True
        return await self.store.save_checkout(checkout), False

    async def _begun(self, checkout: Checkout, amount: int, token: SecretStr) -> Checkout:
        """Records the attempt with its PaymentIntent before it is made."""
        payment = checkout.payment
        if payment.intent_id is not None and (payment.abandoned or payment.intent_amount != amount):
            await self.checkouts.void_intent(checkout)
            payment = Payment(generation=payment.generation + 1)
            checkout = replaced(checkout, payment=payment)
        intent_id = payment.intent_id or await self.charging.open_intent(checkout, amount)
        payment = replaced(
            payment,
            intent_id=intent_id,
            intent_amount=amount,
            attempt=payment.attempt + 1,
            token_digest=token_digest(token),
        )
        return await self.checkouts.save(
            checkout, status=CheckoutStatus.COMPLETE_IN_PROGRESS, payment=payment, notices=()
        )

    async def _after_authentication(
        self, checkout: Checkout, token: SecretStr, request: acp.CheckoutCompleteRequest
    ) -> Checkout:
        result = request.authentication_result
        if token_digest(token) != checkout.payment.token_digest:
            return await self._pay(_abandoned(checkout), token, request)
        if result is None:
            raise AcpError(
                400,
                ErrorCode.REQUIRES_3DS,
                "This checkout session requires issuer authentication: send 'authentication_result'.",
                param="$.authentication_result",
            )
        if not result.outcome.allows_payment:
            reason = f"The authentication ended as '{result.outcome.value}'."
            return await self._declined(_abandoned(checkout), reason)
        payment = replaced(checkout.payment, attempt=checkout.payment.attempt + 1)
        checkout = await self.checkouts.save(
            checkout, status=CheckoutStatus.COMPLETE_IN_PROGRESS, payment=payment, notices=()
        )
        # The intent holds the payment method that was authenticated.
        outcome = await self.charging.confirm(checkout, None, result.outcome_details)
        return await self._settle(checkout, outcome)

    # Outcomes

    async def settle_begun(self, checkout: Checkout, token: SecretStr | None) -> Checkout:
        """Settles an attempt whose outcome nobody heard. The caller holds the lock.

        With the attempt's own token it is asked again under its own key, which either finds the outcome or
        finishes the attempt. Without it, the intent is canceled, unless it was charged.
        """
        payment = checkout.payment
        if payment.intent_id is None:
            raise payment_unknown()
        outcome = await self.charging.look(payment.intent_id)
        if isinstance(outcome, NotPaid):
            if token is not None and token_digest(token) == payment.token_digest:
                outcome = await self.charging.confirm(checkout, token, None)
            else:
                outcome = await self.charging.cancel(checkout)
        return await self._settle(checkout, outcome)

    async def _settle(self, checkout: Checkout, outcome: Outcome) -> Checkout:
        if isinstance(outcome, Charged):
            return await self._order(checkout, outcome)
        if isinstance(outcome, AuthenticationNeeded):
            return await self._authentication_needed(checkout, outcome)
        if isinstance(outcome, Declined):
            return await self._declined(checkout, outcome.reason)
        if isinstance(outcome, NotPaid):
            # Confirmed, yet neither charged nor declined: only the processor can tell, later.
            raise payment_unknown()
        # Void: the intent will never be charged, so the next attempt begins with a new one.
        payment = Payment(generation=checkout.payment.generation + 1)
        checkout = replaced(checkout, payment=payment)
        return await self._declined(checkout, "The payment was interrupted. Nothing was charged; try again.")

    async def _order(self, checkout: Checkout, charged: Charged | None) -> Checkout:
        total = pricing.total_amount(checkout.basket, checkout.quote)
        intent_id = charged.intent_id if charged else None
        wanted = NewOrder(
            order_id=order_id_of(checkout.id),
            checkout_id=checkout.id,
            basket=checkout.basket,
            quote=checkout.quote,
            total=total,
            payment_intent_id=intent_id,
            order_notes=checkout.order_notes,
        )
        try:
            placed = await self.merchant.place_order(wanted)
        except OrderRefusedError as error:
            return await self._refunded(checkout, charged, str(error))
        now = int(time.time())
        order = new_order(checkout, placed, intent_id, now)
        completed = replaced(
            checkout,
            status=CheckoutStatus.COMPLETED,
            order_id=order.order.id,
            notices=(),
            authentication=None,
            continue_url=None,
            updated_at=now,
        )
        event = deliveries_of(acp.OrderEvent.ORDER_CREATE, order.order, self.settings.webhooks)
        return await self.store.complete(completed, order, event)

    async def _refunded(self, checkout: Checkout, charged: Charged | None, reason: str) -> Checkout:
        """Refunds a paid checkout that will have no order."""
        if charged is not None:
            await self.charging.refund(charged.intent_id, charged.amount, f"{checkout.id}:refund")
        await self.merchant.release(checkout.id)
        content = f"The seller can't take the order: {reason} The payment was refunded."
        return await self.checkouts.save(
            checkout,
            status=CheckoutStatus.CANCELED,
            notices=(MessageError(code=MessageErrorCode.CONFLICT, content=content),),
        )

    async def _declined(self, checkout: Checkout, reason: str) -> Checkout:
        """Releases the goods after a decline. Nothing was charged, and the agent may try again."""
        await self.merchant.release(checkout.id)
        notice = MessageError(
            code=MessageErrorCode.PAYMENT_DECLINED,
            param="$.payment_data",
            content=reason,
            resolution="recoverable",
        )
        return await self.checkouts.save(
            checkout, status=CheckoutStatus.READY_FOR_PAYMENT, notices=(notice,), authentication=None
        )

    async def _refused(self, checkout: Checkout, decision: RiskDecision) -> Checkout:
        """Ends an attempt that the merchant's risk hook refused, or sends a person to the merchant first."""
        if decision.continue_url is None:
            return await self._declined(checkout, decision.reason or "The seller refused this payment.")
        notice = MessageError(
            code=MessageErrorCode.INTERVENTION_REQUIRED,
            content=decision.reason or "The seller needs a person to continue.",
            resolution="requires_buyer_input",
        )
        return await self.checkouts.save(
            checkout,
            status=CheckoutStatus.REQUIRES_ESCALATION,
            continue_url=decision.continue_url,
            notices=(notice,),
        )

    async def _out_of_stock(self, checkout: Checkout, error: OutOfStockError) -> Checkout:
        await self.merchant.release(checkout.id)
        quote = await self.checkouts.quoted(checkout.basket)
        notice = MessageError(
            code=MessageErrorCode.OUT_OF_STOCK,
            param="$.line_items",
            content=str(error),
            resolution="recoverable",
        )
        return await self.checkouts.save(
            checkout, quote=quote, status=CheckoutStatus.NOT_READY_FOR_PAYMENT, notices=(notice,)
        )

    async def _authentication_needed(self, checkout: Checkout, outcome: AuthenticationNeeded) -> Checkout:
        server = _directory_server(outcome.card_brand)
        metadata = acp.AuthenticationMetadata.model_validate(
            {
                "acquirer_details": self.settings.acquirer.wire(),
                "directory_server": server,
                "flow_preference": {"type": "challenge", "challenge": {"type": "mandated"}},
            }
        )
        return await self.checkouts.save(
            checkout, status=CheckoutStatus.AUTHENTICATION_REQUIRED, authentication=metadata, notices=()
        )


def _directory_server(card_brand: str | None) -> str:
    return "visa" if card_brand is None else DIRECTORY_SERVERS.get(card_brand, "visa")


def _abandoned(checkout: Checkout) -> Checkout:
    """Returns the checkout, its PaymentIntent to be canceled before the next attempt."""
    payment = replaced(checkout.payment, abandoned=True)
    return replaced(checkout, payment=payment)


def _proof(request: acp.CheckoutCompleteRequest) -> acp.AuthenticationOutcomeDetails | None:
    """Returns the proof of an authentication that the agent's side has already made."""
    result = request.authentication_result
    return result.outcome_details if result is not None and result.outcome.allows_payment else None


def _can_go_on(checkout: Checkout, request: acp.CheckoutCompleteRequest) -> bool:
    """Returns whether a retried request has more to say than the attempt that it has just settled."""
    waiting = checkout.status is CheckoutStatus.AUTHENTICATION_REQUIRED
    return waiting and request.authentication_result is not None


def _token(request: acp.CheckoutCompleteRequest) -> SecretStr:
    instrument = request.payment_data.instrument
    if instrument is None:
        raise AcpError(
            400, "missing", "payment_data.instrument is required.", param="$.payment_data.instrument"
        )
    if instrument.credential.type != "spt":
        raise AcpError(
            400,
            "unsupported",
            "This seller takes shared payment tokens: credential.type must be 'spt'.",
            param="$.payment_data.instrument.credential.type",
        )
    return instrument.credential.token
