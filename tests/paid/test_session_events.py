"""A session's readers see every step of a payment, and nothing secret."""

import asyncio
import uuid
from typing import Any

from tests.support import eventually
from worker import build_worker
from workflows.session import AgentSession, SessionInput

from .buying import Bench, usd


async def test_a_payment_shows_in_its_session(bench: Bench) -> None:
    queue, session_id = f"session-{uuid.uuid4().hex[:8]}", f"s-{uuid.uuid4().hex}"

    async def announce(_: str) -> None:
        await asyncio.sleep(0)

    async with build_worker(bench.temporal, announce, task_queue=queue):
        session = await bench.temporal.start_workflow(
            AgentSession.run, SessionInput(agent="bot"), id=session_id, task_queue=queue
        )

        async def events(kind: str) -> list[dict[str, Any]]:
            page = await session.query(AgentSession.replay)
            return [event.data for event in page.events if event.type == kind]

        mandate = await bench.mandate(usd(1_000), approval_threshold=0)
        handle = await bench.start("/v1/reports/rain", usd(60), mandate, session_id=session_id, turn_id="t1")
        [asked] = await eventually(lambda: events("approval.requested"))
        assert (asked["payment_id"], asked["amount"], asked["currency"]) == (handle.id, 50, "usd")
        await handle.signal("approve", {"digest": asked["digest"], "approver": "alice"})
        assert (await handle.result()).status == "delivered"
        updates = await events("payment.updated")
        assert [update["status"] for update in updates] == [
            "choosing",
            "awaiting_approval",
            "paying",
            "confirming",
            "delivered",
        ]
        assert updates[-1]["money_moved"] == "yes"
        [granted] = await events("approval.granted")
        assert granted["approver"] == "alice"
        for token in await bench.all_tokens():
            assert token not in str([updates, asked, granted])


async def test_a_session_that_is_gone_holds_up_no_payment(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000))
    view = await bench.pay("/v1/reports/rain", usd(60), mandate, session_id="no-such-session")
    assert view.status == "delivered"
