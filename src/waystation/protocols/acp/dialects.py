"""Reads agents' requests in the dialects that they actually send.

The published request schema has no place for a quantity, while every known client sends one; older clients
use the names of earlier versions. What is understood here is written down in the functions; nothing that
concerns money is guessed. Every function takes decoded JSON and raises ``ProtocolViolationError``.
"""

from collections.abc import Mapping

from waystation.protocols.acp.shapes.base import ProtocolViolationError
from waystation.protocols.acp.shapes.reading import validate
from waystation.protocols.acp.shapes.requests import (
    CartRequest,
    CheckoutCancelRequest,
    CheckoutCompleteRequest,
    CheckoutCreateRequest,
    CheckoutUpdateRequest,
)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ProtocolViolationError(what, [("$", "must be a JSON object")])
    return dict(value)


def _requested_item(value: object) -> object:
    """Reads ``{id, quantity}``, ``{item: {id}, quantity}`` or a bare id."""
    if isinstance(value, str):
        return {"id": value}
    if not isinstance(value, Mapping):
        return value
    inner = value.get("item")
    item: dict[str, object] = {}
    for source in (
        inner if isinstance(inner, Mapping) else {"id": inner} if isinstance(inner, str) else {},
        value,
    ):
        item.update({key: source[key] for key in ("id", "quantity") if source.get(key) is not None})
    if isinstance(inner, Mapping) and inner.get("id") is not None:
        # In {"id": "line_1", "item": {"id": "sku"}} the product is the inner one.
        item["id"] = inner["id"]
    return item


def _selected_option(value: object) -> object:
    """Reads ``{type, option_id, item_ids}``, or as in OpenAPI ``{type: "shipping", shipping: {…}}``."""
    if not isinstance(value, Mapping):
        return value
    nested = value.get(str(value.get("type")))
    merged = {**nested, **value} if isinstance(nested, Mapping) else dict(value)
    return {"item_ids": [], **merged}


def _normalized(body: dict[str, object]) -> dict[str, object]:
    """Translates older and looser spellings to the names of 2026-04-17. Explicit nulls count as absent."""
    body = {key: value for key, value in body.items() if value is not None}
    if "line_items" not in body and "items" in body:
        body["line_items"] = body["items"]
    if isinstance(items := body.get("line_items"), list):
        body["line_items"] = [_requested_item(item) for item in items]
    if isinstance(currency := body.get("currency"), str):
        body["currency"] = currency.lower()
    if "fulfillment_details" not in body and isinstance(body.get("fulfillment_address"), Mapping):
        body["fulfillment_details"] = {"address": body["fulfillment_address"]}
    if "discounts" not in body and isinstance(body.get("coupons"), list):
        body["discounts"] = {"codes": body["coupons"]}
    if isinstance(options := body.get("selected_fulfillment_options"), list):
        body["selected_fulfillment_options"] = [_selected_option(one) for one in options]
    return body


def read_create_request(value: object) -> CheckoutCreateRequest:
    """Reads ``POST /checkout_sessions`` from decoded JSON."""
    what = "the create request"
    return validate(CheckoutCreateRequest, _normalized(_object(value, what)), what)


def read_update_request(value: object) -> CheckoutUpdateRequest:
    """Reads ``POST /checkout_sessions/{id}`` from decoded JSON."""
    what = "the update request"
    return validate(CheckoutUpdateRequest, _normalized(_object(value, what)), what)


def older_option_id(value: object) -> str | None:
    """Returns the ``fulfillment_option_id`` of 2025-09-29: one option for all; the seller knows its type."""
    found = value.get("fulfillment_option_id") if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else None


def read_complete_request(value: object) -> CheckoutCompleteRequest:
    """Reads ``POST …/complete`` from decoded JSON, also the ``payment_data`` of 2025-09-29."""
    what = "the complete request"
    body = _normalized(_object(value, what))
    payment = body.get("payment_data")
    if isinstance(payment, Mapping) and "instrument" not in payment and isinstance(payment.get("token"), str):
        instrument = {"type": "card", "credential": {"type": "spt", "token": payment["token"]}}
        body["payment_data"] = {**payment, "instrument": instrument}
    return validate(CheckoutCompleteRequest, body, what)


def read_cancel_request(value: object) -> CheckoutCancelRequest:
    """Reads ``POST …/cancel``. An absent body counts as empty; an unknown reason is ignored."""
    try:
        return validate(
            CheckoutCancelRequest, value if isinstance(value, Mapping) else {}, "the cancel request"
        )
    except ProtocolViolationError:
        return CheckoutCancelRequest()


def read_cart_request(value: object) -> CartRequest:
    """Reads ``POST /carts`` and ``PUT /carts/{id}`` from decoded JSON."""
    what = "the cart request"
    return validate(CartRequest, _normalized(_object(value, what)), what)
