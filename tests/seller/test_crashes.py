"""kill -9 of the shop and of the processor around the charge: one charge, one order, whatever dies when."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.servers import Server, wait_until
from tests.seller.agent import Agent, Shop, total


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Shop]]:
    with (
        Server("waystation.sandbox.processor", tmp_path / "processor") as processor,
        Shop(tmp_path / "shop", processor, "--recovery-after-seconds", "1") as shop,
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


@pytest.mark.parametrize(
    "death", SHOP_DEATHS, ids=["before charge", "after charge", "on arrival", "on answer"]
)
async def test_kill_9_of_the_shop_then_the_same_key(pair: tuple[Server, Shop], death: dict[str, Any]) -> None:
    processor, shop = pair
    agent = Agent(shop.url, processor.url)
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
    shop.start()
    done = await agent.complete(session["id"], token, key=key)
    assert (done.status_code, done.json()["status"]) == (200, "completed")
    assert len(shop.entries_of(session["id"])) == 1
    assert len(shop.sales_of(session["id"])) == 1
    assert shop.state()["reservations"] == []
    assert shop.state()["stock"]["print_last"] == 0
    await agent.close()


async def test_kill_9_of_the_shop_after_the_charge_and_nobody_asks_again(pair: tuple[Server, Shop]) -> None:
    processor, shop = pair
    agent = Agent(shop.url, processor.url)
    session = await agent.ready(("mug_blue", 1))
    shop.behave(die_in="place_order")
    await _dies(agent, session["id"], await agent.token(total(session)), secrets.token_hex(8))
    shop.wait_dead()
    shop.start()
    wait_until(lambda: len(shop.sales_of(session["id"])) == 1, "the shop finds the charge by itself")
    assert (await agent.read(session["id"]))["status"] == "completed"
    assert len(shop.entries_of(session["id"])) == 1
    await agent.close()


@pytest.mark.parametrize("call", ["POST /v1/payment_intents$", "POST .*/confirm", "GET /v1/shared_payment"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_kill_9_of_the_processor(pair: tuple[Server, Shop], call: str, moment: str) -> None:
    processor, shop = pair
    agent = Agent(shop.url, processor.url)
    session = await agent.ready(("mug_blue", 1))
    token, key = await agent.token(total(session)), secrets.token_hex(8)
    processor.trouble(kind="die", when=moment, match=call)
    first = await agent.complete(session["id"], token, key=key)
    assert first.status_code == 503
    processor.wait_dead()
    dead = await agent.complete(session["id"], token, key=key)
    assert dead.status_code == 503
    processor.start()
    done = await agent.complete(session["id"], token, key=key)
    assert done.json()["status"] == "completed"
    assert len(shop.entries_of(session["id"])) == 1
    assert len(shop.sales_of(session["id"])) == 1
    await agent.close()


async def test_a_payment_that_never_reached_the_processor_is_undone(pair: tuple[Server, Shop]) -> None:
    processor, shop = pair
    agent = Agent(shop.url, processor.url)
    session = await agent.ready(("print_last", 1))
    token = await agent.token(total(session))
    processor.trouble(kind="die", when="before", match="POST .*/confirm")
    assert (await agent.complete(session["id"], token)).status_code == 503
    processor.wait_dead()
    assert (await agent.read(session["id"]))["status"] == "complete_in_progress"
    processor.start()
    wait_until(lambda: shop.state()["reservations"] == [], "the shop gives the goods back")
    again = await agent.read(session["id"])
    assert again["status"] == "ready_for_payment"
    assert again["messages"][-1]["code"] == "payment_declined"
    assert shop.entries_of(session["id"]) == []
    done = await agent.complete(session["id"], token)
    assert done.json()["status"] == "completed"
    assert len(shop.entries_of(session["id"])) == 1
    await agent.close()
