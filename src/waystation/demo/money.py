"""The chapters about money: a purchase that a person approves, and requests that get a 402."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from waystation.client import Client, Session
from waystation.client.payments import Payments
from waystation.client.purchases import Buying
from waystation.demo.stage import PATIENCE_SECONDS, DemoFailed, Stage
from waystation.dev.sandbox import Sandbox
from waystation.models.events import Event
from waystation.models.mandates import MandateTerms
from waystation.models.money import Money
from waystation.models.purchases import Cart, PurchaseView
from waystation.models.trail import AuditTrail
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA

PERSON: Final = "dev-approver"
BOOKS: Final = {
    "search": "tides",
    "quantity": 2,
    "details": {"buyer": {"email": "ada@example.com", "first_name": "Ada"}},
}
MAX_TRAIL_LINES: Final = 40


@dataclass(frozen=True)
class Till:
    """The sandbox, a session with the agent that spends, and the person who may approve."""

    sandbox: Sandbox
    session: Session
    buying: Buying
    payments: Payments
    http: httpx.AsyncClient

    async def mandate(self, cap: int, threshold: int, currency: str = "usd") -> str:
        terms = MandateTerms(
            owner=PERSON,
            agent="shopper",
            cap=Money(amount=cap, currency=currency),
            approval_threshold=threshold,
            valid_until=datetime.now(UTC) + timedelta(hours=1),
            sellers=(self.sandbox.url("shop"), self.sandbox.url("paid-api")),
            payment_methods=("pm_card_visa",),
        )
        return (await self.buying.grant(terms)).mandate_id

    async def ask(self, text: str, **data: Any) -> str:
        sent = await self.session.send(text, data=data)
        if sent.turn_id is None:
            raise DemoFailed("No turn answers the message.")
        return sent.turn_id

    async def until(self, kind: str, turn_id: str | None = None, *, after: int = 0) -> Event:
        """Returns the first event of a kind. Raises ``DemoFailed`` if it doesn't arrive."""

        async def look() -> Event:
            async for event in self.session.events(after=after):
                mine = turn_id is None or event.turn_id == turn_id
                if isinstance(event, Event) and event.type == kind and mine:
                    return event
            raise DemoFailed(f"The session ended without {kind}.")

        try:
            return await asyncio.wait_for(look(), PATIENCE_SECONDS)
        except TimeoutError:
            raise DemoFailed(f"{kind} did not arrive within {PATIENCE_SECONDS:.0f} s.") from None

    async def charges(self) -> list[int]:
        """Returns every charge in the processor's own ledger, in cents."""
        ledger = (await self.http.get(f"{self.sandbox.url('processor')}/sandbox/ledger")).json()
        return [entry["amount"] for entry in ledger["entries"] if entry["kind"] == "charge"]


@asynccontextmanager
async def till(stage: Stage) -> AsyncIterator[Till]:
    """Opens a session with the shopper."""
    sandbox, keys = stage.dev.sandbox, stage.dev.state
    if sandbox is None:
        raise DemoFailed("The sandbox isn't running.")
    async with (
        Client(stage.dev.url, keys.key("service")) as service,
        Client(stage.dev.url, keys.key("approver")) as person,
        httpx.AsyncClient(timeout=PATIENCE_SECONDS) as http,
    ):
        session = await service.start("shopper", session_id=f"shopping-{uuid.uuid4().hex[:8]}")
        yield Till(sandbox, session, Buying(person), Payments(person), http)


async def purchase(stage: Stage) -> None:
    """An agent finds an item, a person approves the cart, the processor enforces the limit."""
    async with till(stage) as shop:
        mandate = await shop.mandate(10_000, 0)
        view = await _buy(stage, shop, mandate)
        stage.screen.check(
            view.status == "completed" and await shop.charges() == [2_500],
            "the purchase is completed; the processor's ledger has one charge, of exactly 25.00 USD",
        )
        await _overcharge(stage, shop, mandate)
        _print_trail(stage, await shop.buying.audit(view.purchase_id))


async def _buy(stage: Stage, shop: Till, mandate: str) -> PurchaseView:
    turn = await shop.ask("Two copies, please.", seller=shop.sandbox.url("shop"), mandate=mandate, **BOOKS)
    found = await shop.until("tool.returned", turn)
    stage.screen.say(f"The agent searches the shop's feed: {found.data['result']}")
    asked = await shop.until("approval.requested", after=found.seq)
    view = await shop.buying.purchase(str(asked.data["purchase_id"]))
    if view.cart is None:
        raise DemoFailed("There is no cart to approve.")
    _print_cart(stage, view.cart)
    await shop.buying.approve(view.purchase_id, str(asked.data["digest"]))
    stage.screen.say("The person approves exactly this cart, by its digest.")
    await shop.until("turn.completed", turn)
    return await shop.buying.purchase(view.purchase_id)


async def _overcharge(stage: Stage, shop: Till, mandate: str) -> None:
    behaviour = f"{shop.sandbox.url('shop')}/sandbox/behaviour"
    (await shop.http.post(behaviour, json={"overcharge_by": 2_500})).raise_for_status()
    stage.screen.say("From now on the seller charges 50.00 USD on a token for 25.00.")
    turn = await shop.ask("And two more.", seller=shop.sandbox.url("shop"), mandate=mandate, **BOOKS)
    found = await shop.until("tool.returned", turn)
    asked = await shop.until("approval.requested", after=found.seq)
    purchase_id = str(asked.data["purchase_id"])
    await shop.buying.approve(purchase_id, str(asked.data["digest"]))
    view = await shop.buying.wait(purchase_id, within_seconds=PATIENCE_SECONDS, or_for_a_person=True)
    said = "; ".join(message.text for message in view.messages)
    stage.screen.say(f"The processor refuses it. The purchase is {view.status}: {said}")
    if not view.final:
        await shop.buying.cancel(purchase_id, reason="the seller asked for too much")
    await shop.until("turn.completed", turn)
    await shop.http.post(behaviour, json={})
    view = await shop.buying.purchase(purchase_id)
    balance = await shop.buying.mandate(mandate)
    stage.screen.check(
        not view.money_moved and await shop.charges() == [2_500],
        "the processor refused 50 dollars on a 25 dollar token: nothing more was charged",
    )
    stage.screen.check(
        (balance.spent.amount, balance.reserved.amount) == (2_500, 0), "and the mandate has that room again"
    )


async def paid_requests(stage: Stage) -> None:
    """APIs that return 402, paid by token and on chain, and only once."""
    async with till(stage) as shop:
        api = shop.sandbox.url("paid-api")
        before = len(await shop.charges())
        mandate = await shop.mandate(1_000, 1_000)
        answer = await _fetch(shop, fetch=f"{api}/v1/reports/tides", max_amount=50, mandate=mandate)
        stage.screen.say(f"402, paid with a Stripe token (MPP): {answer}")
        currency = USDC_BASE_SEPOLIA.currency
        tokens = await shop.mandate(10_000, 10_000, currency)
        quote = await _fetch(
            shop, fetch=f"{api}/v1/quotes/SEA", max_amount=1_000, currency=currency, mandate=tokens
        )
        stage.screen.say(f"402, paid in test USDC with an EIP-3009 signature: {quote}")
        stage.screen.check(
            "All there is to know" in answer and "stands at 42" in quote,
            "both answers were paid for",
        )
        pid = stage.dev.pid("agents")
        again = await _fetch(
            shop, fetch=f"{api}/v1/reports/crash", max_amount=50, mandate=mandate, crash="after"
        )
        stage.screen.say(f"The agent's process {pid} died after paying; the turn was retried: {again}")
        stage.screen.check(
            stage.dev.pid("agents") != pid and "All there is to know" in again, "the answer wasn't lost"
        )
        stage.screen.check(
            (await shop.charges())[before:] == [50, 50], "and the processor charged once for each request"
        )


async def _fetch(shop: Till, **data: Any) -> str:
    turn = await shop.ask("Fetch this, please.", **data)
    done = await shop.until("turn.completed", turn)
    result = done.data["result"]
    return str(result["answer"]) if isinstance(result, dict) else ""


def _print_cart(stage: Stage, cart: Cart) -> None:
    lines = [f"{line.quantity} x {line.name or line.item_id}" for line in cart.lines]
    totals = [f"{total.label} {total.amount}" for total in cart.totals]
    ways = [f"by {option.title}" for option in cart.fulfillment]
    stage.screen.say(f"The cart, as the seller {cart.seller} states it, in cents: {', '.join(lines + ways)}")
    stage.screen.say(f"  {', '.join(totals)} ({cart.currency}), paid to {cart.payee}")


def _print_trail(stage: Stage, trail: AuditTrail) -> None:
    stage.screen.say("The audit trail of the first purchase, each entry with the hash of the one before:")
    for entry in trail.entries[:MAX_TRAIL_LINES]:
        stage.screen.say(f"  {entry.seq:>2} {entry.actor:<12} {entry.action:<26} {entry.hash[:19]}")
