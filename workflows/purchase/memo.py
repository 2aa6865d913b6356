"""What a purchase's memo says from its start: lists are filtered by it, and a repeated start recognized."""

import hashlib

from waystation.models.purchases import PurchaseRequest


def memo_of_purchase(request: PurchaseRequest) -> dict[str, object]:
    """Returns the memo with which every purchase is started, whoever starts it."""
    return {
        "session_id": request.session_id,
        "seller": request.seller,
        "agent": request.agent.id,
        "request": digest_of(request),
    }


def digest_of(request: PurchaseRequest) -> str:
    """Returns what tells one request from another."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()
