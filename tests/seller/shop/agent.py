"""An agent that talks to a seller over HTTP and holds every answer against the published JSON Schemas."""

import json
import os
import secrets
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import jsonschema
from referencing import Registry, Resource

from waystation.protocols.acp import API_VERSION
from waystation.stripe_http import open_stripe

Json = dict[str, Any]

SPEC = os.environ.get("WAYSTATION_ACP_SPEC")
NO_SPEC = "set WAYSTATION_ACP_SPEC to the folder of the ACP specification that has json-schema/ and examples/"

BUYER: Json = {"first_name": "Ada", "last_name": "Miller", "email": "ada@example.com"}
ADDRESS: Json = {
    "name": "Ada Miller",
    "line_one": "12 Bay Street",
    "city": "San Francisco",
    "state": "CA",
    "country": "US",
    "postal_code": "94107",
}


@cache
def _registry() -> Registry[Any]:
    assert SPEC is not None
    resources = []
    for file in (Path(SPEC) / "json-schema").glob("*.json"):
        resource = Resource.from_contents(json.loads(file.read_text()))
        resources.append((file.name, resource))
    return Registry().with_resources(resources)


@cache
def _validator(file: str, shape: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        {"$ref": f"{file}#/$defs/{shape}"},
        registry=_registry(),
        format_checker=jsonschema.FormatChecker(),
    )


def check(body: Any, shape: str, file: str = "schema.agentic_checkout.json") -> None:
    """Fails with every way in which the body breaks the schema; does nothing without the specification."""
    if SPEC is None:
        return
    problems = [f"{error.json_path}: {error.message}" for error in _validator(file, shape).iter_errors(body)]
    assert not problems, (shape, problems, body)


class Agent:
    """One identity at one seller, and an account at the processor to issue tokens from."""

    def __init__(self, shop_url: str, processor_url: str, api_key: str = "sandbox-agent-key") -> None:
        self.http = httpx.AsyncClient(base_url=shop_url, timeout=20, trust_env=False)
        self.api_key = api_key
        self.stripe, self.stripe_http = open_stripe("sk_test_agent", api_base=processor_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.http.aclose()
        await self.stripe_http.close_async()

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, str | None] | None = None,
        raw: bytes | None = None,
    ) -> httpx.Response:
        """Sends with good headers, except for those given (``None`` leaves one out); checks the answer."""
        good: dict[str, str | None] = {
            "Authorization": f"Bearer {self.api_key}",
            "API-Version": API_VERSION,
            "Content-Type": "application/json",
            "Idempotency-Key": (key or secrets.token_hex(8)) if method != "GET" else None,
            "Request-Id": f"req_{secrets.token_hex(4)}",
        }
        given = {name: value for name, value in {**good, **(headers or {})}.items() if value is not None}
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        answer = await self.http.request(method, path, content=content, headers=given)
        self._check(method, path, answer, given)
        return answer

    def _check(self, method: str, path: str, answer: httpx.Response, given: dict[str, str]) -> None:
        assert answer.headers["content-type"] == "application/json"
        if "Request-Id" in given:
            assert answer.headers["Request-Id"] == given["Request-Id"]
        if answer.is_error:
            check(answer.json(), "Error")
        elif path.startswith("/carts"):
            check(answer.json(), "Cart", "schema.cart.json")
        elif path.startswith("/feeds"):
            shape = "ProductsResponse" if path.endswith("/products") else "FeedMetadata"
            check(answer.json(), shape, "schema.feed.json")
        elif path.startswith("/orders"):
            check(answer.json(), "Order")
        else:
            completed = answer.json()["status"] == "completed"
            check(answer.json(), "CheckoutSessionWithOrder" if completed else "CheckoutSession")
        if method == "POST" and not answer.is_error:
            assert answer.headers["Idempotency-Key"] == given["Idempotency-Key"]

    # The usual steps

    async def create(self, *items: tuple[str, int], **more: Any) -> Json:
        body = {
            "line_items": [{"id": item, "quantity": quantity} for item, quantity in items],
            "currency": "usd",
            "capabilities": {},
            **more,
        }
        answer = await self.send("POST", "/checkout_sessions", body)
        assert answer.status_code == 201, answer.text
        created: Json = answer.json()
        return created

    async def ready(self, *items: tuple[str, int], option: str = "ship_standard", **more: Any) -> Json:
        """A checkout of physical goods, ready for payment."""
        session = await self.create(
            *items, buyer=BUYER, fulfillment_details={"name": "Ada Miller", "address": ADDRESS}, **more
        )
        return await self.select(session["id"], option)

    async def select(self, checkout_id: str, option: str) -> Json:
        pick = {"type": "shipping", "option_id": option, "item_ids": []}
        return await self.update(checkout_id, selected_fulfillment_options=[pick])

    async def update(self, checkout_id: str, **changes: Any) -> Json:
        answer = await self.send("POST", f"/checkout_sessions/{checkout_id}", changes)
        assert answer.status_code == 200, answer.text
        changed: Json = answer.json()
        return changed

    async def read(self, checkout_id: str) -> Json:
        answer = await self.send("GET", f"/checkout_sessions/{checkout_id}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def token(self, amount: int, card: str = "pm_card_visa", seller: str = "profile_test_shop") -> str:
        answer = await self.stripe.raw_request_async(
            "post",
            "/v1/shared_payment/issued_tokens",
            idempotency_key=secrets.token_hex(8),
            payment_method=card,
            seller_details={"network_business_profile": seller},
            usage_limits={"currency": "usd", "max_amount": amount},
        )
        return str(json.loads(answer.body)["id"])

    async def issued(self, token: str) -> Json:
        answer = await self.stripe.raw_request_async("get", f"/v1/shared_payment/issued_tokens/{token}")
        found: Json = json.loads(answer.body)
        return found

    async def complete(
        self, checkout_id: str, token: str, *, key: str | None = None, **more: Any
    ) -> httpx.Response:
        body = payment(token) | more
        return await self.send("POST", f"/checkout_sessions/{checkout_id}/complete", body, key=key)


def payment(token: str) -> Json:
    instrument = {"type": "card", "credential": {"type": "spt", "token": token}}
    return {"payment_data": {"handler_id": "card_tokenized", "instrument": instrument}}


def total(session: Json) -> int:
    return int(next(one["amount"] for one in session["totals"] if one["type"] == "total"))


def codes(session: Json) -> list[str]:
    """The codes of a session's messages."""
    return [message.get("code", message["type"]) for message in session["messages"]]
