"""Records histories for the replay tests: ``python -m tests.workflows.purchase.record_histories [SCENE …]``.

Name a scene that is new. Run it for the others only for a change that is meant to be incompatible with
purchases and mandates that are under way (and say in the commit how those are drained). The histories are in
clear: they come from the sandbox, without encryption, with payment tokens that no longer exist.
"""

import asyncio
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temporalio.client import Client

from tests.support import anonymous
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.world.sandbox import Processor, running_processor
from tests.world.temporal import running_temporal
from waystation.models.decisions import Cancel
from waystation.models.purchases import BuyStart, Revise
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, open_client
from workflows.purchase import Buy, Purchase

FOLDER = Path(__file__).with_name("histories")
AUTO = {"approval_threshold": 50_000}


async def _approved(buyer: Buyer) -> Bought:
    bought = await buyer.buy()
    await bought.approve()
    await bought.outcome()
    return bought


async def _revised_and_canceled(buyer: Buyer) -> Bought:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    await bought.handle.signal(Purchase.revise, Revise.model_validate({"by": "a", "items": [{"id": "tea"}]}))
    await bought.handle.signal(Purchase.cancel, Cancel(by="alice"))
    await bought.outcome()
    return bought


async def _declined_then_paid(buyer: Buyer) -> Bought:
    methods = ["pm_card_chargeDeclined", "pm_card_visa"]
    bought = await buyer.buy(terms={**AUTO, "payment_methods": methods})
    await bought.outcome()
    return bought


async def _refused(buyer: Buyer) -> Bought:
    bought = await buyer.buy(terms={"cap": {"amount": 100, "currency": "usd"}})
    await bought.outcome()
    return bought


async def _for_a_workflow(buyer: Buyer) -> Bought:
    mandate = await buyer.mandate(**AUTO)
    start = BuyStart(purchase_id=f"purchase-{uuid.uuid4()}", request=buyer.request(mandate.id))
    await buyer.client.execute_workflow(Buy.run, start, id=f"{start.purchase_id}-buy", task_queue=buyer.queue)
    bought = Bought(buyer.client.get_workflow_handle_for(Purchase.run, start.purchase_id))
    bought.mandate = mandate
    return bought


SCENES: dict[str, Any] = {
    "approved": _approved,
    "revised_and_canceled": _revised_and_canceled,
    "declined_then_paid": _declined_then_paid,
    "refused": _refused,
    "for_a_workflow": _for_a_workflow,
}


async def record(client: Client, processor: Processor, wanted: Sequence[str]) -> None:
    """Writes the histories of the scenes that are wanted, or of every scene."""
    from tests.workflows.purchase.test_time import working

    FOLDER.mkdir(exist_ok=True)
    async with ScriptedSeller(processor.url).served() as seller, working(client, processor) as queue:
        buyer = Buyer(client, queue, seller.origin)
        for name, play in SCENES.items():
            if wanted and name not in wanted:
                continue
            bought = await play(buyer)
            ids = {"purchase": bought.id, "mandate": bought.mandate.id}
            if play is _for_a_workflow:
                ids["buy"] = f"{bought.id}-buy"
            for kind, workflow_id in ids.items():
                history = await client.get_workflow_handle(workflow_id).fetch_history()
                (FOLDER / f"{kind}-{name}.json").write_text(anonymous(history.to_json()) + "\n")


async def main() -> None:
    """Starts Temporal and the processor, records, stops them."""
    with tempfile.TemporaryDirectory() as folder, running_processor(Path(folder)) as processor:
        async with running_temporal(Path(folder)) as temporal:
            client = await open_client(
                temporal.address, data_converter=CLEAR_DATA_CONVERTER, identity="recorder"
            )
            await record(client, processor, sys.argv[1:])
    print(f"recorded {len(list(FOLDER.glob('*.json')))} histories")


if __name__ == "__main__":
    asyncio.run(main())
