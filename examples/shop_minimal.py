"""A shop in one file that agents can buy from.

python -m waystation.sandbox.processor --port 8490 --data /tmp/processor &
uvicorn examples.shop_minimal:app --port 8000
"""

import os
from collections.abc import Sequence

from fastapi import FastAPI
from pydantic import SecretStr

from waystation.protocols import acp
from waystation.seller import (
    Basket,
    Merchant,
    NewOrder,
    PlacedOrder,
    Quote,
    QuotedLine,
    QuotedOption,
    Seller,
    SellerSettings,
    SqliteStore,
    UnknownItemError,
)

BASE_URL = os.environ.get("SHOP_URL", "http://127.0.0.1:8000")
PRICES = {"tea_green": ("Green tea, 100 g", 900), "tea_black": ("Black tea, 100 g", 800)}


class TeaShop(Merchant):
    """Two teas, one way of shipping, no tax."""

    async def products(self) -> Sequence[acp.FeedProduct]:
        return [self._product(item_id, name, price) for item_id, (name, price) in PRICES.items()]

    def _product(self, item_id: str, name: str, price: int) -> acp.FeedProduct:
        shown = acp.FeedPrice(amount=price, currency="USD")
        variant = acp.FeedVariant(id=item_id, title=name, price=shown)
        return acp.FeedProduct(id=item_id, title=name, variants=(variant,))

    async def quote(self, basket: Basket) -> Quote:
        lines = []
        for item in basket.items:
            if item.id not in PRICES:
                raise UnknownItemError(item.id)
            name, price = PRICES[item.id]
            lines.append(QuotedLine(item_id=item.id, name=name, quantity=item.quantity, unit_amount=price))
        post = QuotedOption(type="shipping", id="post", title="By post", amount=400)
        return Quote(lines=tuple(lines), options=(post,))

    async def place_order(self, order: NewOrder) -> PlacedOrder:
        # Called again after a crash: the same order id means the same order.
        return PlacedOrder(permalink_url=f"{BASE_URL}/orders/{order.order_id}")


settings = SellerSettings(
    base_url=BASE_URL,
    merchant_id=os.environ.get("STRIPE_PROFILE", "profile_test_tea"),
    merchant_name="Tea Shop",
    stripe_secret_key=SecretStr(os.environ.get("STRIPE_SECRET_KEY", "sk_test_tea")),
    stripe_api_base=os.environ.get("STRIPE_API_BASE", "http://127.0.0.1:8490"),
    api_keys={"some-agent": SecretStr(os.environ.get("AGENT_API_KEY", "agent-key"))},
)

app = FastAPI()
Seller(TeaShop(), settings, SqliteStore(os.environ.get("SHOP_DB", "tea.db"))).mount(app)
