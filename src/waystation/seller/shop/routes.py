"""A seller's HTTP API: ACP 2026-04-17 as FastAPI routes.

Every route authenticates the agent, checks the version, echoes ``Request-Id`` and ``Idempotency-Key``, and
answers errors in the protocol's model. Every POST runs once for each idempotency key.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import JsonValue
from starlette.requests import ClientDisconnect

from waystation.models.base import JsonObject
from waystation.protocols import acp
from waystation.protocols.acp import (
    HEADER_API_VERSION,
    HEADER_IDEMPOTENCY_KEY,
    HEADER_IDEMPOTENT_REPLAYED,
    HEADER_REQUEST_ID,
    MAX_BODY_BYTES,
    SUPPORTED_VERSIONS,
    AcpModel,
    ErrorType,
    ProtocolViolationError,
)
from waystation.protocols.acp import dialects as acp_dialects
from waystation.seller.shop.errors import AcpError, busy, not_found, version_error
from waystation.seller.shop.idempotency import Answer, checked_key, run_once
from waystation.seller.shop.kit import Kit
from waystation.seller.shop.store import ConcurrentChangeError
from waystation.seller.shop.views import cart_of

MAX_REQUEST_ID_CHARS: Final = 255
DISCOVERY_MAX_AGE_SECONDS: Final = 3_600

logger = logging.getLogger(__name__)


class _Call:
    """One authenticated request: who asks, for what, with which body."""

    def __init__(self, identity: str, request: Request, body: object) -> None:
        self.identity = identity
        self.body = body
        self.ids: dict[str, str] = request.path_params


Work = Callable[[_Call], Awaitable[AcpModel]]


def discovery_router(seller: Kit) -> APIRouter:
    """``/.well-known/acp.json``, which belongs to the root of the host."""
    router = APIRouter(tags=["acp"])

    @router.get(acp.DISCOVERY_PATH)
    async def discovery() -> Response:
        headers = {"Cache-Control": f"public, max-age={DISCOVERY_MAX_AGE_SECONDS}"}
        return JSONResponse(seller.settings.discovery().wire(), headers=headers)

    return router


def acp_router(seller: Kit) -> APIRouter:
    """Checkouts, orders, carts and the product feed."""
    router = APIRouter(tags=["acp"])
    for method, path, status, work in _routes(seller):
        router.add_api_route(
            path,
            _endpoint(seller, work, status),
            methods=[method],
            name=work.__name__,
            description=work.__doc__,
            response_class=JSONResponse,
        )
    return router


def _routes(seller: Kit) -> list[tuple[str, str, int, Work]]:
    checkout, cart, feed = _checkout_work(seller), _cart_work(seller), _feed_work(seller)
    one = "/checkout_sessions/{checkout_id}"
    return [
        ("POST", "/checkout_sessions", 201, checkout["create"]),
        ("GET", one, 200, checkout["read"]),
        ("POST", one, 200, checkout["update"]),
        ("POST", f"{one}/complete", 200, checkout["complete"]),
        ("POST", f"{one}/cancel", 200, checkout["cancel"]),
        ("GET", "/orders/{order_id}", 200, checkout["order"]),
        ("POST", "/carts", 201, cart["create"]),
        ("GET", "/carts/{cart_id}", 200, cart["read"]),
        ("PUT", "/carts/{cart_id}", 200, cart["replace"]),
        ("POST", "/carts/{cart_id}", 200, cart["replace"]),
        ("POST", "/carts/{cart_id}/cancel", 200, cart["cancel"]),
        ("GET", "/feeds/{feed_id}", 200, feed["metadata"]),
        ("GET", "/feeds/{feed_id}/products", 200, feed["products"]),
    ]


def _checkout_work(seller: Kit) -> dict[str, Work]:
    checkouts = seller.checkouts

    async def create_checkout(call: _Call) -> AcpModel:
        """Create a checkout session."""
        request = acp_dialects.read_create_request(call.body)
        older = acp_dialects.older_option_id(call.body)
        return await seller.session(await checkouts.create(call.identity, request, older))

    async def read_checkout(call: _Call) -> AcpModel:
        """Read a checkout session."""
        return await seller.session(await checkouts.read(call.identity, call.ids["checkout_id"]))

    async def update_checkout(call: _Call) -> AcpModel:
        """Change a checkout session."""
        request = acp_dialects.read_update_request(call.body)
        older = acp_dialects.older_option_id(call.body)
        changed = await checkouts.update(call.identity, call.ids["checkout_id"], request, older)
        return await seller.session(changed)

    async def complete_checkout(call: _Call) -> AcpModel:
        """Pay for a checkout session."""
        request = acp_dialects.read_complete_request(call.body)
        completed = await seller.completion.complete(call.identity, call.ids["checkout_id"], request)
        seller.wake_webhooks()
        return await seller.session(completed)

    async def cancel_checkout(call: _Call) -> AcpModel:
        """Cancel a checkout session."""
        acp_dialects.read_cancel_request(call.body)
        return await seller.session(await checkouts.cancel(call.identity, call.ids["checkout_id"]))

    async def read_order(call: _Call) -> AcpModel:
        """Read an order (beyond the specification, which has webhooks only)."""
        record = await seller.order(call.ids["order_id"])
        if record.identity != call.identity:
            raise not_found("order")
        return record.order

    return {
        "create": create_checkout,
        "read": read_checkout,
        "update": update_checkout,
        "complete": complete_checkout,
        "cancel": cancel_checkout,
        "order": read_order,
    }


def _cart_work(seller: Kit) -> dict[str, Work]:
    checkouts = seller.checkouts

    async def create_cart(call: _Call) -> AcpModel:
        """Create a cart."""
        return cart_of(await checkouts.put_cart(call.identity, acp_dialects.read_cart_request(call.body)))

    async def read_cart(call: _Call) -> AcpModel:
        """Read a cart."""
        return cart_of(await checkouts.read_cart(call.identity, call.ids["cart_id"]))

    async def replace_cart(call: _Call) -> AcpModel:
        """Replace a cart."""
        request = acp_dialects.read_cart_request(call.body)
        return cart_of(await checkouts.put_cart(call.identity, request, call.ids["cart_id"]))

    async def cancel_cart(call: _Call) -> AcpModel:
        """Cancel a cart."""
        return cart_of(await checkouts.cancel_cart(call.identity, call.ids["cart_id"]))

    return {"create": create_cart, "read": read_cart, "replace": replace_cart, "cancel": cancel_cart}


def _feed_work(seller: Kit) -> dict[str, Work]:
    settings = seller.settings

    def check(call: _Call) -> None:
        if call.ids["feed_id"] != settings.feed_id:
            raise AcpError(404, "feed_not_found", "Feed not found", param="id")

    async def read_feed(call: _Call) -> AcpModel:
        """Read the feed's metadata."""
        check(call)
        return acp.FeedMetadata(id=settings.feed_id, target_country=settings.target_country)

    async def read_products(call: _Call) -> AcpModel:
        """Read the whole catalog."""
        check(call)
        return acp.FeedProducts(products=tuple(await seller.merchant.products()))

    return {"metadata": read_feed, "products": read_products}


# What every route has in common


def _endpoint(seller: Kit, work: Work, status: int) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        headers = {HEADER_REQUEST_ID: _request_id(request)}
        try:
            identity = _authenticated(seller, request)
            _check_version(request)
            (code, body), replayed = await _run(seller, work, status, identity, request, headers)
            if replayed:
                headers[HEADER_IDEMPOTENT_REPLAYED] = "true"
        except ClientDisconnect:
            # Nobody reads this, and nothing was begun; raised, it would be an error in the merchant's log.
            code, body = 400, b""
        except Exception as error:
            refused = _as_acp_error(error, headers[HEADER_REQUEST_ID])
            code, body = refused.status, _encoded(refused.wire())
            headers.update(refused.headers)
        return Response(body, code, headers, media_type="application/json")

    return handle


async def _run(
    seller: Kit, work: Work, status: int, identity: str, request: Request, headers: dict[str, str]
) -> tuple[Answer, bool]:
    async def once(body: object) -> Answer:
        try:
            answer = await work(_Call(identity, request, body))
        except Exception as error:
            # An expected refusal is a response like any other, and is stored like one.
            refused = _as_acp_error(error, headers[HEADER_REQUEST_ID])
            headers.update(refused.headers)
            return refused.status, _encoded(refused.wire())
        return status, _encoded(answer.wire())

    if request.method == "GET":
        return await once(None), False
    key = request.headers.get(HEADER_IDEMPOTENCY_KEY)
    if request.method == "POST":
        key = checked_key(key)
    body = await _json_body(request)
    if key is None:
        return await once(body), False
    headers[HEADER_IDEMPOTENCY_KEY] = key
    scope = f"{identity} {request.method} {request.url.path}"
    return await run_once(seller.store, scope, key, body, lambda: once(body))


def _as_acp_error(error: Exception, request_id: str) -> AcpError:
    if isinstance(error, AcpError):
        return error
    if isinstance(error, ConcurrentChangeError):
        return busy()
    if isinstance(error, ProtocolViolationError):
        path, rule = error.problems[0]
        code = "missing" if rule == "Field required" else "invalid"
        return AcpError(400, code, str(error), param=path)
    logger.error("request %s failed", request_id, exc_info=error)
    return AcpError(
        500,
        "internal_error",
        "The seller failed; the request may be retried.",
        kind=ErrorType.PROCESSING_ERROR,
    )


def _encoded(body: JsonObject) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _request_id(request: Request) -> str:
    given = request.headers.get(HEADER_REQUEST_ID, "")
    fits = 0 < len(given) <= MAX_REQUEST_ID_CHARS and given.isprintable() and given.isascii()
    return given if fits else f"req_{secrets.token_hex(12)}"


def _authenticated(seller: Kit, request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    digest = hashlib.sha256(given.strip().encode()).digest()
    found = None
    for identity, key in seller.settings.api_keys.items():
        # Compares digests, so that timing reveals neither the length nor the position of a difference.
        if secrets.compare_digest(digest, hashlib.sha256(key.get_secret_value().encode()).digest()):
            found = identity
    if scheme.lower() != "bearer" or found is None:
        raise AcpError(
            401,
            "unauthorized",
            "Authorization: Bearer with a key of this seller is required.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return found


def _check_version(request: Request) -> None:
    given = request.headers.get(HEADER_API_VERSION)
    if given not in SUPPORTED_VERSIONS:
        raise version_error(given)


async def _json_body(request: Request) -> JsonValue:
    """Returns the body as Python values; absent is ``None``. Read no further than the limit."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise AcpError(413, "request_too_large", f"The body must have at most {MAX_BODY_BYTES} bytes.")
    return acp.decode_json(bytes(raw), "the request") if raw.strip() else None
