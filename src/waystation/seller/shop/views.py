"""The protocol's view of what the kit keeps: sessions and carts from records. Pure."""

from datetime import UTC, datetime

from waystation.protocols import acp
from waystation.seller.shop import pricing
from waystation.seller.shop.records import CartRecord, Checkout
from waystation.seller.shop.settings import SellerSettings


def rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def session_of(checkout: Checkout, settings: SellerSettings, order: acp.Order | None) -> acp.CheckoutSession:
    """Returns the checkout session to answer with."""
    basket, quote, status = checkout.basket, checkout.quote, checkout.status
    open_messages = () if status.is_terminal else pricing.messages(basket, quote)
    needs_3ds = status is acp.CheckoutStatus.AUTHENTICATION_REQUIRED
    return acp.CheckoutSession(
        id=checkout.id,
        protocol=acp.ProtocolVersion(),
        capabilities=settings.capabilities(),
        buyer=basket.buyer,
        status=status,
        currency=basket.currency,
        locale=basket.locale,
        line_items=pricing.line_items(quote),
        fulfillment_details=basket.fulfillment_details,
        fulfillment_options=pricing.options(quote),
        selected_fulfillment_options=pricing.selection(basket, quote) or None,
        totals=pricing.totals(basket, quote),
        messages=(*open_messages, *checkout.notices),
        links=settings.links,
        authentication_metadata=checkout.authentication if needs_3ds else None,
        created_at=rfc3339(checkout.created_at),
        updated_at=rfc3339(checkout.updated_at),
        expires_at=rfc3339(checkout.expires_at),
        continue_url=checkout.continue_url,
        metadata=checkout.metadata,
        discounts=pricing.discounts(basket, quote),
        order=order,
    )


def cart_of(cart: CartRecord) -> acp.Cart:
    """Returns the cart to answer with; its totals are estimates until checkout."""
    return acp.Cart(
        id=cart.id,
        line_items=pricing.line_items(cart.quote),
        buyer=cart.basket.buyer,
        currency=cart.basket.currency,
        totals=pricing.totals(cart.basket, cart.quote),
        messages=cart.quote.messages,
        expires_at=rfc3339(cart.expires_at),
    )
