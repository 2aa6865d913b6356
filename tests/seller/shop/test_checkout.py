"""Checkouts over HTTP against the sandbox shop; ``Agent`` holds every answer against the JSON Schemas."""

import asyncio
import secrets
from typing import Any

import httpx
import pytest

from tests.seller.shop.agent import ADDRESS, BUYER, NO_SPEC, SPEC, Agent, check, codes, payment, total
from tests.world.sandbox import Shop
from waystation.protocols import acp
from waystation.protocols.acp.totals import problems_of_totals


@pytest.mark.skipif(SPEC is None, reason=NO_SPEC)
async def test_the_schemas_are_at_hand_and_bite(agent: Agent) -> None:
    session = await agent.create(("mug_blue", 1))
    with pytest.raises(AssertionError, match="surprise"):
        check({**session, "surprise": 1}, "CheckoutSession")
    check(await _json(agent.http.get("/.well-known/acp.json")), "DiscoveryResponse")


async def _json(answer: Any) -> Any:
    return (await answer).json()


async def test_discovery_needs_no_key(agent: Agent, shop: Shop) -> None:
    answer = await agent.http.get("/.well-known/acp.json")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    found = acp.read_discovery(answer.content)
    assert found.api_base_url == shop.url
    assert found.protocol.supported_versions == ("2026-04-17",)


async def test_the_feed_names_what_a_checkout_takes(agent: Agent) -> None:
    assert (await agent.send("GET", "/feeds/catalog")).json()["target_country"] == "US"
    feed = acp.read_products((await agent.send("GET", "/feeds/catalog/products")).content)
    variants = {variant.id: variant for product in feed.products for variant in product.variants}
    assert variants["mug_blue"].price == acp.FeedPrice(amount=1800, currency="USD")
    session = await agent.create(*((variant, 1) for variant in variants if variant != "wine_red"))
    assert len(session["line_items"]) == len(variants) - 1
    assert (await agent.send("GET", "/feeds/other")).json()["code"] == "feed_not_found"


async def test_from_cart_to_order(agent: Agent, shop: Shop) -> None:
    session = await agent.create(("mug_blue", 2), ("ebook_tides", 1))
    assert session["status"] == "not_ready_for_payment"
    params = [message["param"] for message in session["messages"]]
    assert params == ["$.fulfillment_details.address", "$.buyer.email"]

    session = await agent.update(session["id"], buyer=BUYER, fulfillment_details={"address": ADDRESS})
    assert codes(session) == ["missing"]
    assert [option["id"] for option in session["fulfillment_options"]] == [
        "ship_standard",
        "ship_express",
        "pickup_pier",
        "download",
    ]
    session = await agent.select(session["id"], "ship_express")
    assert session["status"] == "ready_for_payment"
    amounts = {one["type"]: one["amount"] for one in session["totals"]}
    assert amounts == {
        "items_base_amount": 4850,
        "subtotal": 4850,
        "fulfillment": 1500,
        "tax": 297,  # 8.25 % of the mugs, rounded half up; downloads are not taxed in California
        "total": 6647,
    }
    assert problems_of_totals(acp.read_session(httpx.Response(200, json=session).content)) == ()

    token = await agent.token(6647)
    answer = await agent.complete(session["id"], token)
    assert answer.status_code == 200
    done = answer.json()
    assert done["status"] == "completed"
    order = done["order"]
    assert order["checkout_session_id"] == session["id"]
    assert order["line_items"][0]["quantity"] == {"ordered": 2, "current": 2, "fulfilled": 0}
    assert order["fulfillments"][0]["type"] == "digital"
    assert (await agent.read(session["id"]))["order"] == order
    assert (await agent.send("GET", f"/orders/{order['id']}")).json() == order
    entries = shop.entries_of(session["id"])
    assert [(entry["amount"], entry["token"]) for entry in entries] == [(6647, token)]
    # The key that moves money names the checkout and the attempt, never a token.
    assert entries[0]["idempotency_key"] == f"{session['id']}:confirm:0:1"
    assert len(shop.sales_of(session["id"])) == 1
    assert (await agent.issued(token))["deactivated_reason"] == "consumed"
    assert shop.state()["reservations"] == []


async def test_digital_goods_need_no_address(agent: Agent) -> None:
    session = await agent.create(("ebook_tides", 1), buyer=BUYER)
    assert session["status"] == "ready_for_payment"
    assert session["selected_fulfillment_options"][0]["option_id"] == "download"
    done = (await agent.complete(session["id"], await agent.token(total(session)))).json()
    assert done["order"]["status"] == "delivered"


async def test_an_update_replaces_items_and_keeps_the_rest(agent: Agent) -> None:
    session = await agent.ready(("mug_blue", 1))
    changed = await agent.update(session["id"], line_items=[{"id": "lamp_desk", "quantity": 2}])
    assert [(line["item"]["id"], line["quantity"]) for line in changed["line_items"]] == [("lamp_desk", 2)]
    assert changed["buyer"] == session["buyer"]
    assert changed["selected_fulfillment_options"][0]["option_id"] == "ship_standard"
    too_many = await agent.update(session["id"], line_items=[{"id": "lamp_desk", "quantity": 5}])
    assert "quantity_exceeded" in codes(too_many)
    assert too_many["status"] == "not_ready_for_payment"


async def test_discount_codes(agent: Agent) -> None:
    session = await agent.ready(("mug_blue", 2), discounts={"codes": ["save10", "SUMMER24", "nonsense"]})
    amounts = {one["type"]: one["amount"] for one in session["totals"]}
    assert (amounts["items_discount"], amounts["subtotal"], amounts["tax"]) == (360, 3240, 267)
    assert [one["code"] for one in session["discounts"]["applied"]] == ["SAVE10"]
    assert {one["code"]: one["reason"] for one in session["discounts"]["rejected"]} == {
        "SUMMER24": "discount_code_expired",
        "NONSENSE": "discount_code_invalid",
    }
    assert codes(session) == ["discount_code_expired", "discount_code_invalid"]
    fixed = await agent.update(session["id"], discounts={"codes": ["WELCOME5"]})
    amounts = {one["type"]: one["amount"] for one in fixed["totals"]}
    assert (amounts["discount"], amounts["total"]) == (500, 3600 - 500 + 500 + 297)
    cleared = await agent.update(session["id"], discounts={"codes": []})
    assert "discounts" not in cleared


@pytest.mark.parametrize(
    "body",
    [
        {"line_items": [{"id": "mug_blue", "quantity": 2}], "currency": "USD", "surprise": {"x": 1}},
        {"items": [{"id": "mug_blue", "quantity": 2}]},
        {"line_items": [{"item": {"id": "mug_blue"}, "quantity": 2}], "currency": "usd"},
        {"line_items": [{"id": "line_1", "item": {"id": "mug_blue"}, "quantity": 2}]},
        {"line_items": [{"id": "mug_blue", "quantity": 1}, {"id": "mug_blue"}], "buyer": None},
    ],
)
async def test_dialects_of_create(agent: Agent, body: dict[str, Any]) -> None:
    session = (await agent.send("POST", "/checkout_sessions", body)).json()
    assert [(line["item"]["id"], line["quantity"]) for line in session["line_items"]] == [("mug_blue", 2)]


async def test_dialects_of_update_and_complete(agent: Agent) -> None:
    session = await agent.create(("mug_blue", 1), buyer=BUYER, fulfillment_address=ADDRESS)
    nested = {"type": "shipping", "shipping": {"option_id": "ship_express", "item_ids": ["mug_blue"]}}
    session = await agent.update(session["id"], selected_fulfillment_options=[nested])
    assert session["selected_fulfillment_options"][0]["option_id"] == "ship_express"
    session = await agent.update(session["id"], fulfillment_option_id="ship_standard")
    assert session["selected_fulfillment_options"][0]["option_id"] == "ship_standard"
    body = {"payment_data": {"token": await agent.token(total(session)), "provider": "stripe"}}
    answer = await agent.send("POST", f"/checkout_sessions/{session['id']}/complete", body)
    assert answer.json()["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing", "$.line_items"),
        ({"line_items": []}, "invalid", "$.line_items"),
        ({"line_items": [{"id": "no_such"}]}, "invalid_item_id", "$.line_items[0].item.id"),
        ({"line_items": [{"id": "mug_blue", "quantity": 0}]}, "invalid", "$.line_items[0].quantity"),
        ({"line_items": [{"id": "mug_blue", "quantity": -1}]}, "invalid", "$.line_items[0].quantity"),
        ({"line_items": [{"id": "mug_blue", "quantity": 1.5}]}, "invalid", "$.line_items[0].quantity"),
        ({"line_items": [{"id": "mug_blue", "quantity": "2"}]}, "invalid", "$.line_items[0].quantity"),
        ({"line_items": [{"id": "mug_blue", "quantity": 10**12}]}, "invalid", "$.line_items[0].quantity"),
        ({"line_items": [{"id": "mug_blue"}], "currency": "eur"}, "unsupported_currency", "$.currency"),
        ({"line_items": [{"id": "mug_blue"}], "buyer": {"email": "nobody"}}, "invalid", "$.buyer.email"),
        ([], "invalid", "$"),
    ],
)
async def test_bad_requests_name_the_place(agent: Agent, body: Any, code: str, param: str) -> None:
    answer = await agent.send("POST", "/checkout_sessions", body)
    assert answer.status_code == 400
    assert (answer.json()["type"], answer.json()["code"]) == ("invalid_request", code)
    assert answer.json()["param"] == param


async def test_bodies_that_are_no_json(agent: Agent) -> None:
    for raw in (b"{", b'{"line_items": NaN}', b"\xff\xfe", b"[" * 100_000):
        assert (await agent.send("POST", "/checkout_sessions", raw=raw)).status_code == 400
    big = b'{"order_notes": "' + b"x" * (acp.MAX_BODY_BYTES + 1) + b'"}'
    assert (await agent.send("POST", "/checkout_sessions", raw=big)).status_code == 413


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": None}, 401, "unauthorized"),
        ({"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        ({"Authorization": "Basic sandbox-agent-key"}, 401, "unauthorized"),
        ({"API-Version": None}, 400, "missing_api_version"),
        ({"API-Version": "2025-09-29"}, 400, "unsupported_api_version"),
        ({"Idempotency-Key": None}, 400, "idempotency_key_required"),
        ({"Idempotency-Key": "x" * 256}, 400, "invalid"),
    ],
)
async def test_headers_are_required(
    agent: Agent, headers: dict[str, str | None], status: int, code: str
) -> None:
    body = {"line_items": [{"id": "mug_blue"}]}
    answer = await agent.send("POST", "/checkout_sessions", body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if "version" in code:
        assert answer.json()["supported_versions"] == ["2026-04-17"]


async def test_what_is_not_there_is_404(agent: Agent) -> None:
    for path in ("/checkout_sessions/cs_none", "/carts/cart_none", "/orders/ord_none"):
        assert (await agent.send("GET", path)).status_code == 404
    for path in ("/checkout_sessions/cs_none", "/checkout_sessions/cs_none/cancel"):
        assert (await agent.send("POST", path, {})).status_code == 404
    answer = await agent.send("POST", "/checkout_sessions/cs_none/complete", payment("spt_x"))
    assert answer.json()["code"] == "not_found"


async def test_unknown_option_is_refused(agent: Agent) -> None:
    session = await agent.ready(("mug_blue", 1))
    pick = {"type": "shipping", "option_id": "teleport", "item_ids": []}
    answer = await agent.send(
        "POST", f"/checkout_sessions/{session['id']}", {"selected_fulfillment_options": [pick]}
    )
    assert answer.json()["param"] == "$.selected_fulfillment_options[0].option_id"


async def test_cancel_once(agent: Agent) -> None:
    session = await agent.ready(("mug_blue", 1))
    path = f"/checkout_sessions/{session['id']}/cancel"
    reason = {"intent_trace": {"reason_code": "timing_deferred"}}
    canceled = await agent.send("POST", path, reason)
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    assert (await agent.send("POST", path)).status_code == 405
    answer = await agent.complete(session["id"], await agent.token(total(session)))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    update = await agent.send("POST", f"/checkout_sessions/{session['id']}", {"buyer": BUYER})
    assert update.status_code == 409


async def test_carts(agent: Agent) -> None:
    created = await agent.send("POST", "/carts", {"line_items": [{"id": "mug_blue", "quantity": 2}]})
    assert created.status_code == 201
    path = f"/carts/{created.json()['id']}"
    replaced = await agent.send("PUT", path, {"line_items": [{"id": "lamp_desk"}]})
    assert [line["item"]["id"] for line in replaced.json()["line_items"]] == ["lamp_desk"]
    assert (await agent.send("GET", path)).json() == replaced.json()
    assert (await agent.send("POST", f"{path}/cancel")).json() == replaced.json()
    assert (await agent.send("GET", path)).status_code == 404


async def test_an_escalation_needs_a_person(agent: Agent, shop: Shop) -> None:
    buyer = {"email": f"{secrets.token_hex(4)}@example.com"}
    session = await agent.create(
        ("wine_red", 1), buyer=buyer, fulfillment_details={"name": "A", "address": ADDRESS}
    )
    session = await agent.select(session["id"], "ship_standard")
    assert session["status"] == "requires_escalation"
    answer = await agent.complete(session["id"], await agent.token(total(session)))
    assert answer.json()["status"] == "requires_escalation"
    assert shop.entries_of(session["id"]) == []
    (await agent.http.post(session["continue_url"])).raise_for_status()
    done = await agent.complete(session["id"], await agent.token(total(session)))
    assert done.json()["status"] == "completed"


# Idempotency


async def test_a_key_is_replayed(agent: Agent) -> None:
    key, body = secrets.token_hex(8), {"line_items": [{"id": "mug_blue", "quantity": 1}], "currency": "usd"}
    first = await agent.send("POST", "/checkout_sessions", body, key=key)
    assert "Idempotent-Replayed" not in first.headers
    same_meaning = b'{ "currency":"usd",\n "line_items": [ {"quantity": 1, "id": "mug_blue"} ] }'
    again = await agent.send("POST", "/checkout_sessions", raw=same_meaning, key=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await agent.send("POST", "/checkout_sessions", {**body, "locale": "en"}, key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    elsewhere = await agent.send("POST", "/carts", {"line_items": [{"id": "mug_blue"}]}, key=key)
    assert elsewhere.status_code == 201


async def test_refusals_are_replayed_too(agent: Agent) -> None:
    key, body = secrets.token_hex(8), {"line_items": [{"id": "no_such"}]}
    first = await agent.send("POST", "/checkout_sessions", body, key=key)
    again = await agent.send("POST", "/checkout_sessions", body, key=key)
    assert (first.status_code, again.status_code) == (400, 400)
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_key_in_flight(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    token, key = await agent.token(total(session)), secrets.token_hex(8)
    shop.processor.trouble(kind="slow", match="POST .*/confirm", delay_ms=1500)
    slow = asyncio.create_task(agent.complete(session["id"], token, key=key))
    while await asyncio.to_thread(shop.processor.armed):
        assert not slow.done()
    second = await agent.complete(session["id"], token, key=key)
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_in_flight")
    assert int(second.headers["Retry-After"]) >= 1
    assert (await slow).json()["status"] == "completed"
    replayed = await agent.complete(session["id"], token, key=key)
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert len(shop.entries_of(session["id"])) == 1


async def test_another_identity_sees_nothing_and_shares_no_keys(agent: Agent) -> None:
    """Keys and checkouts belong to who made them (covered in process by test_kit for two identities)."""
    session = await agent.create(("mug_blue", 1))
    answer = await agent.send(
        "GET", f"/checkout_sessions/{session['id']}", headers={"Authorization": "Bearer other"}
    )
    assert answer.status_code == 401
