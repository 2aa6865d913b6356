"""kill -9 of the shop and of the processor around the charge: one charge, one order, whatever dies when."""

import asyncio
import os
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.seller.shop.agent import Agent, total
from tests.support import wait_until
from tests.world.sandbox import Processor, Shop, running_processor, running_shop


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Processor, Shop]]:
    with (
        running_processor(tmp_path) as processor,
        running_shop(tmp_path, processor, "--recovery-after-seconds", "1") as shop,
    ):
        yield processor, shop


async def _dies(agent: Agent, checkout_id: str, token: str, key: str) -> None:
    with pytest.raises(httpx.HTTPError):
        await agent.complete(checkout_id, token, key=key)


SHOP_DEATHS: list[dict[str, Any]] = [
    {"die_in": "reserve"},
    {"die_in": "place_order"},
    {"kind": "die", "when": "before", "match": "POST .*/complete"},
    {"kind": "die", "when": "after", "match": "POST .*/complete"},
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "death", SHOP_DEATHS, ids=["before charge", "after charge", "on arrival", "on answer"]
)
async def test_kill_9_of_the_shop_then_the_same_key(
    pair: tuple[Processor, Shop], death: dict[str, Any]
) -> None:
    processor, shop = pair
    async with Agent(shop.url, processor.url) as agent:
        session = await agent.ready(("print_last", 1))
        token, key = await agent.token(total(session)), secrets.token_hex(8)
        if "die_in" in death:
            shop.behave(**death)
        else:
            shop.trouble(**death)
        await _dies(agent, session["id"], token, key)
        shop.wait_dead()
        charged = len(shop.entries_of(session["id"]))
        assert charged == (death.get("die_in") == "place_order" or death.get("when") == "after")
        shop.start().wait()
        done = await agent.complete(session["id"], token, key=key)
        assert (done.status_code, done.json()["status"]) == (200, "completed")
        assert len(shop.entries_of(session["id"])) == 1
        assert len(shop.sales_of(session["id"])) == 1
        assert shop.state()["reservations"] == []
        assert shop.state()["stock"]["print_last"] == 0


@pytest.mark.thorough
async def test_kill_9_of_the_shop_after_the_charge_and_nobody_asks_again(
    pair: tuple[Processor, Shop],
) -> None:
    processor, shop = pair
    async with Agent(shop.url, processor.url) as agent:
        session = await agent.ready(("mug_blue", 1))
        shop.behave(die_in="place_order")
        await _dies(agent, session["id"], await agent.token(total(session)), secrets.token_hex(8))
        shop.wait_dead()
        shop.start().wait()
        wait_until(lambda: shop.status(session["id"]) == "completed", "the shop finds the charge by itself")
        assert len(shop.sales_of(session["id"])) == 1
        assert len(shop.entries_of(session["id"])) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("call", ["POST /v1/payment_intents$", "POST .*/confirm", "GET /v1/shared_payment"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_kill_9_of_the_processor(pair: tuple[Processor, Shop], call: str, moment: str) -> None:
    processor, shop = pair
    async with Agent(shop.url, processor.url) as agent:
        session = await agent.ready(("mug_blue", 1))
        token, key = await agent.token(total(session)), secrets.token_hex(8)
        processor.trouble(kind="die", when=moment, match=call)
        first = await agent.complete(session["id"], token, key=key)
        assert first.status_code == 503
        processor.wait_dead()
        dead = await agent.complete(session["id"], token, key=key)
        assert dead.status_code == 503
        processor.start().wait()
        done = await agent.complete(session["id"], token, key=key)
        assert done.json()["status"] == "completed"
        assert len(shop.entries_of(session["id"])) == 1
        assert len(shop.sales_of(session["id"])) == 1


@pytest.mark.thorough
async def test_a_payment_that_never_reached_the_processor_is_undone(pair: tuple[Processor, Shop]) -> None:
    processor, shop = pair
    async with Agent(shop.url, processor.url) as agent:
        session = await agent.ready(("print_last", 1))
        token = await agent.token(total(session))
        processor.trouble(kind="die", when="before", match="POST .*/confirm")
        assert (await agent.complete(session["id"], token)).status_code == 503
        processor.wait_dead()
        assert (await agent.read(session["id"]))["status"] == "complete_in_progress"
        processor.start().wait()
        wait_until(lambda: shop.status(session["id"]) == "ready_for_payment", "the shop undoes the attempt")
        assert shop.state()["reservations"] == []
        again = await agent.read(session["id"])
        assert again["messages"][-1]["code"] == "payment_declined"
        assert shop.entries_of(session["id"]) == []
        done = await agent.complete(session["id"], token)
        assert done.json()["status"] == "completed"
        assert len(shop.entries_of(session["id"])) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("token", ["another", "none"])
async def test_a_charge_that_arrives_late_finds_its_intent_canceled(
    pair: tuple[Processor, Shop], token: str
) -> None:
    """The shop dies while its charge is still on the way, and goes on without it."""
    processor, shop = pair
    async with Agent(shop.url, processor.url) as agent:
        session = await agent.ready(("mug_blue", 1))
        late, fresh = await agent.token(total(session)), await agent.token(total(session))
        processor.trouble(kind="slow", match="POST .*/confirm", delay_ms=12_000)
        on_the_way = asyncio.create_task(_dies(agent, session["id"], late, secrets.token_hex(8)))
        await asyncio.to_thread(wait_until, lambda: processor.striking() == 1, "the charge is on its way")
        shop.kill()
        await on_the_way
        shop.start().wait()
        if token == "another":
            assert (await agent.complete(session["id"], fresh)).json()["status"] == "completed"
        else:
            undone = lambda: shop.status(session["id"]) == "ready_for_payment"  # noqa: E731
            await asyncio.to_thread(wait_until, undone, "the shop undoes the attempt")
        assert processor.striking() == 1
        await asyncio.to_thread(wait_until, lambda: processor.striking() == 0, "the late charge has arrived")
        assert (await agent.issued(late))["status"] == "active"
        assert len(shop.entries_of(session["id"])) == (token == "another")
        status = (await agent.read(session["id"]))["status"]
        assert status == ("completed" if token == "another" else "ready_for_payment")


ROUNDS = int(os.environ.get("WAYSTATION_CRASH_ROUNDS", "5"))


async def _until_over(agent: Agent, checkout_id: str, token: str, key: str) -> str:
    """An agent that retries under the same key until the checkout is over; its last status."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer = await agent.complete(checkout_id, token, key=key)
        except httpx.TransportError:
            continue
        if answer.status_code == 200 and answer.json()["status"] == "completed":
            return "completed"
        if answer.status_code == 200:
            # Undone by the shop's own recovery: a new attempt needs a new key.
            assert answer.json()["status"] == "ready_for_payment", answer.text
            key = secrets.token_hex(8)
        else:
            assert answer.status_code in (409, 503), answer.text
    raise AssertionError("not over within 60 s")


@pytest.mark.thorough
@pytest.mark.timeout(60 + 10 * ROUNDS)
async def test_kill_9_at_random_moments(pair: tuple[Processor, Shop]) -> None:
    """Shop, processor or both die at any moment of a payment, sometimes twice.

    ``WAYSTATION_CRASH_ROUNDS`` sets the number of payments.
    """
    processor, shop = pair
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    async with Agent(shop.url, processor.url) as agent:
        shop.stock("mug_blue", ROUNDS)
        for number in range(ROUNDS):
            session = await agent.ready(("mug_blue", 1))
            token = await agent.token(total(session))
            buying = asyncio.create_task(_until_over(agent, session["id"], token, secrets.token_hex(8)))
            for _ in range(chance.choice((1, 1, 2))):
                await asyncio.wait({buying}, timeout=chance.uniform(0, 0.04))
                victims = chance.choice(([shop], [processor], [shop, processor]))
                for victim in victims:
                    victim.kill()
                for victim in victims:
                    victim.start()
                for victim in victims:
                    await victim.ready()
            told = f"round {number}, seed {seed}"
            assert await buying == "completed", told
            assert len(shop.entries_of(session["id"])) == 1, told
            assert len(shop.sales_of(session["id"])) == 1, told
            assert shop.state()["reservations"] == [], told
            assert (await agent.issued(token))["deactivated_reason"] == "consumed", told
        assert shop.state()["stock"]["mug_blue"] == 0
