"""The routes of mandates and purchases, the webhooks in, and the codec endpoint."""

import asyncio
import dataclasses
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from temporalio.client import Client as TemporalClient
from typer.testing import CliRunner

from api.gateways.index import SearchIndex
from api.gateways.money import MoneyGateway, MoneyParts
from api.gateways.sessions import Gateway
from api.live.control import Control
from api.main import create_app
from api.routes import codec, mandates, purchases
from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import BUYER, DETAILS
from tests.world.sandbox import Processor
from tests.world.temporal import TEMPORAL, TemporalServer
from tests.world.uvicorn import served
from waystation.agent.money import Purse, Spender
from waystation.cli import money as money_cli
from waystation.client import Client
from waystation.client.purchases import Buying
from waystation.errors import ConflictError, NotAllowed
from waystation.models.purchases import PurchaseRequest
from waystation.models.trail import AuditTrail
from waystation.protocols.acp.webhooks import sign_webhook
from waystation.settings import ApiKey, ApiRole, MoneySettings, Settings, hash_api_key
from waystation.temporal.search_attributes import WAITS_FOR, keys_of
from waystation.temporal.terms import role_term
from workflows.trail import verify

KEYS: dict[str, ApiRole] = {
    "agent": "agent",
    "alice": "approver",
    "bob": "approver",
    "ops": "operator",
    "backend": "service",
    "rival": "agent",
    "carol": "client",
}
AGENTS = {"agent": ("shopper",)}
WEBHOOK_SECRET = "whsec_ofTheSellerInTheTests"


class Api:
    """Calls as one of the people with a key."""

    def __init__(self, http: httpx.AsyncClient, seller: str) -> None:
        self.http, self.seller = http, seller

    async def call(self, who: str, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {who}-key"}
        return await self.http.request(method, path, json=body, headers=headers, params=params)

    async def mandate(self, **changes: Any) -> str:
        terms = {
            "owner": "alice",
            "agent": "shopper",
            "cap": {"amount": 100_000, "currency": "usd"},
            "valid_until": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
            "sellers": [self.seller],
            "payment_methods": ["pm_card_visa"],
            **changes,
        }
        answer = await self.call("alice", "POST", "/mandates", {"terms": terms})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["mandate_id"])

    def wanted(self, mandate_id: str, **changes: Any) -> dict[str, Any]:
        return {
            "mandate_id": mandate_id,
            "seller": self.seller,
            "currency": "usd",
            "items": [{"id": "mug", "quantity": 2}],
            "agent": {"id": "shopper"},
            "buyer": BUYER,
            "fulfillment_details": DETAILS,
            **changes,
        }

    async def buy(self, mandate_id: str, **changes: Any) -> str:
        body = {"request": self.wanted(mandate_id, **changes)}
        answer = await self.call("agent", "POST", "/purchases", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["purchase_id"])

    async def until(self, purchase_id: str, status: str) -> dict[str, Any]:
        async def reached() -> dict[str, Any] | None:
            view: dict[str, Any] = (await self.call("ops", "GET", f"/purchases/{purchase_id}")).json()
            return view if view["status"] == status else None

        found: dict[str, Any] = await eventually(reached, what=f"the purchase is {status}")
        return found


@pytest.fixture
async def api(
    temporal_server: TemporalServer,
    encrypted: TemporalClient,
    purchase_queue: str,
    seller: ScriptedSeller,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Api]:
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_server.address)
    keys = tuple(
        ApiKey(id=name, role=role, sha256=hash_api_key(f"{name}-key"), agents=AGENTS.get(name, ()))
        for name, role in KEYS.items()
    )
    app = create_app(Settings(api_keys=keys, token_secrets=(SecretStr("x" * 32),)))
    for part in (mandates, purchases, codec):
        app.include_router(part.router)
    async with app.router.lifespan_context(app):
        secrets = {seller.origin: (SecretStr(WEBHOOK_SECRET),)}
        index = SearchIndex(encrypted, keys_of(()))
        parts, gateway = app.state.parts, Gateway(encrypted, 10.0, index=index)
        money = MoneyGateway(encrypted, 10.0, task_queue=purchase_queue, index=index)
        app.state.parts = dataclasses.replace(
            parts,
            gateway=gateway,
            money=MoneyParts(gateway=money, settings=MoneySettings(seller_webhook_secrets=secrets)),
            control=Control(parts.feeds, parts.bus, gateway, money),
        )
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
            yield Api(http, seller.origin)


async def test_from_the_mandate_to_the_receipt(api: Api, processor: Processor) -> None:
    mandate_id = await api.mandate()
    purchase_id = await api.buy(mandate_id)
    view = await api.until(purchase_id, "awaiting_approval")
    approval = {"digest": view["digest"]}
    answer = await api.call("alice", "POST", f"/purchases/{purchase_id}/approve", approval)
    assert answer.status_code == 200
    done = (await api.call("agent", "GET", f"/purchases/{purchase_id}", wait_seconds=20)).json()
    assert done["status"] == "completed"
    assert done["receipt"]["approved_by"] == "alice"
    balance = (await api.call("alice", "GET", f"/mandates/{mandate_id}")).json()
    assert (balance["spent"]["amount"], balance["reserved"]["amount"]) == (2480, 0)
    trail = AuditTrail.model_validate(
        (await api.call("ops", "GET", f"/purchases/{purchase_id}/audit")).json()
    )
    assert verify(trail.entries)
    cart = (await api.call("agent", "GET", f"/purchases/{purchase_id}/cart")).json()
    assert cart["total"] == 2480
    listed = (await api.call("ops", "GET", "/purchases", limit=100)).json()
    assert purchase_id in [one["purchase_id"] for one in listed]


async def test_however_many_wait_for_the_end_somebody_can_approve(api: Api) -> None:
    """Ten updates of a workflow may be under way: those that wait must leave room for a decision."""
    purchase_id = await api.buy(await api.mandate())
    view = await api.until(purchase_id, "awaiting_approval")
    look = f"/purchases/{purchase_id}"
    gone = await asyncio.gather(*(api.call("ops", "GET", look, wait_seconds=0.3) for _ in range(12)))
    assert {answer.json()["status"] for answer in gone} == {"awaiting_approval"}
    waiting = [asyncio.create_task(api.call("ops", "GET", look, wait_seconds=20)) for _ in range(12)]
    for_people = await api.call("ops", "GET", look, wait_seconds=20, or_for_a_person=True)
    assert for_people.json()["status"] == "awaiting_approval"
    answer = await api.call("alice", "POST", f"{look}/approve", {"digest": view["digest"]})
    assert answer.status_code == 200
    after = await api.call("ops", "GET", look, wait_seconds=20, or_for_a_person=True)
    assert after.json()["status"] == "completed"
    assert {one.json()["status"] for one in await asyncio.gather(*waiting)} == {"completed"}


async def test_what_waits_for_an_approver_is_found_among_the_rest(api: Api) -> None:
    mandate_id = await api.mandate()
    waiting, done = await api.buy(mandate_id), await api.buy(mandate_id)
    for purchase_id in (waiting, done):
        view = await api.until(purchase_id, "awaiting_approval")
    await api.call("alice", "POST", f"/purchases/{done}/approve", {"digest": view["digest"]})
    await api.until(done, "completed")

    async def listed() -> list[str]:
        answer = await api.call("alice", "GET", "/purchases", limit=100, waiting=True)
        return [one["purchase_id"] for one in answer.json()]

    async def waiting_alone() -> bool:
        return waiting in await listed() and done not in await listed()

    await eventually(waiting_alone)
    await api.call("alice", "POST", f"/purchases/{waiting}/reject", {"reason": "no"})

    async def none_waits() -> bool:
        return waiting not in await listed()

    await eventually(none_waits)


async def test_what_a_mandate_paid_for_is_listed_page_by_page_to_whoever_sees_it(api: Api) -> None:
    mandate_id, other = await api.mandate(), await api.mandate()
    bought = [await api.buy(mandate_id, session_id=name) for name in ("one", "two", "three")]
    of_other = await api.buy(other)
    first, *_ = [await api.until(one, "awaiting_approval") for one in (*bought, of_other)]
    await api.call("alice", "POST", f"/purchases/{bought[0]}/approve", {"digest": first["digest"]})
    await api.until(bought[0], "completed")

    async def listed(who: str = "alice", **params: Any) -> list[str]:
        answer = await api.call(who, "GET", "/purchases", mandate_id=mandate_id, **params)
        assert answer.status_code == 200, answer.text
        return [one["purchase_id"] for one in answer.json()]

    async def all_are_there() -> bool:
        return len(await listed()) == 3

    await eventually(all_are_there)
    balance = (await api.call("alice", "GET", f"/mandates/{mandate_id}")).json()
    newest_first = [one["holder"] for one in reversed(balance["reservations"])]
    assert sorted(newest_first) == sorted(bought)
    assert await listed() == newest_first
    assert await listed(limit=2) == newest_first[:2]
    assert await listed(limit=2, before=newest_first[1]) == newest_first[2:]
    assert await listed(before=newest_first[2]) == []
    assert await listed(waiting=True) == [one for one in newest_first if one != bought[0]]
    assert await listed(session_id="two", limit=1) == [bought[1]], "whatever a page leaves out"
    assert await listed("ops") == await listed("agent") == newest_first
    for who in ("bob", "rival", "carol"):
        refused = await api.call(who, "GET", "/purchases", mandate_id=mandate_id)
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown-mandate"), who
    for params in ({"before": of_other, "mandate_id": mandate_id}, {"before": bought[0]}):
        wrong = await api.call("alice", "GET", "/purchases", **params)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "wrong-cursor")


async def test_what_was_started_without_search_attributes_is_found_too(
    api: Api, encrypted: TemporalClient, purchase_queue: str
) -> None:
    async def marked(purchase_id: str) -> bool:
        waits = f"WorkflowId='{purchase_id}' AND {WAITS_FOR.name}='{role_term('approver')}'"
        return (await encrypted.count_workflows(waits)).count == 1

    mandate_id = await api.mandate()
    with_some = await api.buy(mandate_id, session_id="order-17")
    request = PurchaseRequest.model_validate(api.wanted(mandate_id, session_id="order-17"))
    earlier = MoneyGateway(encrypted, 10.0, task_queue=purchase_queue)
    without, _ = await earlier.start_purchase(None, request)
    for purchase_id in (with_some, without):
        await api.until(purchase_id, "awaiting_approval")

    async def both_are_found() -> bool:
        answer = await api.call("alice", "GET", "/purchases", limit=100, waiting=True, session_id="order-17")
        return {with_some, without} <= {one["purchase_id"] for one in answer.json()}

    await eventually(both_are_found)
    assert (await marked(with_some), await marked(without)) == (True, False)
    for purchase_id in (with_some, without):
        await api.call("alice", "POST", f"/purchases/{purchase_id}/reject", {"reason": "no"})

    async def is_marked_no_more() -> bool:
        return not await marked(with_some)

    await eventually(is_marked_no_more)


async def test_only_an_approver_approves(api: Api) -> None:
    purchase_id = await api.buy(await api.mandate(approvers=["alice"]))
    view = await api.until(purchase_id, "awaiting_approval")
    for who, expected in (("agent", 403), ("ops", 403), ("backend", 403), ("bob", 403)):
        answer = await api.call(who, "POST", f"/purchases/{purchase_id}/approve", {"digest": view["digest"]})
        assert answer.status_code == expected, who
    assert (await api.until(purchase_id, "awaiting_approval"))["approval"] is None
    stale = await api.call(
        "alice", "POST", f"/purchases/{purchase_id}/approve", {"digest": "sha256:" + "0" * 64}
    )
    assert (stale.status_code, stale.json()["code"]) == (409, "stale-digest")
    assert stale.json()["digest"] == view["digest"]
    assert stale.json()["cart"]["total"] == 2480
    rejected = await api.call("alice", "POST", f"/purchases/{purchase_id}/reject", {"reason": "no"})
    assert rejected.status_code == 200
    await api.until(purchase_id, "rejected")
    late = await api.call("alice", "POST", f"/purchases/{purchase_id}/approve", {"digest": view["digest"]})
    assert late.status_code == 409, late.text


async def test_nobody_spends_from_the_mandate_of_another(api: Api) -> None:
    mandate_id = await api.mandate()
    request = api.wanted(mandate_id)
    for who, code in (("rival", "wrong-agent"), ("carol", "unknown-mandate"), ("ops", "forbidden")):
        answer = await api.call(who, "POST", "/purchases", {"request": request})
        assert (answer.json()["code"], who) == (code, who)
    price = {"amount": 50, "currency": "usd"}
    wish = {"request": {"url": "https://api.example/report"}, "max_price": price}
    paid = {"request": {**wish, "mandate_id": mandate_id, "agent": "shopper"}}
    answer = await api.call("rival", "POST", "/payments", paid)
    assert answer.json()["code"] == "wrong-agent", answer.text
    assert (await api.call("rival", "GET", f"/mandates/{mandate_id}")).status_code == 404
    # In its own name the rival may ask, and the mandate says no before the seller hears of it.
    own = {**request, "agent": {"id": "rival"}}
    answer = await api.call("rival", "POST", "/purchases", {"request": own})
    refused = await api.until(answer.json()["purchase_id"], "refused")
    assert refused["refusal"]["rule"] == "wrong_agent"
    assert refused["cart"] is None
    purchase_id = await api.buy(mandate_id)
    waiting = await api.until(purchase_id, "awaiting_approval")
    for method, path in (("GET", ""), ("GET", "/audit"), ("POST", "/cancel")):
        answer = await api.call("rival", method, f"/purchases/{purchase_id}{path}", {})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown-purchase")
    assert purchase_id not in (await api.call("rival", "GET", "/purchases", limit=100)).text
    assert (await api.until(purchase_id, "awaiting_approval"))["digest"] == waiting["digest"]
    revision = {"fulfillment_option": "fast"}
    for who, code in (("rival", "unknown-purchase"), ("ops", "forbidden")):
        answer = await api.call(who, "POST", f"/purchases/{purchase_id}/revise", revision)
        assert (answer.json()["code"], who) == (code, who)


async def test_what_is_hidden_answers_as_what_does_not_exist(api: Api) -> None:
    """Also where something of another kind has the id: nobody learns from an answer what there is."""
    mandate_id = await api.mandate()
    ids = ("nothing", mandate_id, await api.buy(mandate_id))
    kinds = {"mandates": "mandate", "purchases": "purchase", "payments": "payment", "allowances": "payment"}
    answers = {
        (route, one): await api.call("rival", "GET", f"/{route}/{one}") for route in kinds for one in ids
    }
    for (route, one), answer in answers.items():
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (404, f"unknown-{kinds[route]}"), (route, one)
        assert problem["detail"].replace(one, "") == answers[route, "nothing"].json()["detail"].replace(
            "nothing", ""
        )


async def test_an_id_of_another_kind_is_taken(api: Api) -> None:
    mandate_id = await api.mandate()
    purchase_id = await api.buy(mandate_id)
    terms = (await api.call("alice", "GET", f"/mandates/{mandate_id}")).json()["terms"]
    wish = {"request": {"url": "https://api.example/report"}, "max_price": {"amount": 50, "currency": "usd"}}
    paid = {**wish, "mandate_id": mandate_id, "agent": "shopper"}
    for who, route, body in (
        ("alice", "mandates", {"mandate_id": purchase_id, "terms": terms}),
        ("agent", "purchases", {"purchase_id": mandate_id, "request": api.wanted(mandate_id)}),
        ("agent", "payments", {"payment_id": purchase_id, "request": paid}),
    ):
        answer = await api.call(who, "POST", f"/{route}", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "id-taken"), route


async def test_what_is_ended_in_temporal_keeps_nobody_waiting(api: Api, encrypted: TemporalClient) -> None:
    """As soon as a workflow is terminated or canceled, nothing more comes of it."""
    mandate_id = await api.mandate()
    purchase_id = await api.buy(mandate_id)
    await api.until(purchase_id, "awaiting_approval")
    for workflow_id in (purchase_id, mandate_id):
        await encrypted.get_workflow_handle(workflow_id).terminate()
    purchase = (await api.call("ops", "GET", f"/purchases/{purchase_id}", wait_seconds=20)).json()
    assert (purchase["status"], purchase["final"]) == ("failed", True)
    assert purchase["refusal"]["rule"] == "ended_in_temporal"
    mandate = (await api.call("alice", "GET", f"/mandates/{mandate_id}")).json()
    assert mandate["status"] == "revoked"


async def test_a_client_spends_from_mandates_of_its_own(api: Api) -> None:
    terms = {**(await api.call("alice", "GET", f"/mandates/{await api.mandate()}")).json()["terms"]}
    given = await api.call("backend", "POST", "/mandates", {"terms": {**terms, "owner": "carol"}})
    request = api.wanted(given.json()["mandate_id"])
    assert (await api.call("carol", "POST", "/purchases", {"request": request})).status_code == 201


async def test_changing_and_canceling(api: Api) -> None:
    purchase_id = await api.buy(await api.mandate())
    first = await api.until(purchase_id, "awaiting_approval")
    body = {"items": [{"id": "tea", "quantity": 1}]}
    assert (await api.call("agent", "POST", f"/purchases/{purchase_id}/revise", body)).status_code == 202

    async def changed() -> bool:
        view = (await api.call("ops", "GET", f"/purchases/{purchase_id}")).json()
        return view["status"] == "awaiting_approval" and view["digest"] != first["digest"]

    await eventually(changed, what="the revised cart waits")
    assert (await api.call("agent", "POST", f"/purchases/{purchase_id}/cancel", {})).status_code == 202
    await api.until(purchase_id, "canceled")
    assert (await api.call("agent", "POST", f"/purchases/{purchase_id}/cancel", {})).status_code == 409


async def test_bad_requests_say_what_is_wrong(api: Api) -> None:
    mandate_id = await api.mandate()
    for bad in (
        {"items": [{"id": "mug", "quantity": -1}]},
        {"items": [{"id": "mug", "price": 1}]},
        {"total": 100},
        {"currency": "dollars"},
    ):
        answer = await api.call("agent", "POST", "/purchases", {"request": api.wanted(mandate_id, **bad)})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert (await api.call("ops", "GET", "/purchases/nothing")).status_code == 404
    assert (await api.call("ops", "GET", "/mandates/nothing")).status_code == 404
    assert (await api.http.get("/purchases")).status_code == 401


async def test_who_grants_and_who_sees_mandates(api: Api) -> None:
    mandate_id = await api.mandate()
    terms = (await api.call("alice", "GET", f"/mandates/{mandate_id}")).json()["terms"]
    for who, expected in (("agent", 403), ("ops", 403), ("bob", 403), ("backend", 201)):
        answer = await api.call(who, "POST", "/mandates", {"terms": terms})
        assert answer.status_code == expected, who
    unknown = {**terms, "constraints": [{"type": "only_on_sundays"}]}
    assert (await api.call("alice", "POST", "/mandates", {"terms": unknown})).status_code == 422
    assert (await api.call("bob", "GET", f"/mandates/{mandate_id}")).status_code == 404
    seen = (await api.call("agent", "GET", f"/mandates/{mandate_id}")).json()
    assert seen["terms"]["payment_methods"] == []
    assert (await api.call("agent", "POST", f"/mandates/{mandate_id}/revoke", {})).status_code == 403
    assert (await api.call("alice", "POST", f"/mandates/{mandate_id}/revoke", {})).status_code == 202

    async def revoked() -> bool:
        return (await api.call("alice", "GET", f"/mandates/{mandate_id}")).json()["status"] == "revoked"

    await eventually(revoked, what="the mandate is revoked")
    mine = (await api.call("alice", "GET", "/mandates", limit=100)).json()
    assert mandate_id in [one["mandate_id"] for one in mine]
    assert (await api.call("bob", "GET", "/mandates")).json() == []


async def test_the_same_id_is_the_same_purchase(api: Api) -> None:
    mandate_id, purchase_id = await api.mandate(), f"p-{uuid.uuid4().hex}"
    body = {"purchase_id": purchase_id, "request": api.wanted(mandate_id)}
    assert (await api.call("agent", "POST", "/purchases", body)).status_code == 201
    assert (await api.call("agent", "POST", "/purchases", body)).status_code == 200
    for other in (
        api.wanted(await api.mandate()),
        api.wanted(mandate_id, items=[{"id": "mug", "quantity": 3}]),
    ):
        body = {"purchase_id": purchase_id, "request": other}
        answer = await api.call("agent", "POST", "/purchases", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "id-taken")


# Webhooks


async def send_event(
    api: Api, body: bytes, *, secret: str = WEBHOOK_SECRET, at: int | None = None
) -> httpx.Response:
    signature = sign_webhook(secret, body, int(time.time()) if at is None else at)
    return await api.http.post(
        "/agentic_checkout/webhooks/order_events",
        content=body,
        headers={"Merchant-Signature": signature, "Content-Type": "application/json"},
    )


async def test_signed_webhooks_change_the_order_and_others_do_not(api: Api) -> None:
    purchase_id = await api.buy(await api.mandate(approval_threshold=50_000))
    view = await api.until(purchase_id, "completed")
    order = {
        "id": view["order"]["id"],
        "checkout_session_id": view["cart"]["checkout_id"],
        "permalink_url": view["order"]["permalink_url"],
        "status": "shipped",
    }
    body = json.dumps({"type": "order_update", "data": order}).encode()
    for refused in (
        await send_event(api, body, secret="wrong"),
        await send_event(api, body, at=int(time.time()) - 400),
        await api.http.post(
            "/agentic_checkout/webhooks/order_events",
            content=body,
            headers={"Content-Type": "application/json"},
        ),
    ):
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_signature")
    for unreadable in (b'{"type": "order_update"}', b"{", b"[]", b"\xff", b'{"type": "?", "data": {}}', b""):
        nonsense = await send_event(api, unreadable)
        assert (nonsense.status_code, nonsense.json()["code"]) == (400, "invalid-event")

    now = int(time.time())
    for _ in range(2):  # a repeated delivery is none the worse
        taken = await send_event(api, body, at=now)
        assert (taken.status_code, taken.json()["received"]) == (200, True)

    async def shipped() -> bool:
        seen = (await api.call("ops", "GET", f"/purchases/{purchase_id}")).json()
        return bool(seen["order"]["status"] == "shipped")

    await eventually(shipped, what="the order is shipped")


# Over the wire: command lines and SDK


@pytest.fixture
async def url(api: Api) -> AsyncIterator[str]:
    """The same API on a real port."""
    transport: Any = api.http._transport
    async with served(transport.app) as address:
        yield address


async def test_operators_can_read_histories_with_the_command_line(
    api: Api, url: str, temporal_server: TemporalServer
) -> None:
    mandate_id = await api.mandate()
    command = [
        TEMPORAL, "workflow", "query", "-w", mandate_id, "--type", "balance",
        "--address", temporal_server.address, "--codec-endpoint", f"{url}/codec",
    ]  # fmt: skip
    assert "alice" in await run(*command, "--codec-auth", "Bearer ops-key")
    assert "alice" not in await run(*command, "--codec-auth", "Bearer agent-key")


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_the_client_buys_and_approves(api: Api, url: str) -> None:
    async with Client(url, "agent-key") as agent, Client(url, "alice-key") as alice:
        bought = await Buying(agent).buy(
            await api.mandate(),
            api.seller,
            {"mug": 2},
            agent="shopper",
            buyer=BUYER,
            fulfillment_details=DETAILS,
        )
        view = await Buying(agent).wait(bought.purchase_id, within_seconds=20, or_for_a_person=True)
        assert view.status == "awaiting_approval"
        with pytest.raises(NotAllowed):
            await Buying(agent).approve(bought.purchase_id, view.digest or "")
        await Buying(alice).approve(bought.purchase_id, view.digest or "")
        view = await Buying(agent).wait(bought.purchase_id, within_seconds=20)
        assert view.status == "completed"
        assert (await Buying(alice).audit(bought.purchase_id)).entries[-1].action


class OneTurn(Purse):
    """An attempt of one turn of an agent."""

    def __init__(self, client: Client) -> None:
        spender = Spender(session_id="s-of-the-turn", turn_id="t1", agent="shopper")
        super().__init__(spender, client.attach(spender.session_id), self.flush, Settings(), lambda _: False)
        self.over = False

    async def flush(self) -> None:
        if self.over:
            raise ConflictError(409, "turn-over", "The turn is over.")


async def test_purchases_of_one_turn_stay_apart(api: Api, url: str) -> None:
    auto = await api.mandate(approval_threshold=50_000)
    details: dict[str, Any] = {"mandate_id": auto, "buyer": BUYER, "fulfillment_details": DETAILS}
    async with Client(url, "agent-key") as client:
        turn = OneTurn(client)
        bought = await asyncio.gather(*(turn.buy(api.seller, {"mug": 1}, **details) for _ in range(2)))
        assert [view.status for view in bought] == ["completed"] * 2
        assert len({view.purchase_id for view in bought}) == 2
        again = OneTurn(client)
        same = await again.buy(api.seller, {"mug": 1}, **details)
        assert same.purchase_id == bought[0].purchase_id
        with pytest.raises(ConflictError, match="'key'"):
            await again.buy(api.seller, {"tea": 1}, **details)
        named = [await one.buy(api.seller, {"tea": 1}, key="tea", **details) for one in (turn, again)]
        assert named[0].purchase_id == named[1].purchase_id
        again.over = True
        with pytest.raises(ConflictError, match="over"):
            await again.buy(api.seller, {"tea": 1}, key="never begun", **details)
    balance = (await api.call("alice", "GET", f"/mandates/{auto}")).json()
    assert balance["payments"] == 3


async def test_the_command_line_grants_shows_approves_and_audits(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money_cli, "new_client", lambda: Client(url, "alice-key"))
    runner = CliRunner()

    async def typed(app: Any, *arguments: str, keys: str | None = None) -> str:
        result = await asyncio.to_thread(runner.invoke, app, list(arguments), input=keys)
        assert result.exit_code == 0, result.output
        return result.output

    created = await typed(
        money_cli.mandate_app, "create", "--owner", "alice", "--agent", "shopper", "--cap", "10000",
        "--seller", api.seller, "--payment-method", "pm_card_visa",
    )  # fmt: skip
    mandate_id = json.loads(created)["mandate_id"]
    purchase_id = await api.buy(mandate_id)
    await api.until(purchase_id, "awaiting_approval")
    assert "awaiting_approval" in await typed(money_cli.purchase_app, "show", purchase_id)
    approving = await typed(money_cli.purchase_app, "approve", purchase_id, keys="y\n")
    assert re.search(r"2 x \S+.*: Mug \(line ", approving)
    assert "2480" in approving
    await api.until(purchase_id, "completed")
    assert "purchase.completed" in await typed(money_cli.purchase_app, "audit", purchase_id)
    assert json.loads(await typed(money_cli.mandate_app, "show", mandate_id))["spent"]["amount"] == 2480
    assert "mandate_id" in await typed(money_cli.mandate_app, "revoke", mandate_id, "--reason", "done")
    refused = await asyncio.to_thread(runner.invoke, money_cli.purchase_app, ["show", "nothing"])
    assert refused.exit_code == 1
