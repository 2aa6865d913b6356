"""kill -9 of worker, API, shop and processor at random moments of purchases.

Whatever happens: at most one charge each, a charge if and only if there is an order, the mandate's
sums right, no reservation left behind, every token consumed or revoked. The number of purchases is
``WAYSTATION_CRASH_RUNS`` (4, and 12 as a slow test); the seed is printed and can be set with
``WAYSTATION_CRASH_SEED``.
"""

import asyncio
import os
import random
import uuid
from collections import Counter
from typing import Any

import pytest

from tests.support import eventually
from tests.workflows.purchase.support import Bought
from tests.workflows.purchase.town import Town, buy_and_approve, start
from tests.world.purchase_processes import SHOP_KEY
from waystation.models.decisions import Cancel
from waystation.temporal.connect import open_client
from workflows.purchase import Purchase

WANTED = os.environ.get("WAYSTATION_CRASH_RUNS")
SEED = int(os.environ.get("WAYSTATION_CRASH_SEED", random.SystemRandom().randrange(10**9)))
AT_ONCE = 6
DECLINES = SEED % 3 == 0
"""In every third run each purchase is declined once before it is paid."""


async def check_books(town: Town, mandates: list[Any], purchases: list[Bought]) -> dict[str, int]:
    views = [await bought.view() for bought in purchases]
    books, state = town.processor.books(), town.shop.state()
    charges: dict[str, int] = {}
    for entry in books["entries"]:
        if entry["kind"] == "charge":
            charges[entry["token"]] = charges.get(entry["token"], 0) + entry["amount"]
    sold = {sale["checkout"] for sale in state["sales"]}
    spent = dict.fromkeys((mandate.id for mandate in mandates), 0)
    tally: dict[str, int] = {}
    for bought, view in zip(purchases, views, strict=True):
        assert view.final, view.status
        ending = f"{view.status} {view.refusal.rule if view.refusal else ''}".strip()
        tally[ending] = tally.get(ending, 0) + 1
        tokens = [one for one in books["tokens"] if one["shared_metadata"].get("purchase_id") == bought.id]
        assert all(one["status"] == "deactivated" for one in tokens), (bought.id, view.status)
        paid = [one for one in tokens if one["id"] in charges]
        assert len(paid) <= 1
        ordered = view.cart is not None and view.cart.checkout_id in sold
        assert bool(paid) == ordered == (view.status == "completed"), (view.status, view.refusal)
        if paid and view.cart is not None:
            assert charges[paid[0]["id"]] == view.cart.total
            spent[bought.mandate.id] += charges[paid[0]["id"]]
        await bought.trail()
    for mandate in mandates:
        balance = await mandate.query("balance")
        assert (balance["spent"]["amount"], balance["reserved"]["amount"]) == (spent[mandate.id], 0)
    assert not state["reservations"], "the shop still holds goods back"
    return tally


async def settled(purchases: list[Bought]) -> bool:
    for bought in purchases:
        if "token.settled" not in await bought.actions() and (await bought.view()).status == "completed":
            return False
    return True


@pytest.mark.thorough
@pytest.mark.timeout(120 + 15 * int(WANTED or 12))
@pytest.mark.parametrize("usual", [4, pytest.param(12, marks=pytest.mark.slow)])
async def test_nothing_is_lost_or_paid_twice_whatever_dies(town: Town, usual: int) -> None:
    runs = int(WANTED or usual)
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    terms = {
        "cap": {"amount": 10**9, "currency": "usd"},
        "payment_methods": ["pm_card_chargeDeclined", "pm_card_visa"] if DECLINES else ["pm_card_visa"],
    }
    mandate = await town.buyer.mandate(**terms, approval_threshold=10**9)
    asked = await town.buyer.mandate(**terms)
    purchases: list[Bought] = []
    struck: Counter[str] = Counter()
    while len(purchases) < runs:
        town.shop.stock("mug_blue", 1_000)
        batch, clients = [], []
        for number in range(min(AT_ONCE, runs - len(purchases))):
            items = [{"id": chance.choice(["mug_blue", "ebook_tides"]), "quantity": chance.randint(1, 3)}]
            if number % 2:
                batch.append(await start(town, mandate, items))
            else:  # through the API, which dies like the others, and with a person's approval
                bought = Bought(town.client.get_workflow_handle_for(Purchase.run, f"purchase-{uuid.uuid4()}"))
                bought.mandate = asked
                request = town.buyer.request(asked.id, items=items)
                clients.append(asyncio.create_task(buy_and_approve(town, bought.id, request)))
                batch.append(bought)
        for bought in batch:
            if bought.mandate is mandate and chance.random() < 0.25:  # undoing has to survive, too
                await asyncio.sleep(chance.uniform(0, 0.1))
                await bought.handle.signal(Purchase.cancel, Cancel(by="alice"))
        for _ in range(chance.randint(2, 4)):
            await asyncio.sleep(chance.uniform(0, 0.5))
            struck[await town.strike(chance)] += 1
        told = await asyncio.wait_for(asyncio.gather(*clients), 120)
        assert all(view.final for view in told)
        for bought in batch:
            await bought.until("completed", "canceled", "refused", "failed", "expired", "rejected", within=90)
        purchases += batch
    await eventually(lambda: settled(purchases), within=60, what="every token is settled")
    tally = await check_books(town, [mandate, asked], purchases)
    print(f"{runs} purchases: {tally}; killed: {dict(struck)}")
    assert tally.get("completed", 0) > 0


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["reserve", "place_order"])
async def test_a_shop_that_dies_before_or_after_the_charge(town: Town, moment: str) -> None:
    mandate = await town.buyer.mandate(approval_threshold=50_000)
    town.shop.behave(die_in=moment)
    bought = await start(town, mandate, [{"id": "ebook_tides"}])
    await eventually(lambda: town.shop.ended, what="the shop has died")
    town.shop.start()
    await town.shop.ready()
    await bought.until("completed", within=60)
    await eventually(lambda: settled([bought]), what="the token is settled")
    await check_books(town, [mandate], [bought])


async def test_no_token_is_readable_anywhere(town: Town) -> None:
    """Histories, every log (the worker's at its chattiest), the shop's store, trail, views: none in clear."""
    mandate = await town.buyer.mandate(approval_threshold=50_000)
    bought = await start(town, mandate, [{"id": "ebook_tides"}])
    await bought.until("completed", within=60)
    tokens = [one["id"] for one in town.processor.books()["tokens"]]
    assert tokens
    raw = await open_client(town.temporal.address)
    searched = 0
    async for execution in raw.list_workflows(f"TaskQueue = '{town.queue}'"):
        handle = raw.get_workflow_handle(execution.id, run_id=execution.run_id)
        async for event in handle.fetch_history_events():
            stored = event.SerializeToString()
            searched += len(stored)
            assert not any(token.encode() in stored for token in tokens), event.event_type
    assert searched > 10_000
    visible = (await bought.trail()).model_dump_json() + (await bought.view()).model_dump_json()
    assert "spt_" not in visible
    processors = town.folder / "processor"  # who issued them has to know them
    files = [one for one in town.folder.rglob("*") if one.is_file() and processors not in one.parents]
    names = {one.name for one in files}
    assert {"worker.log", "api.log", "shop.log", "processor.log", "seller.db", "shop.db"} <= names
    assert b"POST" in (town.folder / "worker.log").read_bytes()
    for file in files:
        content = file.read_bytes()
        assert not any(token.encode() in content for token in tokens), file.name
        assert SHOP_KEY.encode() not in content, file.name
