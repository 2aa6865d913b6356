"""One checkout over ACP, approved, paid at most once, or undone."""

from workflows.purchase.buy import Buy
from workflows.purchase.workflow import Purchase, PurchaseStart

__all__ = [
    "Buy",
    "Purchase",
    "PurchaseStart",
]
