"""The sandbox shop: an ordinary merchant on the seller kit, with switches that make it misbehave.

In addition to the protocol's routes: ``/sandbox/troubles`` (see ``waystation.sandbox.troubles``),
``/sandbox/behaviour`` (``Behaviour``: wrong statements, overcharging, crashes), ``/sandbox/state`` (sales
and reservations), ``/sandbox/stock``, ``/sandbox/orders/{id}/ship|deliver|refund`` and ``/age-check``, the
page that a person visits to buy wine.

    python -m waystation.sandbox.shop --port 8491 --data .waystation/shop --processor http://127.0.0.1:8490
"""

import argparse
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlencode

import stripe
from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import Field, SecretStr, ValidationError

from waystation.models.base import Frozen, JsonObject, replaced
from waystation.protocols import acp
from waystation.sandbox.catalog import (
    CODES,
    DIGITAL_TAX_STATES,
    GOODS,
    TAX_BASIS_POINTS,
    Good,
    Stockroom,
    share,
)
from waystation.sandbox.ledger import Json, account_of_key, profile_of_account
from waystation.sandbox.serving import serve
from waystation.sandbox.troubles import TroubleMiddleware, Troubles
from waystation.seller import (
    Basket,
    Merchant,
    NewOrder,
    PaymentFacts,
    PlacedOrder,
    Quote,
    QuotedDiscount,
    QuotedLine,
    QuotedOption,
    RiskDecision,
    Seller,
    SellerSettings,
    SqliteStore,
    UnknownItemError,
    UnsupportedCurrencyError,
    WebhookTarget,
)
from waystation.seller.shop.charging import Charged, Charging, Outcome
from waystation.seller.shop.errors import AcpError
from waystation.seller.shop.records import Checkout
from waystation.seller.shop.views import rfc3339

DAY_SECONDS: Final = 86_400
MAX_FACTS_KEPT: Final = 100
STANDARD_SHIPPING: Final = 500
EXPRESS_SHIPPING: Final = 1_500
CURRENCY: Final = "usd"
DEFAULT_API_KEY: Final = "sandbox-agent-key"
DEFAULT_STRIPE_KEY: Final = "sk_test_shop"


class Behaviour(Frozen):
    """How the shop misbehaves: not at all by default. A new behaviour replaces the old one."""

    raise_prices_by: int = Field(default=0, ge=0)
    """Minor units on every unit price: a price change after approval."""
    overcharge_by: int = Field(default=0, ge=0)
    """Charge that much more than the session says."""
    charge_twice: bool = False
    """Charge the same token a second time after a success."""
    tamper: Literal["none", "total", "currency", "quantity", "missing_totals", "amount_as_text"] = "none"
    """What is wrong in every session that is answered."""
    injected_text: str = Field(default="", max_length=1_000)
    """Text put into every title and description, to catch agents that follow it as an instruction."""
    die_in: Literal["none", "reserve", "place_order"] = "none"
    """Kills the shop: before the charge (reserve), or after it and before its order is recorded."""


class Shop(Merchant):
    """The merchant's own code: catalog, prices, stock, orders."""

    def __init__(self, stock: Stockroom, base_url: str) -> None:
        self.stock = stock
        self.base_url = base_url
        self.behaviour = Behaviour()
        self.seen_facts: deque[PaymentFacts] = deque(maxlen=MAX_FACTS_KEPT)

    async def products(self) -> Sequence[acp.FeedProduct]:
        by_product: dict[str, list[Good]] = {}
        for good in GOODS.values():
            by_product.setdefault(good.product_id, []).append(good)
        return [
            acp.FeedProduct(
                id=product_id,
                title=self._told(goods[0].title.partition(",")[0]),
                description=acp.FeedDescription(plain=self._told(goods[0].description)),
                variants=tuple(self._variant(good) for good in goods),
            )
            for product_id, goods in by_product.items()
        ]

    def _variant(self, good: Good) -> acp.FeedVariant:
        left = self.stock.available(good.id)
        sold_out = left is not None and left == 0
        return acp.FeedVariant(
            id=good.id,
            title=self._told(good.title),
            description=acp.FeedDescription(plain=self._told(good.description)),
            url=f"{self.base_url}/products/{good.id}",
            price=acp.FeedPrice(amount=self._unit_amount(good), currency=CURRENCY.upper()),
            availability=acp.FeedAvailability(
                available=not sold_out, status="out_of_stock" if sold_out else "in_stock"
            ),
            categories=(acp.FeedCategory(value="digital" if good.kind == "digital" else "physical"),),
            variant_options=tuple(acp.VariantOption(name=n, value=v) for n, v in good.options.items())
            or None,
            seller=acp.FeedSeller(name="Harbour Goods"),
        )

    def _told(self, text: str) -> str:
        return f"{text} {self.behaviour.injected_text}".rstrip()

    def _unit_amount(self, good: Good) -> int:
        return good.unit_amount + self.behaviour.raise_prices_by

    async def quote(self, basket: Basket) -> Quote:
        if basket.currency != CURRENCY:
            raise UnsupportedCurrencyError(f"This shop sells in {CURRENCY} only.")
        applied, rejected = self._codes(basket)
        percent = sum(CODES[code].percent for code in applied)
        lines = tuple(self._line(item, basket, percent) for item in _merged(basket.items))
        discounts = tuple(self._discount(code, lines) for code in applied)
        return Quote(
            lines=lines,
            options=_options(lines, basket.address),
            discounts=discounts,
            rejected_codes=tuple(rejected),
            continue_url=self._age_check(basket),
        )

    def _line(self, item: acp.RequestedItem, basket: Basket, percent: int) -> QuotedLine:
        good = _good(item.id)
        base = self._unit_amount(good) * item.quantity
        discount = share(base, percent * 100)
        state = basket.address.state if basket.address else ""
        rate = TAX_BASIS_POINTS.get(state, 0)
        if good.kind == "digital" and state not in DIGITAL_TAX_STATES:
            rate = 0
        return QuotedLine(
            item_id=good.id,
            name=self._told(good.title),
            description=self._told(good.description),
            quantity=item.quantity,
            unit_amount=self._unit_amount(good),
            discount=discount,
            tax=share(base - discount, rate),
            fulfilled_by=good.kind,
            available_quantity=self.stock.available(good.id, basket.checkout_id),
            max_quantity=good.max_quantity,
            attributes=good.options,
        )

    def _codes(self, basket: Basket) -> tuple[list[str], list[acp.RejectedDiscount]]:
        goods = sum(self._unit_amount(_good(item.id)) * item.quantity for item in basket.items)
        applied: list[str] = []
        rejected: list[acp.RejectedDiscount] = []
        for code in basket.discount_codes:
            reason = self._refusal(code, goods, applied)
            if reason is None:
                applied.append(code)
            else:
                rejected.append(acp.RejectedDiscount(code=code, reason=reason))
        return applied, rejected

    def _refusal(self, code: str, goods: int, applied: list[str]) -> acp.DiscountErrorCode | None:
        known = CODES.get(code)
        if known is None:
            return acp.DiscountErrorCode.INVALID
        if known.expired:
            return acp.DiscountErrorCode.EXPIRED
        if known.uses is not None and self.stock.uses(code) >= known.uses:
            return acp.DiscountErrorCode.USAGE_LIMIT_REACHED
        if goods < known.minimum:
            return acp.DiscountErrorCode.MINIMUM_NOT_MET
        if applied:
            return acp.DiscountErrorCode.COMBINATION_DISALLOWED
        return None

    def _discount(self, code: str, lines: Sequence[QuotedLine]) -> QuotedDiscount:
        known = CODES[code]
        if known.percent:
            coupon = acp.Coupon(id=f"coupon_{code.lower()}", name=known.name, percent_off=known.percent)
            return QuotedDiscount(
                code=code, coupon=coupon, amount=sum(line.discount for line in lines), per_line=True
            )
        coupon = acp.Coupon(
            id=f"coupon_{code.lower()}", name=known.name, amount_off=known.amount, currency=CURRENCY
        )
        return QuotedDiscount(code=code, coupon=coupon, amount=known.amount)

    def _age_check(self, basket: Basket) -> str | None:
        if not any(_good(item.id).adults_only for item in basket.items) or basket.buyer is None:
            return None
        if self.stock.is_adult(basket.buyer.email):
            return None
        return f"{self.base_url}/age-check?{urlencode({'email': basket.buyer.email})}"

    async def reserve(self, checkout_id: str, basket: Basket) -> None:
        self.stock.reserve(checkout_id, _merged(basket.items))
        self._maybe_die("reserve")

    async def release(self, checkout_id: str) -> None:
        self.stock.release(checkout_id)

    async def assess(self, facts: PaymentFacts) -> RiskDecision:
        """Refuses payments that the processor recommends to block."""
        self.seen_facts.append(facts)
        blocked = [name for name, one in facts.insights.items() if one.recommended_action == "block"]
        if blocked:
            return RiskDecision.refuse("The seller's risk check refused this payment. Use another card.")
        return RiskDecision.accept()

    async def place_order(self, order: NewOrder) -> PlacedOrder:
        self._maybe_die("place_order")
        applied = tuple(one.code for one in order.quote.discounts if one.code)
        number = self.stock.sell(
            order.order_id, order.checkout_id, order.total, order.payment_intent_id, applied
        )
        page = f"{self.base_url}/orders/{order.order_id}"
        downloads = tuple(
            acp.Fulfillment(
                id=f"ful_{index + 1}",
                type="digital",
                status="delivered",
                line_items=(acp.LineItemReference(id=f"li_{index + 1}", quantity=line.quantity),),
                digital_delivery=acp.DigitalDelivery(access_url=f"{page}/download/{line.item_id}"),
            )
            for index, line in enumerate(order.quote.lines)
            if line.fulfilled_by == "digital"
        )
        only_digital = len(downloads) == len(order.quote.lines)
        return PlacedOrder(
            permalink_url=page,
            order_number=f"#{number}",
            status="delivered" if only_digital else "created",
            fulfillments=downloads,
            support=acp.Support(email="help@harbour-goods.example"),
        )

    def _maybe_die(self, where: str) -> None:
        if self.behaviour.die_in == where:
            os.kill(os.getpid(), signal.SIGKILL)


def _good(item_id: str) -> Good:
    good = GOODS.get(item_id)
    if good is None:
        raise UnknownItemError(item_id)
    return good


def _merged(items: Sequence[acp.RequestedItem]) -> tuple[acp.RequestedItem, ...]:
    """Returns one position for each item, even if it was requested twice."""
    quantities: dict[str, int] = {}
    for item in items:
        quantities[item.id] = quantities.get(item.id, 0) + item.quantity
    return tuple(
        acp.RequestedItem(id=item_id, quantity=min(quantity, acp.MAX_QUANTITY))
        for item_id, quantity in quantities.items()
    )


def _options(lines: Sequence[QuotedLine], address: acp.Address | None) -> tuple[QuotedOption, ...]:
    found = []
    if any(line.fulfilled_by == "shipping" for line in lines):
        if address is not None and address.country == "US":
            found += [
                _shipping("ship_standard", "Standard shipping", STANDARD_SHIPPING, (3, 5)),
                _shipping("ship_express", "Express shipping", EXPRESS_SHIPPING, (1, 2)),
            ]
        found.append(_pickup())
    if any(line.fulfilled_by == "digital" for line in lines):
        found.append(QuotedOption(type="digital", id="download", title="Download"))
    return tuple(found)


def _shipping(option_id: str, title: str, amount: int, days: tuple[int, int]) -> QuotedOption:
    # Counted from midnight, so that a cart doesn't change from one second to the next.
    today = int(time.time()) // DAY_SECONDS * DAY_SECONDS
    return QuotedOption(
        type="shipping",
        id=option_id,
        title=title,
        amount=amount,
        carrier="USPS",
        earliest_delivery_time=rfc3339(today + days[0] * DAY_SECONDS),
        latest_delivery_time=rfc3339(today + days[1] * DAY_SECONDS),
    )


def _pickup() -> QuotedOption:
    address = acp.Address(
        name="Harbour Goods",
        line_one="1 Pier Street",
        city="San Francisco",
        state="CA",
        country="US",
        postal_code="94111",
    )
    return QuotedOption(
        type="pickup",
        id="pickup_pier",
        title="Pick up at the pier",
        pickup_location=acp.PickupLocation(name="Harbour Goods", address=address),
    )


# Misbehaviour


class DishonestCharging(Charging):
    """Charges too much, or twice, if the shop was told to."""

    def __init__(self, client: stripe.StripeClient, shop: Shop) -> None:
        super().__init__(client)
        self._shop = shop
        self.second_charge: str | None = None

    async def open_intent(self, checkout: Checkout, amount: int) -> str:
        return await super().open_intent(checkout, amount + self._shop.behaviour.overcharge_by)

    async def confirm(
        self, checkout: Checkout, token: SecretStr | None, proof: acp.AuthenticationOutcomeDetails | None
    ) -> Outcome:
        outcome = await super().confirm(checkout, token, proof)
        if isinstance(outcome, Charged) and self._shop.behaviour.charge_twice:
            again = await super().open_intent(checkout, outcome.amount + 1)
            payment = replaced(checkout.payment, intent_id=again, generation=1_000)
            second = await super().confirm(replaced(checkout, payment=payment), token, None)
            self.second_charge = getattr(second, "reason", type(second).__name__)
        return outcome


class TamperedSession(acp.AcpModel):
    """A checkout session with the wrong statements that a dishonest or broken seller would return."""

    body: JsonObject

    def wire(self) -> JsonObject:
        return self.body


class SandboxSeller(Seller):
    """The seller kit, with responses changed as the shop's ``Behaviour`` says."""

    merchant: Shop

    def make_charging(self, client: stripe.StripeClient) -> Charging:
        return DishonestCharging(client, self.merchant)

    async def session(self, checkout: Checkout) -> acp.AcpModel:
        session = await super().session(checkout)
        tamper = self.merchant.behaviour.tamper
        return session if tamper == "none" else TamperedSession(body=_tampered(session.wire(), tamper))


def _tampered(body: Json, how: str) -> Json:
    total = next(one for one in body["totals"] if one["type"] == "total")
    if how == "total":
        total["amount"] += 1_000
    elif how == "currency":
        body["currency"] = "eur"
    elif how == "quantity":
        body["line_items"][0]["quantity"] += 1
    elif how == "missing_totals":
        del body["totals"]
    else:
        total["amount"] = str(total["amount"])
    return body


# The app


def create_app(
    data: Path,
    *,
    base_url: str,
    processor_url: str,
    stripe_key: str = DEFAULT_STRIPE_KEY,
    api_key: str = DEFAULT_API_KEY,
    webhooks: tuple[WebhookTarget, ...] = (),
    recovery_after_seconds: int = 60,
    stripe_timeout_seconds: int = 30,
) -> FastAPI:
    """Returns the shop with its data in a folder (created where missing)."""
    account = account_of_key(stripe_key)
    if account is None:
        raise ValueError("the sandbox takes keys of the form sk_test_<name>")
    stock = Stockroom(data / "shop.db")
    shop = Shop(stock, base_url)
    settings = SellerSettings(
        base_url=base_url,
        merchant_id=profile_of_account(account),
        merchant_name="Harbour Goods",
        stripe_secret_key=SecretStr(stripe_key),
        stripe_api_base=processor_url,
        api_keys={"agent": SecretStr(api_key)},
        links=(
            acp.Link(type="terms_of_use", url=f"{base_url}/terms"),
            acp.Link(type="return_policy", url=f"{base_url}/returns"),
        ),
        webhooks=webhooks,
        recovery_after_seconds=recovery_after_seconds,
        stripe_timeout_seconds=stripe_timeout_seconds,
        webhook_retry_base_ms=200,
        poll_interval_ms=250,
    )
    seller = SandboxSeller(shop, settings, SqliteStore(data / "seller.db"))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        stock.close()

    troubles = Troubles()
    app = FastAPI(title="Waystation sandbox shop", lifespan=lifespan)
    seller.mount(app)
    app.include_router(troubles.router())
    app.include_router(_control_router(seller, shop, troubles))
    app.add_middleware(TroubleMiddleware, troubles=troubles)
    return app


def _control_router(seller: SandboxSeller, shop: Shop, troubles: Troubles) -> APIRouter:
    router = APIRouter(tags=["sandbox"])

    @router.get("/sandbox/health")
    async def health() -> JsonObject:
        return {"status": "ok", "striking": troubles.striking}

    @router.post("/sandbox/behaviour")
    async def behave(request: Request) -> JsonObject:
        try:
            shop.behaviour = Behaviour.model_validate_json(await request.body())
        except ValidationError as error:
            raise HTTPException(422, error.errors(include_url=False, include_context=False)) from None
        return shop.behaviour.model_dump()

    @router.get("/sandbox/state")
    async def state() -> dict[str, object]:
        charging = seller.charging
        second = charging.second_charge if isinstance(charging, DishonestCharging) else None
        return {
            "sales": shop.stock.sales(),
            "reservations": shop.stock.reservations(),
            "stock": {item: shop.stock.available(item) for item in GOODS},
            "second_charge": second,
            "facts": [facts.model_dump(mode="json") for facts in shop.seen_facts],
        }

    @router.post("/sandbox/stock/{item}/{on_hand}")
    async def restock(item: str, on_hand: int) -> dict[str, int | None]:
        shop.stock.set_stock(item, on_hand)
        return {item: shop.stock.available(item)}

    @router.post("/age-check")
    async def age_check(email: str) -> dict[str, str]:
        shop.stock.confirm_adult(email)
        return {"status": "confirmed"}

    @router.get("/age-check")
    async def age_page(email: str) -> dict[str, str]:
        return {"confirm": f"POST this address to confirm that {email} is of age"}

    _add_order_controls(router, seller)
    return router


def _add_order_controls(router: APIRouter, seller: SandboxSeller) -> None:
    """Adds routes for what a shop's staff does: ship, deliver, refund."""

    @router.post("/sandbox/orders/{order_id}/ship")
    async def ship(order_id: str) -> JsonObject:
        order = await _known(seller, order_id)
        digital = {
            part.id
            for one in order.fulfillments or ()
            if one.type == "digital"
            for part in one.line_items or ()
        }
        parts = tuple(
            acp.LineItemReference(id=line.id, quantity=line.quantity.current)
            for line in order.line_items or ()
            if line.id not in digital and _is_waiting(line)
        )
        if not parts:
            raise HTTPException(409, "there is nothing left to ship")
        fulfillment = acp.Fulfillment(
            id="ful_parcel",
            type="shipping",
            line_items=parts,
            carrier="USPS",
            tracking_number="9400111899223456789012",
            tracking_url="https://tools.usps.com/go/TrackConfirmAction?tLabels=9400111899223456789012",
        )
        return (await seller.ship(order_id, fulfillment)).wire()

    @router.post("/sandbox/orders/{order_id}/deliver")
    async def deliver(order_id: str) -> JsonObject:
        await _known(seller, order_id)
        try:
            return (await seller.deliver(order_id, "ful_parcel")).wire()
        except ValueError as error:
            raise HTTPException(409, str(error)) from None

    @router.post("/sandbox/orders/{order_id}/refund")
    async def refund(order_id: str, amount: int, key: str, reason: str = "returned") -> JsonObject:
        await _known(seller, order_id)
        try:
            return (await seller.refund(order_id, amount, reason, key=key)).wire()
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        except stripe.InvalidRequestError as error:
            raise HTTPException(409, error.user_message) from None
        except stripe.StripeError:
            raise HTTPException(503, "the processor gave no answer; repeat it with the same key") from None


def _is_waiting(line: acp.OrderLineItem) -> bool:
    fulfilled = line.quantity.fulfilled
    return line.quantity.current > (0 if fulfilled is None else fulfilled)


async def _known(seller: Seller, order_id: str) -> acp.Order:
    try:
        return (await seller.order(order_id)).order
    except AcpError as error:
        raise HTTPException(error.status, str(error)) from None


def main() -> None:
    parser = argparse.ArgumentParser(description="Waystation's sandbox shop")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the shop's data")
    parser.add_argument("--base-url", help="where others reach it; by default at its port on 127.0.0.1")
    parser.add_argument("--processor", required=True, help="URL of the sandbox processor")
    parser.add_argument(
        "--stripe-key", default=DEFAULT_STRIPE_KEY, help="the shop's account at the processor"
    )
    parser.add_argument("--api-key", default=os.environ.get("WAYSTATION_SHOP_API_KEY", DEFAULT_API_KEY))
    parser.add_argument("--webhook-url", help="where order events go")
    parser.add_argument("--webhook-secret", default=os.environ.get("WAYSTATION_SHOP_WEBHOOK_SECRET", ""))
    parser.add_argument("--recovery-after-seconds", type=int, default=60)
    parser.add_argument("--stripe-timeout-seconds", type=int, default=30)
    options = parser.parse_args()
    targets: tuple[WebhookTarget, ...] = ()
    if options.webhook_url:
        targets = (WebhookTarget(url=options.webhook_url, secret=SecretStr(options.webhook_secret)),)
    app = create_app(
        options.data,
        base_url=options.base_url or f"http://127.0.0.1:{options.port}",
        processor_url=options.processor,
        stripe_key=options.stripe_key,
        api_key=options.api_key,
        webhooks=targets,
        recovery_after_seconds=options.recovery_after_seconds,
        stripe_timeout_seconds=options.stripe_timeout_seconds,
    )
    serve(app, options.port)


if __name__ == "__main__":
    main()
