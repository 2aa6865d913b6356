"""What a session's readers see of a purchase, in the session's own log."""

import uuid

from temporalio.client import Client

from tests.purchases.scripted_seller import ScriptedSeller
from tests.purchases.support import Bought, Buyer
from tests.support import eventually
from waystation.models.events import Event
from waystation.models.purchases import Reject
from worker import build_worker
from workflows.purchase import Purchase
from workflows.session import AgentSession, SessionInput


async def log_of(client: Client, session_id: str) -> list[Event]:
    handle = client.get_workflow_handle_for(AgentSession.run, session_id)
    page = await handle.query(AgentSession.replay)
    return [event for event in page.events if event.type.startswith(("approval.", "purchase."))]


async def test_a_purchase_is_told_in_its_session(
    buyer: Buyer, seller: ScriptedSeller, encrypted: Client
) -> None:
    async def announce(session_id: str) -> None:
        del session_id

    queue, session_id = f"sessions-{uuid.uuid4()}", f"s-{uuid.uuid4().hex}"
    async with build_worker(encrypted, announce, task_queue=queue):
        await encrypted.start_workflow(
            AgentSession.run, SessionInput(agent="shopper"), id=session_id, task_queue=queue
        )
        paid = await buyer.buy(session_id=session_id)
        await paid.approve()
        await paid.outcome()

        async def told() -> bool:
            events = await log_of(encrypted, session_id)
            return any(event.data.get("status") == "completed" for event in events)

        await eventually(told, what="the session knows that the purchase is completed")
        events = await log_of(encrypted, session_id)
        assert {event.data["purchase_id"] for event in events} == {paid.id}
        assert [event.type for event in events if event.type != "purchase.updated"] == [
            "approval.requested",
            "approval.granted",
        ]
        statuses = [event.data["status"] for event in events if event.type == "purchase.updated"]
        assert statuses == ["creating", "preparing", "awaiting_approval", "paying", "completed"]
        asked = next(event for event in events if event.type == "approval.requested")
        assert asked.data["cart"]["total"] == 2480
        assert asked.data["digest"] == (await paid.view()).digest
        assert "spt_" not in "".join(event.model_dump_json() for event in events)

        refused: Bought = await buyer.buy(session_id=session_id)
        await refused.until("awaiting_approval")
        await refused.handle.signal(Purchase.reject, Reject(approver="alice"))
        await refused.outcome()
        await eventually(lambda: _denied(encrypted, session_id), what="the session knows of the rejection")


async def _denied(client: Client, session_id: str) -> bool:
    return any(event.type == "approval.denied" for event in await log_of(client, session_id))


async def test_an_unknown_session_does_not_hold_a_purchase_up(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms={"approval_threshold": 50_000}, session_id="no-such-session")
    assert (await bought.outcome()).status == "completed"
