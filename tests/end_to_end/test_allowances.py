"""An allowance as people see it: over the API and its client, within what their token is for."""

import uuid
from typing import Any

import httpx
import pytest
from temporalio.client import Client as TemporalClient

from tests.support import eventually
from tests.world.money_stack import MoneyStack
from waystation.errors import ConflictError
from waystation.temporal.names import SESSION_TASK_QUEUE


@pytest.fixture
async def mandate(money: MoneyStack) -> str:
    return await money.mandate(cap={"amount": 1_000, "currency": "usd"})


@pytest.fixture
async def allowance(money: MoneyStack, mandate: str) -> str:
    """An open allowance of a session, as an agent starts it."""
    allowance_id = f"allowance-{uuid.uuid4().hex}"
    start: dict[str, Any] = {
        "mandate_id": mandate,
        "agent": "shopper",
        "seller": money.sandbox.url("paid-api"),
        "budget": {"amount": 500, "currency": "usd"},
        "max_price": {"amount": 50, "currency": "usd"},
    }
    temporal = await TemporalClient.connect(money.temporal.address)
    await temporal.start_workflow(
        "Allowance",
        {"start": start},
        id=allowance_id,
        task_queue=SESSION_TASK_QUEUE,
        memo={"session_id": f"session-of-{allowance_id}"},
    )
    async with money.payments() as payments:

        async def is_open() -> bool:
            return (await payments.allowance(allowance_id)).open

        await eventually(is_open, what="the budget is reserved")
    return allowance_id


async def left(money: MoneyStack, mandate: str) -> int:
    answer = await money.call("approver", "GET", f"/mandates/{mandate}")
    return int(answer.json()["left"]["amount"])


async def test_settling_gives_back_what_was_not_spent(
    money: MoneyStack, mandate: str, allowance: str
) -> None:
    assert await left(money, mandate) == 500
    async with money.payments() as payments:
        await payments.settle(allowance, reason="enough")

        async def is_back() -> bool:
            return await left(money, mandate) == 1_000

        await eventually(is_back, what="the budget is back in the mandate")
        with pytest.raises(ConflictError, match="settled already"):
            await payments.settle(allowance)
        trail = await payments.allowance_audit(allowance)
    settled = next(entry for entry in trail.entries if entry.action == "settle.received")
    assert settled.actor == "test-approver"
    assert settled.detail["reason"] == "enough"


async def test_a_token_sees_the_allowances_of_its_sessions_only(money: MoneyStack, allowance: str) -> None:
    async def seen_with(session_id: str) -> tuple[int, list[str]]:
        body = {"role": "client", "sessions": [session_id], "subject": "ada"}
        token = (await money.call("service", "POST", "/tokens", body)).json()["token"]
        async with httpx.AsyncClient(
            base_url=money.url, headers={"Authorization": f"Bearer {token}"}
        ) as http:
            looked = await http.get(f"/allowances/{allowance}")
            listed = await http.get("/allowances")
            settled = await http.post("/allowances/nobody-knows/settle", json={})
        assert settled.status_code == 404
        return looked.status_code, [view["allowance_id"] for view in listed.json()]

    async def is_listed() -> bool:
        return await seen_with(f"session-of-{allowance}") == (200, [allowance])

    await eventually(is_listed, what="its own session's token sees it")
    assert await seen_with("another-session") == (404, [])
