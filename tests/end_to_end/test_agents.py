"""Agents that search, buy and fetch, on a real stack beside the sandbox."""

import json
from typing import Any

from websockets.asyncio.client import connect

from tests.end_to_end.liar import INJECTION
from tests.end_to_end.talk import Talk
from tests.support import eventually
from tests.world.money_stack import MoneyStack
from tests.world.stack import KEYS
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from workflows.trail import verify

BUYER = {"email": "ada@example.com", "first_name": "Ada"}
DETAILS = {"buyer": BUYER}
BOOKS: dict[str, Any] = {"search": "tides", "quantity": 2, "details": DETAILS}


async def test_an_agent_searches_and_buys_what_a_person_approves(money: MoneyStack) -> None:
    mandate = await money.mandate()
    async with money.client() as client, money.buying() as person:
        talk = await Talk.begin(client, "shopper")
        turn = await talk.ask(seller=money.sandbox.url("shop"), mandate=mandate, **BOOKS)
        asked = await talk.until("approval.requested")
        cart = asked.data["cart"]
        assert isinstance(cart, dict)
        assert (cart["total"], cart["seller"]) == (2_500, money.sandbox.url("shop"))
        before = len(await money.entries())
        purchase_id = str(asked.data["purchase_id"])
        refused = await money.call(
            "agent", "POST", f"/purchases/{purchase_id}/approve", {"digest": asked.data["digest"]}
        )
        assert refused.status_code == 403
        await person.approve(purchase_id, str(asked.data["digest"]))
        done = await talk.until("turn.completed")
        assert done.turn_id == turn
        view = await person.purchase(purchase_id)
        assert view.status == "completed"
        assert (view.request.turn_id, view.request.session_id) == (turn, talk.session.id)
        charges = await money.entries()
        assert [entry["amount"] for entry in charges[before:]] == [2_500]
        types = [event.type for event in await talk.events()]
        assert types.count("approval.requested") == types.count("approval.granted") == 1
        assert "purchase.updated" in types
        assert "spt_" not in "".join(event.model_dump_json() for event in await talk.events())
        trail = await person.audit(purchase_id)
        assert verify(trail.entries)


async def test_a_person_approves_over_the_websocket(money: MoneyStack) -> None:
    mandate = await money.mandate()
    async with money.client() as client:
        talk = await Talk.begin(client, "shopper")
        await talk.ask(seller=money.sandbox.url("shop"), mandate=mandate, **BOOKS)
        asked = await talk.until("approval.requested")
        body = {"purchase_id": asked.data["purchase_id"], "digest": asked.data["digest"]}
        url = f"{money.url.replace('http', 'ws', 1)}/sessions/{talk.session.id}/socket"

        async def command(role: str) -> dict[str, object]:
            headers = {"Authorization": f"Bearer {KEYS[role]}"}
            async with connect(url, additional_headers=headers) as socket:
                await socket.send(json.dumps({"op": "approve", "request": "1", "body": body}))
                async for raw in socket:
                    answer: dict[str, object] = json.loads(raw)
                    if answer.get("type") == "answer":
                        return answer
            raise AssertionError("no answer")

        for role in ("client", "operator", "service"):
            answer = await command(role)
            assert answer["ok"] is False, role
            problem = answer["problem"]
            assert isinstance(problem, dict)
            assert problem["code"] == "forbidden"
        answer = await command("approver")
        assert answer["ok"] is True, answer
        await talk.until("purchase.updated", lambda event: event.data["status"] == "completed")
        granted = await talk.until("approval.granted")
        assert granted.data["approver"] == "test-approver"


async def test_lies_and_injected_texts_change_neither_price_nor_payee_nor_cart(money: MoneyStack) -> None:
    mandate = await money.mandate(agent="liar")
    await money.behave(injected_text=INJECTION)
    async with money.client() as client, money.buying() as person:
        talk = await Talk.begin(client, "liar")
        await talk.ask(seller=money.sandbox.url("shop"), mandate=mandate)
        asked = await talk.until("approval.requested")
        cart = asked.data["cart"]
        assert isinstance(cart, dict)
        view = await person.purchase(str(asked.data["purchase_id"]))
        assert view.cart is not None
        assert view.cart.payee == "profile_test_shop"
        assert cart["total"] == view.cart.total == 1_250
        assert [(line.item_id, line.quantity) for line in view.cart.lines] == [("ebook_tides", 1)]
        assert INJECTION in view.cart.lines[0].name, "the seller's own words are shown, and do nothing"
        await person.approve(view.purchase_id, str(asked.data["digest"]))
        done = await talk.until("turn.completed")
        result = done.data["result"]
        assert isinstance(result, dict)
        refused = result["refused"]
        assert isinstance(refused, list)
        assert len(refused) == 8, "every lie was refused"
        async with money.buying("service") as everything:
            balance = await everything.mandate(mandate)
        assert (balance.spent.amount, balance.reserved.amount, balance.payments) == (1_250, 0, 1)


async def test_the_processor_refuses_an_overcharge(money: MoneyStack) -> None:
    mandate = await money.mandate()
    await money.behave(overcharge_by=2_500)
    before = len(await money.entries())
    async with money.client() as client, money.buying() as person:
        talk = await Talk.begin(client, "shopper")
        await talk.ask(seller=money.sandbox.url("shop"), mandate=mandate, **BOOKS)
        asked = await talk.until("approval.requested")
        await person.approve(str(asked.data["purchase_id"]), str(asked.data["digest"]))
        declined = await talk.until(
            "purchase.updated",
            lambda event: event.data["status"] in ("payment_declined", "refused", "failed"),
        )
        await person.cancel(str(declined.data["purchase_id"]))
        view = await person.wait(str(declined.data["purchase_id"]), within_seconds=30)
        assert view.final
        assert not view.money_moved
        assert await money.entries() == (await money.entries())[:before]
        assert (await person.mandate(mandate)).reserved.amount == 0


async def test_an_agent_pays_for_a_request_by_token_and_on_chain(money: MoneyStack) -> None:
    async with money.client() as client:
        talk = await Talk.begin(client, "shopper")
        mandate = await money.mandate(approval_threshold=1_000)
        url = f"{money.sandbox.url('paid-api')}/v1/reports/{talk.session.id}"
        await talk.ask(fetch=url, max_amount=50, mandate=mandate)
        done = await talk.until("turn.completed")
        result = done.data["result"]
        assert isinstance(result, dict)
        assert result["money_moved"] in ("yes", "unknown")  # the answer comes before the processor's word
        assert "All there is to know" in str(result["answer"])
        async with money.payments() as person:
            view = await person.payment(str(result["payment_id"]), wait=True)
            events = await talk.events()
            said = next(event.seq for event in events if event.data.get("text", "").startswith("Let me see"))
            assert said < min(event.seq for event in events if event.type == "payment.updated")
            assert (view.status, view.money_moved) == ("delivered", "yes")
            assert verify((await person.audit(view.payment_id)).entries)

        tokens = await money.mandate(
            cap={"amount": 1_000_000, "currency": USDC_BASE_SEPOLIA.currency}, approval_threshold=1_000_000
        )
        quote = f"{money.sandbox.url('paid-api')}/v1/quotes/{talk.session.id}"
        turn = await talk.ask(
            fetch=quote, max_amount=2_000, currency=USDC_BASE_SEPOLIA.currency, mandate=tokens
        )
        paid = await talk.until("turn.completed", lambda event: event.turn_id == turn)
        assert "stands at 42" in str(paid.data["result"])


async def test_a_person_approves_a_paid_request(money: MoneyStack) -> None:
    async with money.client() as client, money.payments() as person:
        talk = await Talk.begin(client, "shopper")
        mandate = await money.mandate(approval_threshold=0)
        url = f"{money.sandbox.url('paid-api')}/v1/reports/{talk.session.id}"
        await talk.ask(fetch=url, max_amount=50, mandate=mandate)
        asked = await talk.until("approval.requested")
        payment_id, digest = str(asked.data["payment_id"]), str(asked.data["digest"])
        path = f"/payments/{payment_id}"
        for role in ("agent", "service", "operator", "client"):
            answer = await money.call(role, "POST", f"{path}/approve", {"digest": digest})
            assert answer.status_code == 403, role
        stale = await money.call("approver", "POST", f"{path}/approve", {"digest": "sha256:" + "0" * 64})
        assert (stale.status_code, stale.json()["code"]) == (409, "stale-digest")
        await person.approve(payment_id, digest)
        await talk.until("payment.updated", lambda event: event.data["status"] == "delivered")
        again = await money.call("approver", "POST", f"{path}/reject", {})
        assert (again.status_code, again.json()["code"]) == (409, "not-awaiting-approval")
        listed = (await money.call("service", "GET", f"/payments?session_id={talk.session.id}")).json()
        assert [one["payment_id"] for one in listed] == [payment_id]
        other = await money.call("service", "GET", f"/purchases/{payment_id}")
        assert other.status_code == 404


async def test_a_retried_turn_neither_pays_twice_nor_loses_the_answer(money: MoneyStack) -> None:
    """The agent's process dies between the payment and the turn's end."""
    async with money.client() as client:
        talk = await Talk.begin(client, "shopper")
        mandate = await money.mandate(approval_threshold=10_000)
        url = f"{money.sandbox.url('paid-api')}/v1/reports/{talk.session.id}"
        before = len(await money.entries())
        agent = next(process for process in money.processes if process.log.name == "agent.log")
        await talk.ask(fetch=url, max_amount=50, mandate=mandate, crash="after")
        await eventually(lambda: agent.popen.poll() is not None, within=40, what="the agent kills itself")
        agent.start()
        done = await talk.until("turn.completed")
        assert "All there is to know" in str(done.data["result"])
        assert [event.type for event in await talk.events()].count("turn.retried") == 1
        charges = await money.entries()
        assert [entry["amount"] for entry in charges[before:]] == [50]

        before = len(charges)
        async with money.buying() as person:
            turn = await talk.ask(seller=money.sandbox.url("shop"), mandate=mandate, crash="after", **BOOKS)
            await eventually(lambda: agent.popen.poll() is not None, within=40, what="it does it again")
            agent.start()
            done = await talk.until("turn.completed", lambda event: event.turn_id == turn)
            result = done.data["result"]
            assert isinstance(result, dict)
            assert result["status"] == "completed"
            assert [entry["amount"] for entry in (await money.entries())[before:]] == [2_500]
            assert (await person.mandate(mandate)).payments == 2
