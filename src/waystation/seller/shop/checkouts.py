"""Checkouts and carts: create, read, update, cancel, expire. Completion is in ``completion``."""

import asyncio
import secrets
import time
from contextlib import AbstractAsyncContextManager
from typing import TypedDict, Unpack
from weakref import WeakValueDictionary

from waystation.models.base import replaced
from waystation.protocols import acp
from waystation.protocols.acp import CheckoutStatus
from waystation.seller.shop import pricing
from waystation.seller.shop.charging import Charged, Charging, Void
from waystation.seller.shop.errors import (
    AcpError,
    UnknownItemError,
    UnsupportedCurrencyError,
    conflict,
    not_found,
    payment_unknown,
)
from waystation.seller.shop.merchant import Basket, Merchant, Quote
from waystation.seller.shop.records import CartRecord, Checkout, Payment
from waystation.seller.shop.settings import SellerSettings
from waystation.seller.shop.store import Store


class Changes(TypedDict, total=False):
    """What may change about a checkout."""

    basket: Basket
    quote: Quote
    payment: Payment
    status: CheckoutStatus
    notices: tuple[acp.Message, ...]
    continue_url: str | None
    authentication: acp.AuthenticationMetadata | None
    order_notes: str | None


class Locks:
    """One lock for each checkout, in this process. Between processes the store's versions decide."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, checkout_id: str) -> AbstractAsyncContextManager[None]:
        lock = self._locks.get(checkout_id)
        if lock is None:
            lock = asyncio.Lock()
            self._locks[checkout_id] = lock
        return lock


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


class Checkouts:
    """What agents do with checkouts before they pay."""

    def __init__(
        self, settings: SellerSettings, merchant: Merchant, store: Store, charging: Charging, locks: Locks
    ) -> None:
        self.settings = settings
        self.merchant = merchant
        self.store = store
        self.charging = charging
        self.locks = locks

    async def create(
        self, identity: str, request: acp.CheckoutCreateRequest, older_option: str | None
    ) -> Checkout:
        checkout_id = new_id("cs")
        basket = Basket(
            items=request.line_items,
            checkout_id=checkout_id,
            currency=request.currency or self.settings.currency,
            buyer=request.buyer,
            fulfillment_details=request.fulfillment_details,
            discount_codes=_codes(request.discounts),
            locale=request.locale,
        )
        quote = await self.quoted(basket)
        basket = _with_older_option(basket, quote, older_option)
        now = int(time.time())
        checkout = Checkout(
            id=checkout_id,
            identity=identity,
            status=pricing.open_status(basket, quote),
            basket=basket,
            quote=quote,
            continue_url=quote.continue_url,
            metadata=request.metadata,
            order_notes=request.order_notes,
            created_at=now,
            updated_at=now,
            expires_at=now + self.settings.checkout_lifetime_seconds,
        )
        await self.store.insert_checkout(checkout)
        return checkout

    async def read(self, identity: str, checkout_id: str) -> Checkout:
        """Returns the checkout as it stands, and expires it if it is past its time.

        One that waits for a person at the merchant's page is quoted again: the merchant knows if they came.
        """
        checkout = await self.load(identity, checkout_id)
        if self.is_due(checkout) or _waits_for_quote(checkout):
            async with self.locks.of(checkout_id):
                checkout = await self.expire(await self.load(identity, checkout_id))
                if _waits_for_quote(checkout):
                    checkout = await self._quoted_again(checkout)
        return checkout

    async def _quoted_again(self, checkout: Checkout) -> Checkout:
        quote = await self.quoted(checkout.basket)
        if quote == checkout.quote:
            return checkout
        status = pricing.open_status(checkout.basket, quote)
        return await self.save(checkout, quote=quote, status=status, continue_url=quote.continue_url)

    async def load(self, identity: str, checkout_id: str) -> Checkout:
        checkout = await self.store.checkout(checkout_id)
        if checkout is None or checkout.identity != identity:
            raise not_found("checkout session")
        return checkout

    def is_due(self, checkout: Checkout) -> bool:
        return checkout.status.is_open and checkout.expires_at <= int(time.time())

    async def update(
        self,
        identity: str,
        checkout_id: str,
        request: acp.CheckoutUpdateRequest,
        older_option: str | None,
    ) -> Checkout:
        async with self.locks.of(checkout_id):
            checkout = await self.expire(await self.load(identity, checkout_id))
            if not checkout.status.is_open:
                raise conflict(f"The checkout is {checkout.status.value} and can't be changed any more.")
            basket = _updated(checkout.basket, request)
            quote = await self.quoted(basket)
            basket = _with_older_option(basket, quote, older_option)
            _check_options(request, quote)
            abandoned = checkout.status is CheckoutStatus.AUTHENTICATION_REQUIRED
            payment = checkout.payment
            return await self.save(
                checkout,
                basket=basket,
                quote=quote,
                status=pricing.open_status(basket, quote),
                continue_url=quote.continue_url,
                notices=(),
                authentication=None,
                payment=replaced(payment, abandoned=payment.abandoned or abandoned),
                order_notes=request.order_notes or checkout.order_notes,
            )

    async def cancel(self, identity: str, checkout_id: str) -> Checkout:
        """Cancels a checkout unless it is over. A payment in progress is stopped at the processor first."""
        async with self.locks.of(checkout_id):
            checkout = await self.expire(await self.load(identity, checkout_id))
            if checkout.status.is_terminal:
                raise AcpError(
                    405,
                    "not_cancelable",
                    f"The checkout is {checkout.status.value} and can't be canceled.",
                )
            return await self.close(checkout, CheckoutStatus.CANCELED)

    async def close(self, checkout: Checkout, status: CheckoutStatus) -> Checkout:
        """Ends a checkout without an order, making sure that it can't be charged any more."""
        if checkout.payment.intent_id is not None:
            await self.void_intent(checkout)
        await self.merchant.release(checkout.id)
        return await self.save(checkout, status=status, authentication=None, continue_url=None)

    async def void_intent(self, checkout: Checkout) -> None:
        """Makes sure that the checkout's PaymentIntent is never charged, or refuses to continue."""
        outcome = await self.charging.cancel(checkout)
        if isinstance(outcome, Charged):
            raise conflict("The checkout has just been paid. Complete it again to see its order.")
        if not isinstance(outcome, Void):
            raise payment_unknown()

    async def expire(self, checkout: Checkout) -> Checkout:
        """Returns the checkout, expired if it is past its time. The caller holds its lock."""
        return await self.close(checkout, CheckoutStatus.EXPIRED) if self.is_due(checkout) else checkout

    async def quoted(self, basket: Basket) -> Quote:
        """Returns the merchant's price, its refusals turned into the protocol's errors."""
        try:
            quote = await self.merchant.quote(basket)
        except UnknownItemError as error:
            index = next((i for i, item in enumerate(basket.items) if item.id == error.item_id), 0)
            raise AcpError(
                400, acp.ErrorCode.INVALID_ITEM_ID, str(error), param=f"$.line_items[{index}].item.id"
            ) from None
        except UnsupportedCurrencyError as error:
            raise AcpError(400, "unsupported_currency", str(error), param="$.currency") from None
        pricing.open_status(basket, quote)
        return quote

    async def save(self, checkout: Checkout, **changes: Unpack[Changes]) -> Checkout:
        return await self.store.save_checkout(changed(checkout, **changes))

    # Carts

    async def put_cart(
        self, identity: str, request: acp.CartRequest, cart_id: str | None = None
    ) -> CartRecord:
        """Returns a new cart, or (full replacement) the one with that id."""
        if cart_id is not None:
            await self.read_cart(identity, cart_id)
        basket = Basket(
            items=request.line_items,
            currency=self.settings.currency,
            buyer=request.buyer,
            locale=request.locale,
        )
        cart = CartRecord(
            id=cart_id or new_id("cart"),
            identity=identity,
            basket=basket,
            quote=await self.quoted(basket),
            expires_at=int(time.time()) + self.settings.cart_lifetime_seconds,
        )
        await self.store.save_cart(cart)
        return cart

    async def read_cart(self, identity: str, cart_id: str) -> CartRecord:
        cart = await self.store.cart(cart_id)
        if cart is None or cart.identity != identity:
            raise not_found("cart")
        return cart

    async def cancel_cart(self, identity: str, cart_id: str) -> CartRecord:
        """Returns the cart as it was; afterwards it is gone."""
        cart = await self.read_cart(identity, cart_id)
        await self.store.delete_cart(cart_id)
        return cart


def changed(checkout: Checkout, **changes: Unpack[Changes]) -> Checkout:
    """Returns a changed copy, and checks the status transition against the table."""
    following = replaced(checkout, **changes, updated_at=int(time.time()))
    allowed = acp.TRANSITIONS[checkout.status] | {checkout.status}
    if following.status not in allowed:
        raise ValueError(f"a checkout can't go from {checkout.status} to {following.status}")
    return following


def _waits_for_quote(checkout: Checkout) -> bool:
    """Returns whether it was the merchant's quote that sent a person somewhere, and not its risk hook."""
    sent = checkout.quote.continue_url
    return (
        checkout.status is CheckoutStatus.REQUIRES_ESCALATION
        and sent is not None
        and (sent == checkout.continue_url)
    )


def _codes(request: acp.DiscountsRequest | None) -> tuple[str, ...]:
    """Returns the codes in upper case: they are case-insensitive (discount extension)."""
    codes = request.codes if request and request.codes else ()
    return tuple(dict.fromkeys(code.strip().upper() for code in codes if code.strip()))


def _updated(basket: Basket, request: acp.CheckoutUpdateRequest) -> Basket:
    changes: dict[str, object] = {}
    if request.line_items is not None:
        changes["items"] = request.line_items
    if request.buyer is not None:
        changes["buyer"] = request.buyer
    if request.fulfillment_details is not None:
        changes["fulfillment_details"] = request.fulfillment_details
    if request.selected_fulfillment_options is not None:
        changes["selected_options"] = request.selected_fulfillment_options
    if request.discounts is not None:
        changes["discount_codes"] = _codes(request.discounts)
    return replaced(basket, **changes)


def _with_older_option(basket: Basket, quote: Quote, option_id: str | None) -> Basket:
    option = next((one for one in quote.options if one.id == option_id), None)
    if option is None:
        return basket
    pick = acp.SelectedFulfillmentOption(type=option.type, option_id=option.id, item_ids=())
    return replaced(basket, selected_options=(pick,))


def _check_options(request: acp.CheckoutUpdateRequest, quote: Quote) -> None:
    known = {option.id for option in quote.options}
    for index, pick in enumerate(request.selected_fulfillment_options or ()):
        if pick.option_id not in known:
            raise AcpError(
                400,
                "invalid",
                "There is no such fulfillment option for this checkout.",
                param=f"$.selected_fulfillment_options[{index}].option_id",
            )
