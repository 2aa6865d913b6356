"""The sandbox processor: the part of Stripe's API that agents' purchases need, on its own ledger.

Use it with Stripe's own client: ``StripeClient("sk_test_shop", base_addresses={"api": "http://127.0.0.1:…"})``.
A test key ``sk_test_<name>`` is the account ``acct_<name>`` with the profile ``profile_test_<name>``: no
registration. Shared payment tokens need a preview version, as with Stripe; their shapes are those of
``2026-09-30.preview``.

In addition to Stripe's routes: ``GET /sandbox/ledger`` (what was charged and refunded, for tests to read) and
``/sandbox/troubles`` (see ``waystation.sandbox.troubles``).

    python -m waystation.sandbox.processor --port 8490 --data .waystation/processor
"""

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from stripe import WebhookSignature

from waystation.browser_guard import FORM, JSON
from waystation.sandbox import payments
from waystation.sandbox.forms import MalformedFormError, decode_form, values
from waystation.sandbox.ledger import (
    Json,
    Ledger,
    StripeRefusal,
    account_of_key,
    invalid,
    missing,
    nested,
    new_id,
    no_such,
    profile_of_account,
    shown,
)
from waystation.sandbox.serving import serve
from waystation.sandbox.troubles import TroubleMiddleware, Troubles
from waystation.stripe_http import STRIPE_API_VERSION

MAX_BODY_BYTES: Final = 262_144
MAX_KEY_CHARS: Final = 255
DELIVERY_POLL_MS: Final = 100
DELIVERY_TIMEOUT_SECONDS: Final = 10
MAX_DELIVERY_ATTEMPTS: Final = 12
MAX_DELIVERY_WAIT_SECONDS: Final = 3_600

logger = logging.getLogger(__name__)


class _Call:
    """One authenticated request: its account, parameters and idempotency key."""

    def __init__(self, ledger: Ledger, account: str, params: Json, request: Request) -> None:
        self.ledger = ledger
        self.account = account
        self.params = params
        self.path = request.url.path
        self.ids: dict[str, str] = request.path_params
        self.key = request.headers.get("idempotency-key") if request.method == "POST" else None
        self.version = request.headers.get("stripe-version", "")
        self.preview = self.version.endswith(".preview")

    def need_preview(self, what: str) -> None:
        if not self.preview:
            raise StripeRefusal(
                400,
                kept=False,
                message=f"{what} needs a preview API version, such as Stripe-Version: {STRIPE_API_VERSION}.",
            )


Work = Callable[[_Call], Json]


# Shared payment tokens


def issue_token(call: _Call) -> Json:
    call.need_preview("/v1/shared_payment/issued_tokens")
    seller = nested(call.params, "seller_details").get("network_business_profile")
    if not seller:
        raise missing("seller_details[network_business_profile]")
    if seller == profile_of_account(call.account):
        raise invalid(
            "seller_details[network_business_profile]",
            "A token can't be issued to the issuer's own profile.",
        )
    return call.ledger.issue_token(call.account, str(seller), call.params)


def issued_token(call: _Call) -> Json:
    call.need_preview("/v1/shared_payment/issued_tokens")
    token = call.ledger.token(call.ids["token"])
    if token is None or call.ledger.owner(token["id"]) != call.account:
        raise no_such("shared_payment_issued_token", call.ids["token"][:8] + "…")
    return token


def revoke_token(call: _Call) -> Json:
    return call.ledger.deactivate(issued_token(call), "revoked")


def granted_token(call: _Call) -> Json:
    call.need_preview("/v1/shared_payment/granted_tokens")
    return call.ledger.granted(call.ledger.granted_to(call.account, call.ids["token"]))


def grant_test_token(call: _Call) -> Json:
    """Grants a token to the caller, as if an agent had issued it (Stripe's test helper)."""
    call.need_preview("/v1/test_helpers/shared_payment/granted_tokens")
    token = call.ledger.issue_token("acct_test_helper", profile_of_account(call.account), call.params)
    return call.ledger.granted(token)


def revoke_test_token(call: _Call) -> Json:
    call.need_preview("/v1/test_helpers/shared_payment/granted_tokens")
    token = call.ledger.granted_to(call.account, call.ids["token"])
    return call.ledger.granted(call.ledger.deactivate(token, "revoked"))


# Payments


def _check_token_parameter(call: _Call) -> None:
    data = nested(call.params, "payment_method_data")
    if data and not data.get("shared_payment_granted_token") and not data.get("type"):
        raise missing("payment_method_data[type]")
    if "shared_payment_granted_token" in call.params or "shared_payment_granted_token" in data:
        call.need_preview("shared_payment_granted_token")


def create_intent(call: _Call) -> Json:
    _check_token_parameter(call)
    if call.version >= STRIPE_API_VERSION and "payment_method_types" in call.params:
        raise StripeRefusal(
            400,
            kept=False,
            code="parameter_unknown",
            param="payment_method_types",
            message="Received unknown parameter: payment_method_types. "
            "Did you mean allowed_payment_method_types?",
        )
    return payments.create_intent(call.ledger, call.account, call.params, call.key)


def confirm_intent(call: _Call) -> Json:
    _check_token_parameter(call)
    return payments.confirm_intent(call.ledger, call.account, call.ids["intent"], call.params, call.key)


def update_intent(call: _Call) -> Json:
    return payments.update_intent(call.ledger, call.account, call.ids["intent"], call.params)


def cancel_intent(call: _Call) -> Json:
    return payments.cancel_intent(call.ledger, call.account, call.ids["intent"], call.params)


def create_refund(call: _Call) -> Json:
    return payments.create_refund(call.ledger, call.account, call.params, call.key)


def search_intents(call: _Call) -> Json:
    return payments.search(call.ledger.listed("payment_intent", call.account), call.params, call.path)


def _reader(kind: str) -> Work:
    def read(call: _Call) -> Json:
        found = call.ledger.find(kind, call.ids["id"], call.account)
        if found is None:
            raise no_such(kind, call.ids["id"])
        return found

    return read


def _lister(kind: str) -> Work:
    def listed(call: _Call) -> Json:
        return payments.page(call.ledger.listed(kind, call.account), call.params, call.path)

    return listed


def create_payment_method(call: _Call) -> Json:
    return call.ledger.create_payment_method(call.account, call.params)


def create_webhook_endpoint(call: _Call) -> Json:
    url, events = call.params.get("url"), values(call.params.get("enabled_events"))
    if not url:
        raise missing("url")
    if not events:
        raise missing("enabled_events")
    endpoint: Json = {
        "id": new_id("we"),
        "object": "webhook_endpoint",
        "created": call.ledger.now(),
        "enabled_events": events,
        "livemode": False,
        "metadata": {},
        "secret": f"whsec_{secrets.token_hex(16)}",
        "status": "enabled",
        "url": url,
    }
    return call.ledger.save(call.account, endpoint)


ROUTES: Final[tuple[tuple[str, str, Work], ...]] = (
    ("POST", "/v1/payment_methods", create_payment_method),
    ("GET", "/v1/payment_methods/{id}", _reader("payment_method")),
    ("POST", "/v1/shared_payment/issued_tokens", issue_token),
    ("GET", "/v1/shared_payment/issued_tokens/{token}", issued_token),
    ("POST", "/v1/shared_payment/issued_tokens/{token}/revoke", revoke_token),
    ("GET", "/v1/shared_payment/granted_tokens/{token}", granted_token),
    ("POST", "/v1/test_helpers/shared_payment/granted_tokens", grant_test_token),
    ("POST", "/v1/test_helpers/shared_payment/granted_tokens/{token}/revoke", revoke_test_token),
    ("POST", "/v1/payment_intents", create_intent),
    ("GET", "/v1/payment_intents", _lister("payment_intent")),
    ("GET", "/v1/payment_intents/search", search_intents),
    ("GET", "/v1/payment_intents/{id}", _reader("payment_intent")),
    ("POST", "/v1/payment_intents/{intent}", update_intent),
    ("POST", "/v1/payment_intents/{intent}/confirm", confirm_intent),
    ("POST", "/v1/payment_intents/{intent}/cancel", cancel_intent),
    ("GET", "/v1/charges", _lister("charge")),
    ("GET", "/v1/charges/{id}", _reader("charge")),
    ("POST", "/v1/refunds", create_refund),
    ("GET", "/v1/refunds", _lister("refund")),
    ("GET", "/v1/refunds/{id}", _reader("refund")),
    ("GET", "/v1/events", _lister("event")),
    ("GET", "/v1/events/{id}", _reader("event")),
    ("POST", "/v1/webhook_endpoints", create_webhook_endpoint),
)


# HTTP


def _account(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            given = base64.b64decode(given, validate=True).decode().partition(":")[0]
    account = account_of_key(given)
    if account is None:
        raise StripeRefusal(
            401,
            kept=False,
            message="Invalid API Key provided: the sandbox takes keys of the form sk_test_<name>.",
        )
    return account


def _expanded(ledger: Ledger, body: Json, wanted: list[str]) -> Json:
    kinds = {
        "latest_charge": "charge",
        "payment_method": "payment_method",
        "payment_intent": "payment_intent",
    }
    for name in wanted:
        if name in kinds and isinstance(body.get(name), str):
            found = ledger.find(kinds[name], body[name], None)
            body = {**body, name: shown(found) if found else body[name]}
    return body


async def _params(request: Request) -> Json:
    try:
        if request.method == "GET":
            return decode_form(request.url.query)
        raw = await request.body()
        if len(raw) > MAX_BODY_BYTES:
            raise invalid("body", f"The body must have at most {MAX_BODY_BYTES} bytes.")
        return decode_form(raw.decode())
    except (MalformedFormError, UnicodeDecodeError, ClientDisconnect) as error:
        raise StripeRefusal(400, kept=False, message=str(error)) from None


def _endpoint(ledger: Ledger, work: Work) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        headers = {"Request-Id": new_id("req")}
        try:
            call = _Call(ledger, _account(request), await _params(request), request)
            if call.key is not None:
                headers["Idempotency-Key"] = call.key
                if len(call.key) > MAX_KEY_CHARS:
                    raise invalid("Idempotency-Key", f"At most {MAX_KEY_CHARS} characters.")
            if request.method == "POST":
                status, body, replayed = ledger.once(
                    call.account, call.key, call.path, call.params, lambda: work(call)
                )
                if replayed:
                    headers["Idempotent-Replayed"] = "true"
            else:
                with ledger.transaction():
                    status, body = 200, work(call)
            body = _expanded(ledger, shown(body), values(call.params.get("expand")))
        except StripeRefusal as refusal:
            status, body = refusal.status, refusal.body
        return JSONResponse(body, status, headers)

    return handle


class InFlightMiddleware:
    """Refuses a second request with an idempotency key while the first is in progress, as Stripe does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._under_way: set[tuple[str, str]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope.get("method") != "POST" or "idempotency-key" not in headers:
            await self.app(scope, receive, send)
            return
        claim = (headers.get("authorization", ""), headers["idempotency-key"])
        if claim in self._under_way:
            error = {
                "type": "idempotency_error",
                "code": "idempotency_key_in_use",
                "message": "There is currently another in-progress request using this idempotency key.",
            }
            await JSONResponse({"error": error}, 409)(scope, receive, send)
            return
        self._under_way.add(claim)
        try:
            await self.app(scope, receive, send)
        finally:
            self._under_way.discard(claim)


async def _deliver_events(ledger: Ledger, client: httpx.AsyncClient) -> None:
    """Sends due events, signed as Stripe signs them, until cancelled."""
    while True:
        for delivery in ledger.due_deliveries():
            endpoint = ledger.find("webhook_endpoint", delivery["endpoint"], None)
            event = ledger.find("event", delivery["event"], None)
            ok = endpoint is not None and event is not None and await _sent(client, endpoint, event)
            attempts = delivery["attempts"] + 1
            ledger.delivered(
                delivery["seq"],
                ok=ok,
                attempts=attempts,
                due=ledger.now() + min(2 ** (attempts - 1), MAX_DELIVERY_WAIT_SECONDS),
                give_up=attempts >= MAX_DELIVERY_ATTEMPTS,
            )
        await asyncio.sleep(DELIVERY_POLL_MS / 1000)


async def _sent(client: httpx.AsyncClient, endpoint: Json, event: Json) -> bool:
    payload = json.dumps(event)
    signature = WebhookSignature.generate_signature_header(payload, endpoint["secret"])
    headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
    try:
        answer = await client.post(endpoint["url"], content=payload, headers=headers)
    except httpx.HTTPError as error:
        logger.info("event %s not delivered: %s", event["id"], type(error).__name__)
        return False
    return answer.is_success


def create_app(data: Path, ledger: Ledger | None = None) -> FastAPI:
    """Returns the processor over the ledger in ``data`` (created where missing)."""
    books = ledger or Ledger(data / "processor.db")
    troubles = Troubles()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=DELIVERY_TIMEOUT_SECONDS, trust_env=False) as client:
            deliveries = asyncio.create_task(_deliver_events(books, client))
            try:
                yield
            finally:
                deliveries.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await deliveries
                books.close()

    app = FastAPI(title="Waystation sandbox processor", lifespan=lifespan)
    for method, path, work in ROUTES:
        app.add_api_route(path, _endpoint(books, work), methods=[method], response_class=JSONResponse)
    app.include_router(troubles.router())

    @app.get("/sandbox/ledger", tags=["sandbox"])
    async def ledger_shown() -> Json:
        tokens = books.listed("shared_payment.issued_token", None)
        return {
            "entries": books.entries(),
            "payment_intents": [shown(one) for one in books.listed("payment_intent", None)],
            "tokens": tokens,
        }

    @app.post("/sandbox/next_actions/{action}", tags=["sandbox"])
    async def authenticate(action: str) -> dict[str, str]:
        """Acts as the person who authenticates with their bank: the waiting token becomes active."""
        with books.transaction():
            if not books.authenticate(action):
                raise HTTPException(404, "no token waits for this")
        return {"status": "active"}

    @app.get("/sandbox/health", tags=["sandbox"])
    async def health() -> Json:
        return {"status": "ok", "striking": troubles.striking}

    app.add_middleware(TroubleMiddleware, troubles=troubles)
    app.add_middleware(InFlightMiddleware)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="Waystation's sandbox processor (Stripe's API, offline)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the ledger")
    options = parser.parse_args()
    serve(create_app(options.data), options.port, content_types=(FORM, JSON))


if __name__ == "__main__":
    main()
