"""What a merchant mounts in a FastAPI app, so that agents can buy from it::

    seller = Seller(MyShop(), settings, SqliteStore("seller.db"))
    seller.mount(app)

``docs/selling.md`` tells the rest.
"""

from waystation.seller.shop.errors import (
    MerchantError,
    OrderRefusedError,
    OutOfStockError,
    UnknownItemError,
    UnsupportedCurrencyError,
)
from waystation.seller.shop.merchant import (
    Basket,
    Merchant,
    NewOrder,
    PaymentFacts,
    PlacedOrder,
    Quote,
    QuotedDiscount,
    QuotedFee,
    QuotedLine,
    QuotedOption,
    RiskDecision,
)
from waystation.seller.shop.mount import Seller
from waystation.seller.shop.records import WebhookTarget
from waystation.seller.shop.settings import SellerSettings
from waystation.seller.shop.store import SqliteStore, Store

__all__ = [
    "Basket",
    "Merchant",
    "MerchantError",
    "NewOrder",
    "OrderRefusedError",
    "OutOfStockError",
    "PaymentFacts",
    "PlacedOrder",
    "Quote",
    "QuotedDiscount",
    "QuotedFee",
    "QuotedLine",
    "QuotedOption",
    "RiskDecision",
    "Seller",
    "SellerSettings",
    "SqliteStore",
    "Store",
    "UnknownItemError",
    "UnsupportedCurrencyError",
    "WebhookTarget",
]
