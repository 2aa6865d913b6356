"""An allowance as people see it: over the API and its client, within what their token is for."""

import uuid
from typing import Any

import httpx
import pytest

from tests.end_to_end.talk import Talk
from tests.support import eventually
from tests.world.money_stack import MoneyStack
from waystation.errors import ConflictError
from waystation.temporal.connect import open_client
from waystation.temporal.names import SESSION_TASK_QUEUE


@pytest.fixture
async def mandate(money: MoneyStack) -> str:
    return await money.mandate(cap={"amount": 1_000, "currency": "usd"}, approval_threshold=1_000)


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
        "session_id": f"session-of-{allowance_id}",
    }
    temporal = await open_client(money.temporal.address)
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


async def test_a_turn_killed_between_two_allowances_goes_on_with_both(money: MoneyStack) -> None:
    before = len(await money.entries())
    agent = next(process for process in money.processes if process.log.name == "agent.log")
    async with money.client() as client, money.payments() as person:
        mandate = await money.mandate(agent="saver", approval_threshold=1_000)
        talk = await Talk.begin(client, "saver")
        await talk.ask(seller=money.sandbox.url("paid-api"), mandate=mandate)
        await eventually(lambda: agent.popen.poll() is not None, within=40, what="the agent kills itself")
        agent.start()
        done = await talk.until("turn.completed")
        outer, inner = [str(one) for one in done.data["result"] or []]  # type: ignore[union-attr]
        assert outer != inner
        for allowance in (outer, inner):

            async def is_settled(allowance: str = allowance) -> bool:
                view = await person.allowance(allowance)
                return not view.open and view.spent == 50

            await eventually(is_settled, what=f"{allowance} has paid once, and is settled")
        assert [entry["amount"] for entry in (await money.entries())[before:]] == [50, 50]

        async def is_back() -> bool:
            return await left(money, mandate) == 100_000 - 100

        await eventually(is_back, what="what was not spent is back in the mandate")


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


async def test_another_agent_neither_sees_nor_ends_what_this_one_pays(
    money: MoneyStack, mandate: str, allowance: str
) -> None:
    session_id = f"session-of-{allowance}"
    payment_id = f"payment-{uuid.uuid4().hex}"
    start: dict[str, Any] = {
        "request": {"url": f"{money.sandbox.url('paid-api')}/v1/reports/r"},
        "max_price": {"amount": 50, "currency": "usd"},
        "mandate_id": mandate,
        "agent": "shopper",
        "session_id": session_id,
    }
    body = {"payment_id": payment_id, "request": start}
    assert (await money.call("service", "POST", "/payments", body)).status_code == 201
    assert (await money.call("service", "POST", "/payments", body)).status_code == 200
    other_body = {"url": start["request"]["url"], "method": "POST", "body_base64": "aGk="}
    dearer = {"max_price": {"amount": 60, "currency": "usd"}}
    for change in ({"request": other_body}, {"agent": "rival"}, dearer, {"turn_id": "t2"}):
        other = {"payment_id": payment_id, "request": {**start, **change}}
        answer = await money.call("service", "POST", "/payments", other)
        assert (answer.status_code, answer.json()["code"]) == (409, "id-taken")

    async def answers_to(agent: str) -> list[int]:
        body = {"role": "agent", "sessions": [session_id], "subject": agent}
        token = (await money.call("service", "POST", "/tokens", body)).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=money.url, headers=headers) as http:
            looks = [
                await http.get(f"{kind}{path}")
                for kind in (f"/payments/{payment_id}", f"/allowances/{allowance}")
                for path in ("", "/audit")
            ]
            acts = [
                await http.post(f"/payments/{payment_id}/cancel", json={}),
                await http.post(f"/allowances/{allowance}/settle", json={}),
            ]
            lists = [await http.get("/payments"), await http.get("/allowances")]
        if agent == "rival":
            assert [listed.json() for listed in lists] == [[], []]
        return [answer.status_code for answer in looks + acts]

    assert await answers_to("rival") == [404] * 6
    looks_and_acts = await answers_to("shopper")
    assert looks_and_acts[:4] == [200] * 4
    assert looks_and_acts[4] in (202, 409)  # canceled, or over already
    assert looks_and_acts[5] == 202
