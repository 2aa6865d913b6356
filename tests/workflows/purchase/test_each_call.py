"""kill -9 at every call that leaves a purchase: before the callee has worked on it, and after.

A purchase is parked in each call of the process that is to die: the callee holds the request, or its
answer, back. Then the process is killed with all of them under way, and started again. The random kills
are in ``test_crashes``.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from tests.support import eventually
from tests.workflows.purchase.support import Bought
from tests.workflows.purchase.test_crashes import check_books, settled
from tests.workflows.purchase.town import Town, start
from tests.world.sandbox import Processor, Shop
from waystation.client.purchases import Buying
from waystation.errors import ConflictError

Moment = Literal["before", "after"]
BOOK = [{"id": "ebook_tides"}]
MUG = [{"id": "mug_blue"}]
GENEROUS: dict[str, Any] = {"cap": {"amount": 10**9, "currency": "usd"}}


@dataclass(frozen=True)
class Call:
    """One call: who answers it, what it looks like, which purchase gets there and how that one ends."""

    callee: Literal["shop", "processor"]
    match: str
    end: str = "completed"


CALLED = {
    "create": Call("shop", "POST /checkout_sessions$"),
    "issue": Call("processor", "POST /v1/shared_payment/issued_tokens$"),
    "complete": Call("shop", "POST .*/complete$"),
    "revoke": Call("processor", "POST .*/revoke$", end="failed"),
    "cancel": Call("shop", "POST .*/cancel$", end="failed"),
    "select": Call("shop", "POST /checkout_sessions/[^/]+$"),
    "read": Call("shop", "GET /checkout_sessions/[^/]+$"),
    "settle": Call("processor", "GET .*/issued_tokens/[^/]+$"),
}
"""Activities of the worker."""
CHARGING = {
    "facts": Call("processor", "GET .*/granted_tokens/[^/]+$"),
    "intent": Call("processor", "POST /v1/payment_intents$"),
    "confirm": Call("processor", "POST .*/confirm$"),
}
"""Calls of the shop, while the worker waits for its completion."""

CALLS = {**CALLED, **CHARGING}
VICTIMS = {
    "worker": CALLS,
    "shop": {name: call for name, call in CALLS.items() if call.callee == "shop" or name in CHARGING},
    "processor": {name: call for name, call in CALLS.items() if call.callee == "processor"},
}
"""Which calls are under way when each is killed."""


class Parking:
    """Purchases that stand still, each in a call of its own."""

    def __init__(self, town: Town, moment: Moment) -> None:
        self.town, self.moment = town, moment
        self.bought: list[tuple[Bought, Call]] = []

    async def park(self, name: str, call: Call) -> None:
        server: Shop | Processor = self.town.shop if call.callee == "shop" else self.town.processor
        asks = name == "read"
        method = "pm_card_chargeDeclined" if call.end == "failed" else "pm_card_visa"
        mandate = await self.town.buyer.mandate(
            **GENEROUS, payment_methods=[method], approval_threshold=0 if asks else 10**9
        )
        trouble = {"match": call.match, "kind": "hang", "when": self.moment}
        if not asks:
            server.trouble(**trouble)
        items = MUG if name == "select" else BOOK
        bought = await start(self.town, mandate, items, revision_timeout_seconds=0)
        self.bought.append((bought, call))
        if asks:
            await bought.until("awaiting_approval")
            server.trouble(**trouble)
            await bought.approve()

        await eventually(lambda: not server.armed(), what=f"a purchase stands still in {name}")

    async def check(self) -> None:
        """Each ends as it would have without the kill, and the books are right."""
        purchases = [bought for bought, _ in self.bought]
        for bought, call in self.bought:
            await bought.until(call.end, within=90)
        await eventually(lambda: settled(purchases), within=60, what="every token is settled")
        await check_books(self.town, [bought.mandate for bought in purchases], purchases)


@pytest.fixture
async def stocked(town: Town) -> Town:
    town.shop.behave()
    town.shop.stock("mug_blue", 1_000)
    return town


QUICK_ENOUGH = {("worker", "after"), ("shop", "before"), ("processor", "after")}
"""What isn't slow: each process once, and each moment."""


@pytest.mark.thorough
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("victim", "moment"),
    [
        pytest.param(victim, moment, marks=() if (victim, moment) in QUICK_ENOUGH else pytest.mark.slow)
        for victim in VICTIMS
        for moment in ("before", "after")
    ],
)
async def test_kill_9_in_every_call(stocked: Town, victim: str, moment: Moment) -> None:
    parking = Parking(stocked, moment)
    for name, call in VICTIMS[victim].items():
        await parking.park(name, call)
    process = {"worker": stocked.worker, "shop": stocked.shop, "processor": stocked.processor}[victim]
    process.kill()
    process.start()
    await parking.check()


@pytest.mark.thorough
@pytest.mark.timeout(240)
async def test_kill_9_of_the_api_before_and_after_each_call(stocked: Town) -> None:
    """The answer of each call is lost with the API, and the same call is made again."""
    town = stocked
    mandate = await town.buyer.mandate(**GENEROUS)
    request = town.buyer.request(mandate.id, items=BOOK)

    async def dies() -> None:
        town.api.kill()
        town.api.start()
        await town.api.ready()

    async with town.as_caller("shopper") as agent, town.as_caller("alice") as person:
        buyer, approver = Buying(agent), Buying(person)
        first = await buyer.start(request, purchase_id=f"purchase-of-{mandate.id}")
        await dies()
        again = await buyer.start(request, purchase_id=first.purchase_id)
        assert again.purchase_id == first.purchase_id
        asked = await approver.wait(first.purchase_id, within_seconds=30, or_for_a_person=True)
        await dies()
        assert asked.digest is not None
        await approver.approve(asked.purchase_id, asked.digest)
        await dies()
        with pytest.raises(ConflictError, match=re.compile("already|nothing waits")):
            await approver.approve(asked.purchase_id, asked.digest)
        view = await buyer.wait(asked.purchase_id, within_seconds=60)
    assert view.status == "completed"
    bought = Bought(town.client.get_workflow_handle(view.purchase_id))
    bought.mandate = mandate
    await eventually(lambda: settled([bought]), within=60, what="the token is settled")
    await check_books(town, [mandate], [bought])
