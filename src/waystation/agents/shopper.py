"""A deterministic agent that spends: no model, no key. The message's data says what to do.

    {"seller": "http://…", "search": "red mug", "quantity": 2, "mandate": "m-1"}    search, then buy
    {"fetch": "http://…", "max_amount": 50, "currency": "usd", "mandate": "m-1"}    fetch, and pay
    {… "crash": "after"}                     kill its own process once it is paid, on the first attempt only

``details`` are further fields of a purchase (buyer, fulfillment_details, …).
"""

import os
import signal
from typing import Any

from pydantic import JsonValue

from waystation.agent import Agent, Turn
from waystation.models.money import Money

agent = Agent("shopper")


@agent.turn
async def run(turn: Turn) -> JsonValue:
    """Fetches or buys, as the data says, and reports the outcome."""
    if "fetch" in turn.data:
        return await fetch(turn)
    if "seller" in turn.data:
        return await buy(turn)
    await turn.write("Tell me in the data what to search or fetch, and under which mandate.")
    return None


async def buy(turn: Turn) -> JsonValue:
    """Searches the seller's feed and buys the first item found, by its id and without naming a price."""
    seller, query = str(turn.data["seller"]), str(turn.data.get("search", ""))
    async with turn.tool("search_products", {"seller": seller, "query": query}) as call:
        found = [one for one in await turn.search_products(seller, query) if one.available]
        call.result = [one.model_dump() for one in found]
    if not found:
        await turn.write(f"I found nothing for '{query}'.")
        return None
    chosen, quantity = found[0], turn.data.get("quantity", 1)
    await turn.write(f"I found {chosen.title} and would like to buy {quantity}.")
    await turn.end_message()
    given = turn.data.get("details")
    details: dict[str, Any] = given if isinstance(given, dict) else {}
    view = await turn.buy(
        seller,
        {chosen.item_id: quantity if isinstance(quantity, int) else 1},
        mandate_id=str(turn.data["mandate"]),
        **details,
    )
    _crash(turn)
    reason = f": {view.refusal.message}" if view.refusal else "."
    await turn.write(f"The purchase is {view.status}{reason}")
    return {"purchase_id": view.purchase_id, "status": view.status}


async def fetch(turn: Turn) -> JsonValue:
    """Fetches a URL and pays for it if it must be paid for."""
    amount = turn.data.get("max_amount", 0)
    await turn.write(f"Let me see what {turn.data['fetch']} says.")
    paid = await turn.fetch(
        str(turn.data["fetch"]),
        max_price=Money(
            amount=amount if isinstance(amount, int) else 0, currency=str(turn.data.get("currency", "usd"))
        ),
        mandate_id=str(turn.data["mandate"]),
    )
    _crash(turn)
    await turn.write(paid.response.text)
    return {"payment_id": paid.payment_id, "money_moved": paid.money_moved, "answer": paid.response.text}


def _crash(turn: Turn) -> None:
    if turn.data.get("crash") and turn.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
