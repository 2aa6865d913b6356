"""What a purchase's memo says from its start: lists are filtered by it, and a repeated start recognized."""

from collections.abc import Mapping

from waystation.models.purchases import PurchaseRequest


def memo_of_purchase(request: PurchaseRequest) -> dict[str, object]:
    """Returns the memo with which every purchase is started, whoever starts it."""
    return {
        "session_id": request.session_id,
        "seller": request.seller,
        "agent": request.agent.id,
        "digest": request.digest(),
        "request": request.earlier_digest(),  # an API of an earlier release looks for it here
    }


def memo_is_of(memo: Mapping[str, object], request: PurchaseRequest) -> bool:
    """Returns whether the purchase with this memo was started with exactly this request."""
    recorded = memo.get("digest", memo.get("request"))
    return isinstance(recorded, str) and request.matches(recorded)
