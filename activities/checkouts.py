"""Activities over ACP checkouts: create, update, read, complete, cancel.

Each takes its idempotency key from the caller and sends the same bytes on every attempt.
Bearer credentials come from this process's settings and never enter a workflow.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contract, failures
from activities.contract import (
    CancelCheckout,
    ChangeCheckout,
    CheckoutCalls,
    CheckoutRef,
    CompleteCheckout,
    OpenCheckout,
)
from activities.heartbeats import heartbeating
from activities.secrets import opened
from waystation.buyer.carts import Source, read_answer, read_answer_or_order
from waystation.buyer.origins import RequestInvalidError, check_transport
from waystation.buyer.products import NO_DISCOVERY
from waystation.models.purchases import (
    CheckoutAnswer,
    OrderPlaced,
    PurchaseRequest,
)
from waystation.protocols import acp
from waystation.temporal.sealing import Vault

CONNECT_TIMEOUT_SECONDS: Final = 5
READ_TIMEOUT_SECONDS: Final = 25
COMPLETE_READ_TIMEOUT_SECONDS: Final = 40
DISCOVERY_CACHE_SECONDS: Final = 3600
MAX_CACHED_DISCOVERIES: Final = 500

Answer = TypeVar("Answer")


class SellerCredentials:
    """Bearer credentials by seller origin, with an optional one for all others. They are never printed."""

    def __init__(self, by_origin: Mapping[str, SecretStr], *, default: SecretStr | None = None) -> None:
        self._by_origin = dict(by_origin)
        self._default = default

    def bearer_for(self, origin: str) -> str:
        """Returns the credential for one seller.

        Raises:
            ApplicationError: There is none; final, and says which setting is missing.
        """
        found = self._by_origin.get(origin, self._default)
        if found is None:
            raise ApplicationError(
                f"there is no credential for {origin}; add one to the sellers in the settings",
                "no_seller_credential",
                type=contract.SELLER_REFUSED,
                non_retryable=True,
            )
        return found.get_secret_value()


class _Discovered(NamedTuple):
    """A seller's API address and the (monotonic) time in nanoseconds until which it is believed."""

    base_url: str
    until_ns: int


class CheckoutActivities(CheckoutCalls):
    """Calls sellers over HTTP.

    Args:
        http: a client without retries and without redirects; shared, closed by its owner.
        credentials: what to authenticate with at which seller.
        vault: opens payment tokens.
    """

    def __init__(self, http: httpx.AsyncClient, credentials: SellerCredentials, vault: Vault) -> None:
        self._http = http
        self._credentials = credentials
        self._vault = vault
        self._base_urls: dict[str, _Discovered] = {}

    @activity.defn
    @heartbeating
    async def open_checkout(self, call: OpenCheckout) -> CheckoutAnswer:
        """Finds the seller's API by its discovery document, and creates a checkout there."""
        request = call.request
        base = await self._api_base_url(request.seller)
        body = acp.CheckoutCreateRequest(
            line_items=_items(request),
            currency=request.currency,
            capabilities=_CAPABILITIES,
            buyer=request.buyer,
            fulfillment_details=request.fulfillment_details,
            discounts=acp.DiscountsRequest(codes=request.discount_codes) if request.discount_codes else None,
            metadata={"purchase_id": call.purchase_id},
            order_notes=request.order_notes,
        )
        at = CheckoutRef(seller=request.seller, api_base_url=base, checkout_id="")
        return await self._session(at, "POST", "/checkout_sessions", body, call.idempotency_key, "create")

    @activity.defn
    @heartbeating
    async def update_checkout(self, call: ChangeCheckout) -> CheckoutAnswer:
        """Changes a checkout (``POST /checkout_sessions/{id}``)."""
        request, restate = call.request, call.restate
        body = acp.CheckoutUpdateRequest(
            line_items=_items(request) if restate else None,
            buyer=request.buyer if restate else None,
            fulfillment_details=request.fulfillment_details if restate else None,
            discounts=acp.DiscountsRequest(codes=request.discount_codes) if restate else None,
            selected_fulfillment_options=tuple(
                acp.SelectedFulfillmentOption(type=one.type, option_id=one.id, item_ids=one.item_ids)
                for one in call.select
            )
            or None,
        )
        path = f"/checkout_sessions/{segment(call.checkout.checkout_id)}"
        return await self._session(call.checkout, "POST", path, body, call.idempotency_key, "update")

    @activity.defn
    @heartbeating
    async def read_checkout(self, checkout: CheckoutRef) -> CheckoutAnswer | OrderPlaced:
        """Reads a checkout (``GET /checkout_sessions/{id}``). Of a completed one, the order suffices."""
        path = f"/checkout_sessions/{segment(checkout.checkout_id)}"
        return await self._session_or_order(checkout, "GET", path, None, None, "read")

    @activity.defn
    @heartbeating
    async def complete_checkout(self, call: CompleteCheckout) -> CheckoutAnswer | OrderPlaced:
        """Pays and orders (``POST …/complete``). Of a completed checkout, the order suffices.

        Any failure other than a clear 4xx leaves the outcome unknown: ask again with the same key, or read.
        """
        request, proof = call.request, call.authentication
        credential = acp.PaymentCredential(type="spt", token=SecretStr(opened(self._vault, call.token)))
        body = acp.CheckoutCompleteRequest(
            buyer=request.buyer,
            payment_data=acp.PaymentData(
                handler_id=call.handler_id,
                instrument=acp.PaymentInstrument(type="card", credential=credential),
                billing_address=request.billing_address,
            ),
            authentication_result=acp.AuthenticationResult.model_validate(proof.model_dump(mode="json"))
            if proof
            else None,
        )
        path = f"/checkout_sessions/{segment(call.checkout.checkout_id)}/complete"
        return await self._session_or_order(
            call.checkout,
            "POST",
            path,
            body,
            call.idempotency_key,
            "completion",
            COMPLETE_READ_TIMEOUT_SECONDS,
        )

    @activity.defn
    @heartbeating
    async def cancel_checkout(self, call: CancelCheckout) -> CheckoutAnswer | OrderPlaced | None:
        """Cancels a checkout. One already closed (405) is read instead; ``None`` means that it is gone."""
        trace = acp.IntentTrace(reason_code="other", trace_summary=call.reason[:500])
        body = acp.CheckoutCancelRequest(intent_trace=trace)
        path = f"/checkout_sessions/{segment(call.checkout.checkout_id)}/cancel"
        try:
            return await self._session(
                call.checkout, "POST", path, body, call.idempotency_key, "cancellation"
            )
        except ApplicationError as error:
            status = error.details[1] if len(error.details) > 1 else None
            if status == 404:
                return None
            if error.type == contract.SELLER_REFUSED and status is not None:
                return await self.read_checkout(call.checkout)
            raise

    async def _api_base_url(self, seller: str) -> str:
        cached = self._base_urls.get(seller)
        if cached and cached.until_ns > time.monotonic_ns():
            return cached.base_url
        _require_tls(seller)
        response, body = await self._send("GET", seller + acp.DISCOVERY_PATH, {}, None, "discovery", None)
        if response.status_code in NO_DISCOVERY:
            base = seller
        elif response.status_code != 200:
            raise failures.seller_error(response, body, "discovery")
        else:
            base = _base_from_discovery(body)
        if len(self._base_urls) >= MAX_CACHED_DISCOVERIES:
            self._base_urls.clear()
        until_ns = time.monotonic_ns() + DISCOVERY_CACHE_SECONDS * 1_000_000_000
        self._base_urls[seller] = _Discovered(base, until_ns)
        return base

    async def _session(
        self,
        at: CheckoutRef,
        method: str,
        path: str,
        body: acp.AcpModel | None,
        idempotency_key: str | None,
        what: str,
    ) -> CheckoutAnswer:
        return _read(read_answer, *await self._ask(at, method, path, body, idempotency_key, what))

    async def _session_or_order(
        self,
        at: CheckoutRef,
        method: str,
        path: str,
        body: acp.AcpModel | None,
        idempotency_key: str | None,
        what: str,
        read_timeout_seconds: int = READ_TIMEOUT_SECONDS,
    ) -> CheckoutAnswer | OrderPlaced:
        asked = await self._ask(at, method, path, body, idempotency_key, what, read_timeout_seconds)
        return _read(read_answer_or_order, *asked)

    async def _ask(
        self,
        at: CheckoutRef,
        method: str,
        path: str,
        body: acp.AcpModel | None,
        idempotency_key: str | None,
        what: str,
        read_timeout_seconds: int = READ_TIMEOUT_SECONDS,
    ) -> tuple[bytes, Source]:
        headers = {
            acp.HEADER_AUTHORIZATION: f"Bearer {self._credentials.bearer_for(at.seller)}",
            acp.HEADER_API_VERSION: acp.API_VERSION,
            "Accept": "application/json",
        }
        content = None
        if body is not None and idempotency_key is not None:
            headers["Content-Type"] = "application/json"
            headers[acp.HEADER_IDEMPOTENCY_KEY] = idempotency_key
            content = json.dumps(body.wire(), separators=(",", ":"), sort_keys=True).encode()
        response, raw = await self._send(
            method, at.api_base_url + path, headers, content, what, read_timeout_seconds
        )
        if not response.is_success:
            raise failures.seller_error(response, raw, what)
        return raw, Source(
            seller=at.seller,
            api_base_url=at.api_base_url,
            request_id=_header(response, acp.HEADER_REQUEST_ID),
            replayed=response.headers.get(acp.HEADER_IDEMPOTENT_REPLAYED) == "true",
        )

    async def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        content: bytes | None,
        what: str,
        read_timeout_seconds: int | None,
    ) -> tuple[httpx.Response, bytes]:
        timeout = httpx.Timeout(read_timeout_seconds or READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
        try:
            async with self._http.stream(
                method, url, headers=headers, content=content, timeout=timeout, follow_redirects=False
            ) as response:
                return response, await _bounded(response, what)
        except RequestInvalidError as error:
            raise failures.seller_out_of_bounds(error) from None
        except httpx.HTTPError as error:
            raise failures.seller_unreachable(error, what) from None


_CAPABILITIES: Final = acp.Capabilities(
    interventions=acp.InterventionCapabilities(
        supported=("3ds",), display_context="redirect", redirect_context="external_browser", max_redirects=1
    )
)


def _read(reader: Callable[[bytes, Source], Answer], raw: bytes, source: Source) -> Answer:
    """Returns what a seller has answered, as the reader understands it."""
    try:
        return reader(raw, source)
    except acp.ProtocolViolationError as violation:
        raise failures.seller_violation(violation) from None


def _items(request: PurchaseRequest) -> tuple[acp.RequestedItem, ...]:
    return tuple(acp.RequestedItem(id=item.id, quantity=item.quantity) for item in request.items)


def segment(checkout_id: str) -> str:
    """Returns a seller's id as one path segment, whatever it holds: dots alone would mean another path."""
    return quote(checkout_id, safe="") if checkout_id.strip(".") else "%2E" * len(checkout_id)


def _header(response: httpx.Response, name: str) -> str | None:
    value = response.headers.get(name)
    return value[:255] if isinstance(value, str) and value else None


async def _bounded(response: httpx.Response, what: str) -> bytes:
    chunks, size = [], 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > acp.MAX_BODY_BYTES:
            raise failures.seller_violation(
                acp.ProtocolViolationError(f"the {what}", [("$", f"larger than {acp.MAX_BODY_BYTES} bytes")])
            )
        chunks.append(chunk)
    return b"".join(chunks)


def _require_tls(url: str) -> None:
    try:
        check_transport(url)
    except RequestInvalidError as error:
        raise failures.seller_out_of_bounds(error) from None


def _base_from_discovery(body: bytes) -> str:
    try:
        document = acp.read_discovery(body)
    except acp.ProtocolViolationError as violation:
        raise failures.seller_violation(violation) from None
    served = {
        "version": acp.API_VERSION in document.protocol.supported_versions,
        "transport": "rest" in document.transports,
        "service": "checkout" in document.capabilities.services,
    }
    missing = [name for name, there in served.items() if not there]
    if missing:
        raise ApplicationError(
            f"the seller does not serve ACP {acp.API_VERSION} checkout over REST: no {', '.join(missing)}",
            "protocol_not_served",
            type=contract.SELLER_REFUSED,
            non_retryable=True,
        )
    _require_tls(document.api_base_url)
    return document.api_base_url.rstrip("/")
