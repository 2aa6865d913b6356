"""A paywall for FastAPI: price a route, accept MPP and x402, charge once, always deliver."""

from waystation.seller.paywall.answers import EXPOSED_HEADERS
from waystation.seller.paywall.evm_rail import EvmRail
from waystation.seller.paywall.forms import KeepForms
from waystation.seller.paywall.journal import SqliteJournal
from waystation.seller.paywall.paywall import Paywall
from waystation.seller.paywall.stripe_rail import StripeRail

__all__ = [
    "EXPOSED_HEADERS",
    "EvmRail",
    "KeepForms",
    "Paywall",
    "SqliteJournal",
    "StripeRail",
]
