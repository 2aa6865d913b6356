"""A small ACP seller that tests can bend: honest by default, lying, slow or broken where told.

It charges tokens at the real sandbox processor. Each *twist* gets the honest session of one
step (``create``, ``update``, ``read``, ``complete``, ``cancel``) and gives back what to answer:
a session, a Starlette response, or ``None`` for the honest one.
"""

import asyncio
import contextlib
import copy
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import stripe
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.world.uvicorn import served
from waystation.stripe_http import open_stripe

PRICES = {"mug": 900, "tea": 450, "ebook": 1200}
SHIPPING = {"slow": 500, "fast": 900}
TAX_PERCENT = 10

Twist = Callable[[dict[str, Any]], Any]


class ScriptedSeller:
    """One seller; ``origin`` is where it listens."""

    def __init__(self, processor: str, merchant: str = "shop") -> None:
        self.merchant = merchant
        self.stripe, self._connections = open_stripe(f"sk_test_{merchant}", api_base=processor)
        self.reset()
        self.origin = ""

    def reset(self) -> None:
        self.twists: dict[str, Twist] = {}
        self.before: dict[str, Callable[[], Any]] = {}
        """Answers given instead of doing anything; ``None`` lets the step happen."""

        self.sessions: dict[str, dict[str, Any]] = {}
        self.replies: dict[tuple[str, str], bytes] = {}
        self.calls: list[tuple[str, str | None, dict[str, Any] | None]] = []
        self.prices = dict(PRICES)

    def steps(self) -> list[str]:
        return [step for step, _, _ in self.calls]

    def keys(self, step: str) -> set[str | None]:
        return {key for called, key, _ in self.calls if called == step}

    # The honest seller

    def price(self, session: dict[str, Any]) -> dict[str, Any]:
        """The session with its lines, options, totals and status as they follow from what is in it."""
        lines, base = [], 0
        for number, item in enumerate(session["wanted"]):
            unit, quantity = self.prices[item["id"]], item.get("quantity", 1)
            base += unit * quantity
            amounts = totals(items_base_amount=unit * quantity, total=unit * quantity)
            lines.append(
                {
                    "id": f"li_{number}",
                    "item": {"id": item["id"]},
                    "name": item["id"].title(),
                    "quantity": quantity,
                    "unit_amount": unit,
                    "totals": amounts,
                }
            )
        shipped = SHIPPING.get(session.get("selected") or "", 0)
        tax = base * TAX_PERCENT // 100
        ready = bool(session.get("selected")) and session.get("fulfillment_details") is not None
        status = session["status"]
        if status in ("ready_for_payment", "not_ready_for_payment"):
            status = "ready_for_payment" if ready else "not_ready_for_payment"
        known = session.get("fulfillment_details") is not None
        return {
            **session,
            "status": status,
            "line_items": lines,
            "totals": totals(
                items_base_amount=base,
                subtotal=base,
                tax=tax,
                fulfillment=shipped,
                total=base + tax + shipped,
            ),
            "fulfillment_options": [
                {"type": "shipping", "id": name, "title": name, "totals": totals(total=price)}
                for name, price in (SHIPPING.items() if known else ())
            ],
            "selected_fulfillment_options": [
                {
                    "type": "shipping",
                    "option_id": session["selected"],
                    "item_ids": [item["id"] for item in session["wanted"]],
                }
            ]
            if session.get("selected")
            else [],
            "messages": [] if known else [message("missing", "$.fulfillment_details")],
        }

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        session = {
            "id": f"cs_{uuid.uuid4().hex}",
            "status": "not_ready_for_payment",
            "currency": body["currency"],
            "wanted": body["line_items"],
            "fulfillment_details": body.get("fulfillment_details"),
            "selected": None,
            "capabilities": {"payment": {"handlers": [handler(f"profile_test_{self.merchant}")]}},
            "links": [],
        }
        return self.price(session)

    def update(self, session: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        session = {**session}
        if "line_items" in body:
            session["wanted"] = body["line_items"]
        if "fulfillment_details" in body:
            session["fulfillment_details"] = body["fulfillment_details"]
        if body.get("selected_fulfillment_options"):
            session["selected"] = body["selected_fulfillment_options"][0]["option_id"]
        return self.price(session)

    async def complete(self, session: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if session["status"] == "completed":
            return session
        token = body["payment_data"]["instrument"]["credential"]["token"]
        total = next(t["amount"] for t in session["totals"] if t["type"] == "total")
        number = session.get("attempts", 0) + 1
        proof = (body.get("authentication_result") or {}).get("outcome_details")
        try:
            intent = await self.charge(session["id"], number, token, total, proof)
        except stripe.StripeError as error:
            text = message("payment_declined", "$.payment_data", error.user_message or "declined")
            return {**session, "attempts": number, "status": "ready_for_payment", "messages": [text]}
        if intent["status"] == "requires_action":
            return {
                **session,
                "attempts": number,
                "status": "authentication_required",
                "authentication_metadata": AUTHENTICATION,
                "messages": [message("requires_3ds", "$.authentication_result")],
            }
        return completed(session)

    async def charge(
        self, checkout: str, number: int, token: str, amount: int, proof: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        details: dict[str, Any] = {}
        if proof:
            secure = {
                "cryptogram": proof["three_ds_cryptogram"],
                "transaction_id": proof["transaction_id"],
                "version": proof["version"],
            }
            details = {"payment_method_options": {"card": {"three_d_secure": secure}}}
        answer = await self.stripe.raw_request_async(
            "post",
            "/v1/payment_intents",
            amount=amount,
            currency="usd",
            confirm="true",
            payment_method_data={"shared_payment_granted_token": token},
            metadata={"checkout": checkout},
            idempotency_key=f"{self.origin}:{checkout}:{number}",
            **details,
        )
        return dict(answer.data)

    # HTTP

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/acp.json", self._discovery),
                Route("/checkout_sessions", self._create, methods=["POST"]),
                Route("/checkout_sessions/{id}", self._read, methods=["GET"]),
                Route("/checkout_sessions/{id}", self._update, methods=["POST"]),
                Route("/checkout_sessions/{id}/complete", self._complete, methods=["POST"]),
                Route("/checkout_sessions/{id}/cancel", self._cancel, methods=["POST"]),
            ]
        )

    async def _discovery(self, request: Request) -> Response:
        honest = {
            "protocol": {"name": "acp", "version": "2026-04-17", "supported_versions": ["2026-04-17"]},
            "api_base_url": self.origin,
            "transports": ["rest"],
            "capabilities": {"services": ["checkout"]},
        }
        return await self._answer("discovery", request, lambda _: honest, 200)

    async def _create(self, request: Request) -> Response:
        return await self._answer("create", request, self.create, 201)

    async def _read(self, request: Request) -> Response:
        session = self.sessions[request.path_params["id"]]
        return await self._answer("read", request, lambda _: session, 200)

    async def _update(self, request: Request) -> Response:
        session = self.sessions[request.path_params["id"]]
        return await self._answer("update", request, lambda body: self.update(session, body), 200)

    async def _complete(self, request: Request) -> Response:
        session = self.sessions[request.path_params["id"]]
        return await self._answer("complete", request, lambda body: self.complete(session, body), 200)

    async def _cancel(self, request: Request) -> Response:
        session = self.sessions[request.path_params["id"]]
        if session["status"] in ("completed", "canceled"):
            self.calls.append(("cancel", None, None))
            return JSONResponse({"type": "invalid_request", "code": "conflict", "message": "closed"}, 405)
        return await self._answer("cancel", request, lambda _: {**session, "status": "canceled"}, 200)

    async def _answer(
        self,
        step: str,
        request: Request,
        work: Callable[[Any], Any],
        status: int,
    ) -> Response:
        key = request.headers.get("idempotency-key")
        raw = await request.body()
        body = json.loads(raw) if raw else None
        self.calls.append((step, key, body))
        known = self.replies.get((request.url.path, key)) if key else None
        if known is not None:
            return Response(known, status, {"Idempotent-Replayed": "true"}, "application/json")
        instead = self.before[step]() if step in self.before else None
        if instead is not None:
            return instead if isinstance(instead, Response) else await instead
        session = work(body)
        if asyncio.iscoroutine(session):
            session = await session
        if step != "discovery":
            self.sessions[session["id"]] = session
        twisted = self.twists[step](copy.deepcopy(session)) if step in self.twists else None
        if asyncio.iscoroutine(twisted):
            twisted = await twisted
        if isinstance(twisted, Response):
            return twisted
        shown = {k: v for k, v in (twisted or session).items() if k not in ("wanted", "selected", "attempts")}
        answer = json.dumps({k: v for k, v in shown.items() if v is not None}).encode()
        if key:
            self.replies[request.url.path, key] = answer
        return Response(answer, status, {"Request-Id": f"req_{len(self.calls)}"}, "application/json")

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator["ScriptedSeller"]:
        try:
            async with served(self.app()) as self.origin:
                yield self
        finally:
            await self._connections.close_async()


AUTHENTICATION = {
    "acquirer_details": {
        "acquirer_bin": "400000",
        "acquirer_country": "US",
        "acquirer_merchant_id": "0",
        "merchant_name": "Shop",
    },
    "directory_server": "visa",
}


def completed(session: dict[str, Any]) -> dict[str, Any]:
    order = {
        "id": f"order_{session['id']}",
        "checkout_session_id": session["id"],
        "permalink_url": "https://shop.example/orders/1",
        "status": "created",
    }
    return {**session, "status": "completed", "order": order, "messages": []}


def totals(**by_type: int) -> list[dict[str, Any]]:
    return [{"type": kind, "display_text": kind, "amount": amount} for kind, amount in by_type.items()]


def message(code: str, param: str, text: str = "please") -> dict[str, Any]:
    return {"type": "error", "code": code, "param": param, "content_type": "plain", "content": text}


def handler(merchant: str) -> dict[str, Any]:
    return {
        "id": "card_tokenized",
        "name": "dev.acp.tokenized.card",
        "version": "2026-01-22",
        "spec": "https://acp.dev/handlers/tokenized.card",
        "requires_delegate_payment": True,
        "requires_pci_compliance": False,
        "psp": "stripe",
        "config_schema": "https://acp.dev/config.json",
        "instrument_schemas": [],
        "config": {"merchant_id": merchant},
    }
