"""What a merchant mounts in a FastAPI app, so that agents can buy from it::

    seller = Seller(MyShop(), settings, SqliteStore("seller.db"))
    seller.mount(app)

``docs/selling.md`` tells the rest.
"""

from waystation.seller.errors import (
    MerchantError,
    OrderRefusedError,
    OutOfStockError,
    UnknownItemError,
    UnsupportedCurrencyError,
)
from waystation.seller.kit import Seller
from waystation.seller.merchant import (
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
from waystation.seller.records import WebhookTarget
from waystation.seller.settings import SellerSettings
from waystation.seller.store import SqliteStore, Store

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
