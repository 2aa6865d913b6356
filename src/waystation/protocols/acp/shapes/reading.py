"""Shapes from JSON: requests are held to the protocol, sellers' statements to what money depends on."""

from typing import TypeVar

from pydantic import (
    JsonValue,
    ValidationError,
)

from waystation.foreign_json import ForeignJsonError, read_json
from waystation.protocols.acp.shapes.base import LENIENT, MAX_BODY_BYTES, AcpModel, ProtocolViolationError
from waystation.protocols.acp.shapes.discovery import Discovery
from waystation.protocols.acp.shapes.errors import ErrorBody
from waystation.protocols.acp.shapes.feeds import FeedProducts
from waystation.protocols.acp.shapes.orders import Order, OrderEvent
from waystation.protocols.acp.shapes.sessions import Cart, CheckoutSession, CompletedSession

M = TypeVar("M", bound=AcpModel)


def decode_json(raw: bytes | str, what: str) -> JsonValue:
    """Returns a JSON document as Python values. Refuses NaN."""
    if len(raw) > MAX_BODY_BYTES:
        raise ProtocolViolationError(what, [("$", f"larger than {MAX_BODY_BYTES} bytes")])
    try:
        return read_json(raw)
    except ForeignJsonError as error:
        raise ProtocolViolationError(what, [("$", str(error))]) from None


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    """Returns places and rules, never the offending values: they may be credentials or personal data."""
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
        found.append((path, one["msg"]))
    return found


def validate(model: type[M], value: object, what: str) -> M:
    """Returns a shape from decoded JSON: unknown fields ignored, known ones held to the protocol."""
    try:
        return model.model_validate(value, extra="ignore")
    except ValidationError as error:
        raise ProtocolViolationError(what, _problems(error)) from None


def read(model: type[M], raw: bytes | str, what: str) -> M:
    """Returns a shape of this module from JSON: unknown fields ignored, known ones held to the protocol."""
    return validate(model, decode_json(raw, what), what)


def read_stated(model: type[M], raw: bytes | str, what: str) -> M:
    """Returns what a seller states, without what can't be read of it and decides nothing."""
    value = decode_json(raw, what)
    try:
        return model.model_validate(value, extra="ignore", context=LENIENT)
    except ValidationError as error:
        raise ProtocolViolationError(what, _problems(error)) from None


def read_session(raw: bytes | str) -> CheckoutSession:
    """Returns a seller's answer. For sums see ``problems_of_totals``."""
    return read_stated(CheckoutSession, raw, "the checkout session")


def read_completed(raw: bytes | str) -> CompletedSession:
    """Returns what matters of a completed session, whatever else is in it: that it is, and the order."""
    return read_stated(CompletedSession, raw, "the completed session")


def read_order(raw: bytes | str) -> Order:
    return read_stated(Order, raw, "the order")


def read_order_event(raw: bytes | str) -> OrderEvent:
    return read_stated(OrderEvent, raw, "the order event")


def read_cart(raw: bytes | str) -> Cart:
    return read_stated(Cart, raw, "the cart")


def read_discovery(raw: bytes | str) -> Discovery:
    return read_stated(Discovery, raw, "the discovery document")


def read_products(raw: bytes | str) -> FeedProducts:
    return read_stated(FeedProducts, raw, "the product feed")


def read_error(raw: bytes | str) -> ErrorBody | None:
    """Returns an error's body, or ``None`` if a peer (or a proxy in front of it) sent something else."""
    try:
        return read(ErrorBody, raw, "the error")
    except ProtocolViolationError:
        return None
