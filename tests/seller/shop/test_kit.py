"""The kit in process: identities, several workers on one store, refused orders, expiry, mounting."""

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from tests.seller.shop.agent import BUYER, Agent, Json, codes, payment, total
from tests.support import goes_away_while_sending
from tests.world.sandbox import Processor
from waystation.protocols import acp
from waystation.seller import (
    Basket,
    Merchant,
    NewOrder,
    OrderRefusedError,
    PlacedOrder,
    Quote,
    QuotedLine,
    QuotedOption,
    Seller,
    SellerSettings,
    SqliteStore,
)
from waystation.seller.shop.store import ConcurrentChangeError


class Bookshop(Merchant):
    """One download for 10.00; refuses orders, or fails, when told to."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.refuse = False
        self.fail_times = 0
        self.gate: asyncio.Event | None = None
        self.price = 1000

    async def products(self) -> Sequence[acp.FeedProduct]:
        return []

    async def quote(self, basket: Basket) -> Quote:
        lines = tuple(
            QuotedLine(
                item_id=item.id,
                name="Book",
                quantity=item.quantity,
                unit_amount=self.price,
                fulfilled_by="digital",
            )
            for item in basket.items
        )
        return Quote(lines=lines, options=(QuotedOption(type="digital", id="dl", title="Download"),))

    async def place_order(self, order: NewOrder) -> PlacedOrder:
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_times > 0:
            self.fail_times -= 1
            raise RuntimeError("the warehouse is on fire")
        if self.refuse:
            raise OrderRefusedError("it is not for sale in your country.")
        self.orders.append(order.order_id)
        return PlacedOrder(permalink_url="https://books.example/orders/1")


class Running:
    """A seller in an app, reached without a socket."""

    def __init__(self, merchant: Merchant, processor: Processor, store: Path, **settings: Any) -> None:
        self.settings = SellerSettings(
            base_url="https://books.example/acp",
            merchant_id="profile_test_books",
            merchant_name="Books",
            stripe_secret_key=SecretStr("sk_test_books"),
            stripe_api_base=processor.url,
            api_keys={"one": SecretStr("key-one"), "two": SecretStr("key-two")},
            **settings,
        )
        self.seller = Seller(merchant, self.settings, SqliteStore(store))
        self.app = FastAPI()
        self.seller.mount(self.app, prefix="/acp")

    @contextlib.asynccontextmanager
    async def agent(self, processor: Processor, key: str = "key-one") -> AsyncIterator[Agent]:
        one = Agent("https://books.example", processor.url, key)
        await one.http.aclose()
        transport = httpx.ASGITransport(self.app)
        one.http = httpx.AsyncClient(transport=transport, base_url="https://books.example/acp")
        yield one
        await one.close()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.app.router.lifespan_context(self.app):
            yield


@contextlib.asynccontextmanager
async def running(
    processor: Processor, store: Path, merchant: Bookshop | None = None, **settings: Any
) -> AsyncIterator[tuple[Running, Bookshop, Agent]]:
    shop = merchant or Bookshop()
    one = Running(shop, processor, store, **settings)
    async with one.lifespan(), one.agent(processor) as agent:
        yield one, shop, agent


async def paid(agent: Agent, session: Json, **more: Any) -> httpx.Response:
    return await agent.complete(
        session["id"], await agent.token(total(session), seller="profile_test_books"), **more
    )


async def test_the_discovery_document_stays_at_the_root(seller_processor: Processor, tmp_path: Path) -> None:
    async with running(seller_processor, tmp_path / "s.db") as (one, _, _agent):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(one.app), base_url="https://books.example"
        ) as client:
            found = acp.read_discovery((await client.get("/.well-known/acp.json")).content)
        assert found.api_base_url == "https://books.example/acp"


async def test_identities_are_kept_apart(seller_processor: Processor, tmp_path: Path) -> None:
    async with (
        running(seller_processor, tmp_path / "s.db") as (one, _, agent),
        one.agent(seller_processor, "key-two") as other,
    ):
        key, body = secrets.token_hex(4), {"line_items": [{"id": "b"}], "buyer": BUYER}
        mine = (await agent.send("POST", "/checkout_sessions", body, key=key)).json()
        theirs = await other.send("POST", "/checkout_sessions", body, key=key)
        assert theirs.json()["id"] != mine["id"]
        assert (await other.send("GET", f"/checkout_sessions/{mine['id']}")).status_code == 404
        assert (await other.complete(mine["id"], "spt_x")).status_code == 404
        order = (await paid(agent, mine)).json()["order"]
        assert (await other.send("GET", f"/orders/{order['id']}")).status_code == 404


async def test_an_order_that_is_refused_after_the_charge_is_refunded(
    seller_processor: Processor, tmp_path: Path
) -> None:
    async with running(seller_processor, tmp_path / "s.db") as (_, shop, agent):
        shop.refuse = True
        session = await agent.create(("b", 1), buyer=BUYER)
        answer = await paid(agent, session)
        assert (answer.json()["status"], codes(answer.json())) == ("canceled", ["conflict"])
        assert "refunded" in answer.json()["messages"][0]["content"]
        moved = [(one["kind"], one["amount"]) for one in seller_processor.entries_of(session["id"])]
        assert moved == [("charge", 1000), ("refund", 1000)]


async def test_a_merchant_that_fails_after_the_charge_is_asked_again(
    seller_processor: Processor, tmp_path: Path
) -> None:
    async with running(seller_processor, tmp_path / "s.db") as (_, shop, agent):
        shop.fail_times = 1
        session = await agent.create(("b", 1), buyer=BUYER)
        key, token = secrets.token_hex(4), await agent.token(total(session), seller="profile_test_books")
        failed = await agent.complete(session["id"], token, key=key)
        assert (failed.status_code, failed.json()["code"]) == (500, "internal_error")
        assert "fire" not in failed.text
        done = await agent.complete(session["id"], token, key=key)
        assert done.json()["status"] == "completed"
        assert len(shop.orders) == 1


async def test_two_workers_on_one_store(seller_processor: Processor, tmp_path: Path) -> None:
    """Two processes share no locks; the versions in the store and the one PaymentIntent have to do."""
    store = tmp_path / "s.db"
    async with (
        running(seller_processor, store) as (_, shop_a, agent_a),
        running(seller_processor, store) as (_, shop_b, agent_b),
    ):
        for _ in range(10):
            session = await agent_a.create(("b", 1), buyer=BUYER)
            answers = await asyncio.gather(*(paid(agent, session) for agent in (agent_a, agent_b) * 2))
            assert {answer.status_code for answer in answers} <= {200, 409, 503}
            final = await agent_b.read(session["id"])
            if final["status"] != "completed":
                final = (await paid(agent_a, session)).json()
            assert final["status"] == "completed"
            orders = {answer.json()["order"]["id"] for answer in answers if "order" in answer.json()}
            assert orders <= {final["order"]["id"]}
            assert len(seller_processor.entries_of(session["id"])) == 1
        assert len(set(shop_a.orders + shop_b.orders)) == 10


async def test_free_goods_need_no_charge(seller_processor: Processor, tmp_path: Path) -> None:
    async with running(seller_processor, tmp_path / "s.db") as (_, shop, agent):
        shop.price = 0
        session = await agent.create(("b", 1), buyer=BUYER)
        done = await agent.send("POST", f"/checkout_sessions/{session['id']}/complete", payment("spt_unused"))
        assert done.json()["status"] == "completed"


async def test_checkouts_expire(
    seller_processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(seller_processor, tmp_path / "s.db", checkout_lifetime_seconds=60) as (one, _, agent):
        first, second = [await agent.create(("b", 1), buyer=BUYER) for _ in range(2)]
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 61)
        assert (await agent.read(first["id"]))["status"] == "expired"
        answer = await agent.complete(first["id"], "spt_x")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        await one.seller.recover()
        monkeypatch.undo()
        assert (await agent.read(second["id"]))["status"] == "expired"


async def test_a_stale_version_is_not_saved(seller_processor: Processor, tmp_path: Path) -> None:
    async with running(seller_processor, tmp_path / "s.db") as (one, _, agent):
        session = await agent.create(("b", 1))
        checkout = await one.seller.store.checkout(session["id"])
        assert checkout is not None
        await one.seller.store.save_checkout(checkout)
        with pytest.raises(ConcurrentChangeError):
            await one.seller.store.save_checkout(checkout)


async def test_what_is_past_its_time_is_dropped(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    for key in ("kept", "begun"):
        await store.claim("scope", key, "print")
    await store.keep_answer("scope", "kept", 200, b"{}")
    now = int(time.time())
    await store.prune(now + 24 * 3600)
    assert (await store.claim("scope", "kept", "print")).outcome == "replay"
    await store.prune(now + 49 * 3600)
    assert (await store.claim("scope", "kept", "print")).outcome == "new"
    assert (await store.claim("scope", "begun", "print")).outcome == "in_flight"
    await store.close()


async def test_claims_of_a_killed_process_are_free_again(seller_processor: Processor, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    assert (await store.claim("scope", "key", "print")).outcome == "new"
    assert (await store.claim("scope", "key", "print")).outcome == "in_flight"
    await store.close()
    # As if a process that is gone had made the claim: under another pid, or (in a container) under ours.
    for pid in (4194305, os.getpid()):
        with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
            db.execute("UPDATE idempotency SET owner_pid = ?, owner = 'gone'", (pid,))
        again = SqliteStore(tmp_path / "s.db")
        await again.open()
        assert (await again.claim("scope", "key", "print")).outcome == "new"
        assert (await again.claim("scope", "key", "print")).outcome == "in_flight"
        await again.close()
    # A worker beside us that is alive keeps its claim.
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
        db.execute("UPDATE idempotency SET owner_pid = ?", (os.getppid(),))
    again = SqliteStore(tmp_path / "s.db")
    await again.open()
    assert (await again.claim("scope", "key", "print")).outcome == "in_flight"
    await again.keep_answer("scope", "key", 200, b"{}")
    kept = await again.claim("scope", "key", "print")
    assert (kept.outcome, kept.status, kept.body) == ("replay", 200, b"{}")
    assert (await again.claim("scope", "key", "other")).outcome == "conflict"
    await again.close()


async def test_logs_never_show_a_token(
    seller_processor: Processor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with running(seller_processor, tmp_path / "s.db") as (_, shop, agent):
        session = await agent.create(("b", 1), buyer=BUYER)
        declined = await agent.token(total(session), "pm_card_chargeDeclined", "profile_test_books")
        await agent.complete(session["id"], declined)
        shop.fail_times = 1
        token = await agent.token(total(session), seller="profile_test_books")
        for _ in range(2):
            answer = await agent.complete(session["id"], token)
        assert answer.json()["status"] == "completed"
    logged = "\n".join(record.getMessage() + str(record.exc_info) for record in caplog.records)
    assert "granted_tokens/spt_…" in logged
    for secret in (token, declined, "sk_test_books", "key-one"):
        assert secret not in logged


async def test_a_processor_that_hangs(seller_processor: Processor, tmp_path: Path) -> None:
    async with running(seller_processor, tmp_path / "s.db", stripe_timeout_seconds=1) as (_, _shop, agent):
        session = await agent.create(("b", 1), buyer=BUYER)
        key, token = secrets.token_hex(4), await agent.token(total(session), seller="profile_test_books")
        seller_processor.trouble(kind="hang", when="after", match="POST .*/confirm")
        assert (await agent.complete(session["id"], token, key=key)).status_code == 503
        assert (await agent.complete(session["id"], token, key=key)).json()["status"] == "completed"
        assert len(seller_processor.entries_of(session["id"])) == 1


async def test_settings_never_show_their_secrets() -> None:
    settings = SellerSettings(
        base_url="https://x.example",
        merchant_id="profile_test_x",
        merchant_name="X",
        stripe_secret_key=SecretStr("sk_test_secret"),
        api_keys={"one": SecretStr("key-secret")},
    )
    assert "secret" not in repr(settings).replace("stripe_secret_key", "")
    request = acp.CheckoutCompleteRequest.model_validate(payment("spt_secret"))
    assert "spt_secret" not in repr(request)
    assert "spt_secret" not in request.model_dump_json()
    assert json.loads(json.dumps(request.wire())) == payment("spt_secret")


async def test_a_client_that_goes_away_while_it_sends_is_no_error_of_the_shops(
    seller_processor: Processor, tmp_path: Path
) -> None:
    async with running(seller_processor, tmp_path / "s.db") as (one, _, _agent):
        headers = {
            "Authorization": "Bearer key-one", "API-Version": acp.API_VERSION, "Idempotency-Key": "k",
            "Content-Type": "application/json",
        }  # fmt: skip
        sent = await goes_away_while_sending(one.app, "POST", "/acp/checkout_sessions", headers)
    assert sent[0]["status"] == 400
