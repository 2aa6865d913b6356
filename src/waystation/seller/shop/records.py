"""What the kit keeps: checkouts, orders, carts, webhook deliveries. Times are Unix seconds."""

from typing import Annotated

from pydantic import Field, SecretStr, StrictInt

from waystation.models.base import Frozen, JsonObject
from waystation.models.money import MinorUnits
from waystation.protocols import acp
from waystation.seller.shop.merchant import Basket, Quote


class Payment(Frozen):
    """Where the payment of a checkout stands.

    A checkout has at most one PaymentIntent that can still be charged: a new one (the next ``generation``)
    is made only once the processor has canceled the one before. That, and not the idempotency keys alone, is
    why a checkout can't be charged twice. Tokens are not kept, only which one an attempt used.
    """

    generation: StrictInt = 0
    intent_id: str | None = None
    intent_amount: MinorUnits = 0
    attempt: StrictInt = 0
    token_digest: str | None = None
    abandoned: bool = False
    """The intent must not be confirmed any more: cancel it before the next attempt."""


class Checkout(Frozen):
    """A checkout session as the kit keeps it. ``version`` counts its changes."""

    id: str
    identity: str
    version: StrictInt = 0
    status: acp.CheckoutStatus
    basket: Basket
    quote: Quote
    payment: Payment = Payment()
    notices: tuple[acp.Message, ...] = ()
    """The result of the last attempt to pay."""
    continue_url: str | None = None
    authentication: acp.AuthenticationMetadata | None = None
    metadata: JsonObject | None = None
    order_notes: str | None = None
    order_id: str | None = None
    created_at: StrictInt
    updated_at: StrictInt
    expires_at: StrictInt


class Refund(Frozen):
    """A refund that was made, by the key that the merchant gave it."""

    key: str
    amount: MinorUnits


class OrderRecord(Frozen):
    """An order, and what the kit keeps with it."""

    order: acp.Order
    identity: str
    currency: acp.Currency
    total: MinorUnits
    refunded: MinorUnits = 0
    refunds: tuple[Refund, ...] = ()
    payment_intent_id: str | None = None
    version: StrictInt = 0
    created_at: StrictInt


class CartRecord(Frozen):
    """A cart."""

    id: str
    identity: str
    basket: Basket
    quote: Quote
    expires_at: StrictInt


class WebhookTarget(Frozen):
    """An agent's endpoint for order events, and the secret that signs them."""

    url: acp.WebUrl
    secret: SecretStr


class Delivery(Frozen):
    """An order event for one target. ``id`` is sent as ``Request-Id``, the same for every retry."""

    id: str
    url: str
    order_id: str
    event: str
    body: bytes
    attempts: Annotated[StrictInt, Field(ge=0)] = 0
