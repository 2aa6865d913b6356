"""A session's readers see every step of a payment, and nothing secret."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

from tests.buyer.bench import AGENT, API, Bench, usd
from tests.support import eventually
from waystation.buyer.allowance.journal import AllowanceJournal
from waystation.buyer.payer import Payer
from worker import build_worker
from workflows.session import AgentSession, SessionInput


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


async def test_payments_of_an_allowance_show_in_its_session(bench: Bench, tmp_path: Path) -> None:
    queue, session_id = f"session-{uuid.uuid4().hex[:8]}", f"s-{uuid.uuid4().hex}"

    async def announce(_: str) -> None:
        await asyncio.sleep(0)

    async with build_worker(bench.temporal, announce, task_queue=queue):
        session = await bench.temporal.start_workflow(
            AgentSession.run, SessionInput(agent="bot"), id=session_id, task_queue=queue
        )
        mandate = await bench.mandate(usd(1_000))
        journal = AllowanceJournal(tmp_path / "journal", None)
        payer = Payer(
            bench.temporal,
            mandate_id=mandate,
            agent=AGENT,
            task_queue=bench.task_queue,
            session_id=session_id,
            turn_id="t1",
            transport=bench.network,
            credentials=bench.credentials,
            journal=journal,
        )
        async with payer.allowance(API, budget=usd(300), max_price=usd(50)) as allowance:
            for number in range(3):
                await payer.fetch(f"{API}/v1/reports/r{number}", max_price=usd(50), payment_id=f"k{number}")
        await payer.settled(allowance)
        await journal.close()
        page = await session.query(AgentSession.replay)
        updates = [event.data for event in page.events if event.type == "payment.updated"]
    assert [(one["payment_id"], one["status"], one["amount"], one["turn_id"]) for one in updates] == [
        (f"{allowance}:k{number}", "delivered", 50, "t1") for number in range(3)
    ]
