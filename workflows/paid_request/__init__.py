"""One HTTP 402 exchange, at most one settlement, delivered."""

from workflows.paid_request.workflow import PaidRequest

__all__ = [
    "PaidRequest",
]
