"""What a purchase's trail says of the answers of sellers and processors. Pure."""

from pydantic import JsonValue

from waystation.models.purchases import CheckoutAnswer, OrderPlaced, PaymentToken
from workflows.purchase.carts import cart_digest, with_known_handler


def checkout_facts(
    answer: CheckoutAnswer | OrderPlaced | None, *, before: CheckoutAnswer | None
) -> dict[str, JsonValue]:
    """Returns what a seller has answered; ``before`` is its latest answer that counts."""
    if answer is None:
        return {"status": "gone"}
    received: dict[str, JsonValue] = {"request_id": answer.request_id, "replayed": answer.replayed or None}
    if isinstance(answer, OrderPlaced):
        placed = {"checkout_id": answer.checkout_id, "status": "completed", "order_id": answer.order.id}
        return {**placed, **received}
    cart = answer.cart
    if before is not None and before.cart.checkout_id == cart.checkout_id:
        cart = with_known_handler(answer, before).cart
    return {
        "checkout_id": cart.checkout_id,
        "status": answer.status.value,
        "total": cart.total,
        "currency": cart.currency,
        "digest": cart_digest(cart),
        "order_id": answer.order.id if answer.order else None,
        "messages": [*sorted(answer.error_codes())],
        **received,
    }


def token_facts(token: PaymentToken) -> dict[str, JsonValue]:
    """Returns what the processor says of a token."""
    return {
        "token": token.fingerprint,
        "status": token.status,
        "reason": token.deactivated_reason,
        "captured": token.captured,
        "request_id": token.request_id,
    }
