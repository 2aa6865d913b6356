"""Completion: declines, refusals, 3DS, changed prices, stock, races."""

import asyncio
import secrets
from typing import Any

import pytest

from tests.seller.shop.agent import Agent, codes, total
from tests.world.sandbox import Shop

OVER_LIMIT = (
    "The requested amount is greater than the remaining amount capturable "
    "with this shared payment granted token."
)


async def test_two_completes_with_different_keys_give_one_order(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    tokens = [await agent.token(total(session)) for _ in range(4)]
    answers = await asyncio.gather(*(agent.complete(session["id"], token) for token in tokens))
    orders = {answer.json()["order"]["id"] for answer in answers if answer.status_code == 200}
    assert len(orders) == 1
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len(shop.entries_of(session["id"])) == 1
    assert len(shop.sales_of(session["id"])) == 1
    reasons = [(await agent.issued(token))["deactivated_reason"] for token in tokens]
    assert sorted(str(reason) for reason in reasons) == ["None", "None", "None", "consumed"]


async def test_a_seller_that_overcharges_is_refused_by_the_processor(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    amount = total(session)
    shop.behave(overcharge_by=5000 - amount)
    token = await agent.token(2500)
    answer = await agent.complete(session["id"], token)
    refused = answer.json()
    assert (answer.status_code, refused["status"]) == (200, "ready_for_payment")
    assert codes(refused) == ["payment_declined"]
    assert refused["messages"][0]["content"] == OVER_LIMIT
    assert shop.entries_of(session["id"]) == []
    assert shop.sales_of(session["id"]) == []
    assert (await agent.issued(token))["status"] == "active"
    assert token not in answer.text


async def test_a_seller_that_charges_twice_is_refused_the_second_time(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    shop.behave(charge_twice=True)
    done = await agent.complete(session["id"], await agent.token(total(session)))
    assert done.json()["status"] == "completed"
    assert "already in a deactivated state" in shop.state()["second_charge"]
    assert len(shop.entries_of(session["id"])) == 1


@pytest.mark.parametrize(
    ("card", "text"),
    [
        ("pm_card_chargeDeclined", "Your card was declined."),
        ("pm_card_chargeDeclinedInsufficientFunds", "Your card has insufficient funds."),
        ("pm_card_chargeDeclinedExpiredCard", "Your card has expired."),
    ],
)
async def test_a_decline_leaves_room_for_another_try(agent: Agent, shop: Shop, card: str, text: str) -> None:
    session = await agent.ready(("mug_blue", 2))
    before = shop.state()["stock"]["mug_blue"]
    key = secrets.token_hex(8)
    declined_token = await agent.token(total(session), card)
    declined = await agent.complete(session["id"], declined_token, key=key)
    assert (declined.status_code, declined.json()["status"]) == (200, "ready_for_payment")
    assert declined.json()["messages"][-1]["content"] == text
    assert shop.state()["stock"]["mug_blue"] == before
    replayed = await agent.complete(session["id"], declined_token, key=key)
    assert replayed.json() == declined.json()
    good = await agent.complete(session["id"], await agent.token(total(session)))
    assert good.json()["status"] == "completed"
    assert good.json()["messages"] == []
    assert shop.state()["stock"]["mug_blue"] == before - 2
    assert len(shop.entries_of(session["id"])) == 1


async def test_tokens_that_are_not_for_this_seller(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    stranger = await agent.token(total(session), seller="profile_test_other")
    for token in (stranger, "spt_nonsense", "../../v1/refunds", "spt_" + "x" * 5000):
        answer = await agent.complete(session["id"], token)
        assert codes(answer.json()) == ["payment_declined"]
        assert token not in answer.text
    assert shop.entries_of(session["id"]) == []


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({}, "$.payment_data"),
        ({"payment_data": {}}, "$.payment_data.instrument"),
        ({"payment_data": {"instrument": {"type": "card"}}}, "$.payment_data.instrument.credential"),
        (
            {
                "payment_data": {
                    "instrument": {"type": "card", "credential": {"type": "pan", "token": "4242"}}
                }
            },
            "$.payment_data.instrument.credential.type",
        ),
    ],
)
async def test_payment_data_has_to_be_a_shared_payment_token(
    agent: Agent, data: dict[str, Any], param: str
) -> None:
    session = await agent.ready(("mug_blue", 1))
    answer = await agent.send("POST", f"/checkout_sessions/{session['id']}/complete", data)
    assert (answer.status_code, answer.json()["param"]) == (400, param)


async def test_a_checkout_that_is_not_ready_is_not_charged(agent: Agent, shop: Shop) -> None:
    session = await agent.create(("mug_blue", 1))
    token = await agent.token(10_000)
    answer = await agent.complete(session["id"], token)
    assert (answer.status_code, answer.json()["status"]) == (200, "not_ready_for_payment")
    assert "missing" in codes(answer.json())
    assert (await agent.issued(token))["status"] == "active"


async def test_the_risk_hook_has_the_last_word_before_the_charge(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    token = await agent.token(total(session), "pm_card_riskLevelHighest")
    refused = (await agent.complete(session["id"], token, risk_signals={"ip_address": "203.0.113.7"})).json()
    assert (refused["status"], codes(refused)) == ("ready_for_payment", ["payment_declined"])
    assert "risk check" in refused["messages"][0]["content"]
    assert shop.entries_of(session["id"]) == []
    assert (await agent.issued(token))["status"] == "active"
    facts = shop.state()["facts"][-1]
    assert (facts["card_brand"], facts["card_last4"], facts["card_funding"]) == ("visa", "4954", "credit")
    assert facts["insights"]["fraudulent_dispute"]["score"] == 92
    assert facts["risk_signals"]["ip_address"] == "203.0.113.7"
    assert facts["agent_profile"] == "profile_test_agent"
    assert (facts["amount"], facts["token_limit"]) == (total(session), total(session))


PROOF = {
    "outcome": "authenticated",
    "outcome_details": {
        "three_ds_cryptogram": "ABCDEFGHIJKLMNOPQRSTUVWXYZA=",
        "electronic_commerce_indicator": "05",
        "transaction_id": "ds_trans_1",
        "version": "2.2.0",
    },
}


async def test_3ds(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    token = await agent.token(total(session), "pm_card_threeDSecure2Required")
    waiting = (await agent.complete(session["id"], token)).json()
    assert waiting["status"] == "authentication_required"
    assert waiting["authentication_metadata"]["directory_server"] == "visa"
    without = await agent.complete(session["id"], token)
    assert (without.status_code, without.json()["code"]) == (400, "requires_3ds")
    done = (await agent.complete(session["id"], token, authentication_result=PROOF)).json()
    assert done["status"] == "completed"
    assert "authentication_metadata" not in done
    assert len(shop.entries_of(session["id"])) == 1


async def test_3ds_with_the_proof_at_once(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    token = await agent.token(total(session), "pm_card_threeDSecure2Required")
    done = (await agent.complete(session["id"], token, authentication_result=PROOF)).json()
    assert done["status"] == "completed"


async def test_another_token_while_3ds_is_asked_for(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    first = await agent.token(total(session), "pm_card_threeDSecure2Required")
    await agent.complete(session["id"], first)
    second = await agent.token(total(session))
    done = (await agent.complete(session["id"], second, authentication_result=PROOF)).json()
    assert done["status"] == "completed"
    assert (await agent.issued(second))["deactivated_reason"] == "consumed"
    assert (await agent.issued(first))["status"] == "active"
    assert len(shop.entries_of(session["id"])) == 1


@pytest.mark.parametrize("then", ["other card", "other cart"])
async def test_3ds_denied_and_tried_otherwise(agent: Agent, shop: Shop, then: str) -> None:
    session = await agent.ready(("mug_blue", 1))
    token = await agent.token(total(session), "pm_card_threeDSecure2Required")
    await agent.complete(session["id"], token)
    if then == "other card":
        denied = await agent.complete(session["id"], token, authentication_result={"outcome": "denied"})
        assert (denied.json()["status"], codes(denied.json())) == ("ready_for_payment", ["payment_declined"])
    else:
        session = await agent.update(session["id"], line_items=[{"id": "lamp_desk", "quantity": 1}])
        assert session["status"] == "ready_for_payment"
    done = await agent.complete(session["id"], await agent.token(total(session)))
    assert done.json()["status"] == "completed"
    assert [entry["amount"] for entry in shop.entries_of(session["id"])] == [total(session)]


async def test_a_price_that_changes_after_it_was_seen_is_not_charged(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    shop.behave(raise_prices_by=100)
    token = await agent.token(total(session) + 1000)
    changed = (await agent.complete(session["id"], token)).json()
    assert (changed["status"], codes(changed)) == ("ready_for_payment", ["price_change"])
    assert total(changed) == total(session) + 108
    assert shop.entries_of(session["id"]) == []
    done = (await agent.complete(session["id"], token)).json()
    assert (done["status"], total(done)) == ("completed", total(changed))


async def test_the_last_copy_is_sold_once(agent: Agent, shop: Shop) -> None:
    sessions = [await agent.ready(("print_last", 1)) for _ in range(3)]
    answers = await asyncio.gather(
        *[agent.complete(one["id"], await agent.token(total(one))) for one in sessions]
    )
    statuses = sorted(answer.json()["status"] for answer in answers)
    assert statuses == ["completed", "not_ready_for_payment", "not_ready_for_payment"]
    loser = next(answer.json() for answer in answers if answer.json()["status"] != "completed")
    assert "out_of_stock" in codes(loser)
    assert loser["line_items"][0]["availability_status"] == "out_of_stock"
    assert sum(len(shop.entries_of(one["id"])) for one in sessions) == 1
    assert shop.state()["reservations"] == []
    assert "out_of_stock" in codes(await agent.create(("print_last", 1)))


async def test_a_discount_code_that_can_be_used_once(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1), discounts={"codes": ["FIRST1"]})
    if "discount_code_usage_limit_reached" not in codes(session):
        done = await agent.complete(session["id"], await agent.token(total(session)))
        assert done.json()["status"] == "completed"
    assert "discount_code_usage_limit_reached" in codes(
        await agent.ready(("mug_blue", 1), discounts={"codes": ["FIRST1"]})
    )


@pytest.mark.parametrize(
    "trouble",
    [{"kind": "error", "when": "after"}, {"kind": "lose_answer"}, {"kind": "error", "when": "before"}],
)
@pytest.mark.parametrize("call", ["POST /v1/payment_intents$", "POST .*/confirm"])
async def test_a_processor_without_an_answer(
    agent: Agent, shop: Shop, trouble: dict[str, Any], call: str
) -> None:
    session = await agent.ready(("mug_blue", 1))
    token, key = await agent.token(total(session)), secrets.token_hex(8)
    shop.processor.trouble(match=call, **trouble)
    first = await agent.complete(session["id"], token, key=key)
    assert (first.status_code, first.json()["code"]) == (503, "payment_pending")
    assert first.json()["type"] == "service_unavailable"
    expected = "complete_in_progress" if "confirm" in call else "ready_for_payment"
    assert (await agent.read(session["id"]))["status"] == expected
    again = await agent.complete(session["id"], token, key=key)
    assert again.json()["status"] == "completed"
    assert "Idempotent-Replayed" not in again.headers
    assert len(shop.entries_of(session["id"])) == 1
    assert len(shop.sales_of(session["id"])) == 1


async def test_another_token_after_an_unknown_outcome_cannot_charge_twice(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    first, second = await agent.token(total(session)), await agent.token(total(session))
    shop.processor.trouble(kind="lose_answer", match="POST .*/confirm")
    assert (await agent.complete(session["id"], first)).status_code == 503
    done = await agent.complete(session["id"], second)
    assert done.json()["status"] == "completed"
    assert (await agent.issued(second))["status"] == "active"
    assert len(shop.entries_of(session["id"])) == 1

    session = await agent.ready(("mug_blue", 1))
    third = await agent.token(total(session))
    shop.processor.trouble(kind="error", when="before", match="POST .*/confirm")
    assert (await agent.complete(session["id"], third)).status_code == 503
    assert (await agent.complete(session["id"], second)).json()["status"] == "completed"
    assert (await agent.issued(third))["status"] == "active"
    assert len(shop.entries_of(session["id"])) == 1


async def test_cancel_during_an_unknown_payment(agent: Agent, shop: Shop) -> None:
    for trouble, status, charges in (("lose_answer", 409, 1), ("error", 200, 0)):
        session = await agent.ready(("mug_blue", 1))
        token = await agent.token(total(session))
        shop.processor.trouble(kind=trouble, match="POST .*/confirm")
        assert (await agent.complete(session["id"], token)).status_code == 503
        canceled = await agent.send("POST", f"/checkout_sessions/{session['id']}/cancel")
        assert canceled.status_code == status
        assert len(shop.entries_of(session["id"])) == charges
        late = await agent.complete(session["id"], token)
        assert late.status_code == (200 if charges else 409)


async def test_the_seller_whose_key_is_refused_says_so(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    shop.processor.trouble(kind="error", status=401, match="GET /v1/shared_payment")
    answer = await agent.complete(session["id"], await agent.token(total(session)))
    assert (answer.status_code, answer.json()["code"]) == (502, "payment_unavailable")
    assert (await agent.read(session["id"]))["status"] == "ready_for_payment"


@pytest.mark.parametrize("tamper", ["total", "currency", "quantity", "missing_totals", "amount_as_text"])
async def test_a_lying_shop_lies(agent: Agent, shop: Shop, tamper: str) -> None:
    """The switches do what buyers' tests rely on."""
    session = await agent.ready(("mug_blue", 1))
    shop.behave(tamper=tamper)
    answer = await agent.http.get(
        f"/checkout_sessions/{session['id']}",
        headers={"Authorization": f"Bearer {agent.api_key}", "API-Version": "2026-04-17"},
    )
    lie = answer.json()
    lie.pop("updated_at")
    session.pop("updated_at")
    assert lie != session


async def test_tokens_stay_out_of_what_the_seller_keeps(agent: Agent, shop: Shop) -> None:
    session = await agent.ready(("mug_blue", 1))
    token = await agent.token(total(session))
    await agent.complete(session["id"], token)
    declined = await agent.token(total(session), "pm_card_chargeDeclined")
    await agent.complete((await agent.ready(("mug_blue", 1)))["id"], declined)
    for file in shop.data.iterdir():
        kept = file.read_bytes()
        assert token.encode() not in kept
        assert declined.encode() not in kept


async def test_complete_without_the_body(agent: Agent) -> None:
    session = await agent.ready(("mug_blue", 1))
    answer = await agent.send("POST", f"/checkout_sessions/{session['id']}/complete")
    assert answer.status_code == 400
