"""What a session's readers see of a purchase, in the session's own log."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import JSONResponse
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from waystation.models.decisions import Reject
from waystation.models.events import Actor, Event, Role
from waystation.models.sessions import SendMessage
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


async def test_a_stopped_turn_takes_an_unapproved_purchase_with_it(
    buyer: Buyer, seller: ScriptedSeller, encrypted: Client
) -> None:
    """What nobody has approved ends with the turn that wanted it; what was approved goes on."""
    async with session_with_a_turn(encrypted) as (session, turn_id):
        named = {"session_id": session.id, "turn_id": turn_id}
        waiting, other = await buyer.buy(**named), await buyer.buy(session_id=session.id)
        seller.before["complete"] = lambda: JSONResponse({}, 503)
        approved = await buyer.buy(**named)
        await approved.approve()
        await approved.until("paying", "confirming")
        await waiting.until("awaiting_approval")
        await other.until("awaiting_approval")
        await eventually(lambda: known(encrypted, session.id, 3), what="the session knows of its purchases")
        await session.signal(AgentSession.stop)
        view = await waiting.until("canceled")
        assert view.refusal is not None
        assert "the turn was stopped" in view.refusal.message
        assert await waiting.balance() == (0, 0)
        late = await buyer.buy(**named)
        await late.until("canceled")
        seller.before.clear()
        await approved.until("completed", within=40)
        assert (await other.view()).status == "awaiting_approval"
        await eventually(
            lambda: knows(encrypted, session.id, approved.id, "completed"), what="the session is told"
        )

        await session.signal(AgentSession.close)
        await other.until("canceled")
        await eventually(lambda: ended(session), what="the session has ended")
        after = await buyer.buy(session_id=session.id)
        await after.until("canceled")


@asynccontextmanager
async def session_with_a_turn(client: Client) -> AsyncIterator[tuple[WorkflowHandle[Any, Any], str]]:
    async def announce(session_id: str) -> None:
        del session_id

    queue, session_id = f"sessions-{uuid.uuid4()}", f"s-{uuid.uuid4().hex}"
    async with build_worker(client, announce, task_queue=queue):
        session = await client.start_workflow(
            AgentSession.run,
            SessionInput(agent=f"nobody-{uuid.uuid4().hex}"),
            id=session_id,
            task_queue=queue,
        )
        person = Actor(id="alice", role=Role.USER)
        sent = await session.execute_update(AgentSession.send, SendMessage(text="buy", actor=person))
        assert sent.turn_id is not None
        yield session, sent.turn_id


async def known(client: Client, session_id: str, purchases: int) -> bool:
    return len({event.data["purchase_id"] for event in await log_of(client, session_id)}) == purchases


async def knows(client: Client, session_id: str, purchase_id: str, status: str) -> bool:
    return any(
        (event.data["purchase_id"], event.data.get("status")) == (purchase_id, status)
        for event in await log_of(client, session_id)
    )


async def ended(session: WorkflowHandle[Any, Any]) -> bool:
    return (await session.describe()).status == WorkflowExecutionStatus.COMPLETED
