"""A town in which purchases are made, whatever of it is killed."""

import asyncio
import uuid
from datetime import timedelta
from functools import cached_property
from typing import Any

from tests.workflows.purchase.support import Bought, Buyer
from tests.world.purchase_processes import PurchaseProcesses
from waystation.client.purchases import Buying
from waystation.errors import ConflictError, ConnectionLost, TryLater
from waystation.models.purchases import PurchaseRequest, PurchaseView
from workflows.purchase import Purchase, PurchaseStart


class Town(PurchaseProcesses):
    """The processes of a purchase, and the buying side."""

    @cached_property
    def buyer(self) -> Buyer:
        return Buyer(self.client, self.queue, self.shop.url)


async def start(town: Town, mandate: Any, items: list[dict[str, Any]], **changes: Any) -> Bought:
    request = town.buyer.request(mandate.id, items=items, **changes)
    handle = await town.client.start_workflow(
        Purchase.run,
        PurchaseStart(request=request),
        id=f"purchase-{uuid.uuid4()}",
        task_queue=town.queue,
        task_timeout=timedelta(seconds=2),  # so that a killed worker costs the test little time
    )
    bought = Bought(handle)
    bought.mandate = mandate
    return bought


async def buy_and_approve(town: Town, purchase_id: str, request: PurchaseRequest) -> PurchaseView:
    """What a client does that goes on whatever happens to the API: start, approve when asked, wait."""
    async with town.as_caller("shopper") as agent, town.as_caller("alice") as person:
        buyer, approver = Buying(agent), Buying(person)
        started = False
        while True:
            try:
                if not started:
                    await buyer.start(request, purchase_id=purchase_id)
                    started = True
                view = await approver.wait(purchase_id, within_seconds=120, or_for_a_person=True)
                if view.status == "awaiting_approval":
                    await approver.approve(purchase_id, view.digest or "")
                if view.final:
                    return view
            except (ConnectionLost, TryLater):
                await asyncio.sleep(0.1)
            except ConflictError:  # decided by an attempt whose answer was lost, or canceled meanwhile
                await asyncio.sleep(0.1)
