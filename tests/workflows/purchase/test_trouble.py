"""Lying, broken and half-dead sellers and processors: a named refusal, nothing lost, never two charges."""

import asyncio
from typing import Any

import pytest
import stripe
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from tests.workflows.purchase.scripted_seller import ScriptedSeller, handler, totals
from tests.workflows.purchase.support import Buyer
from tests.workflows.purchase.test_loop import AUTO, TOTAL, nothing_happened, paid_once
from tests.world.sandbox import Processor


def with_line(session: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**session, "line_items": [{**session["line_items"][0], **changes}]}


LIES: dict[str, tuple[str, Any, str]] = {
    "totals that do not add up": (
        "update",
        lambda s: {**s, "totals": totals(items_base_amount=1800, subtotal=1800, tax=180, total=1000)},
        "totals_do_not_add_up",
    ),
    "a negative total": (
        "update",
        lambda s: {**s, "totals": totals(total=-100)},
        "totals_do_not_add_up",
    ),
    "a total of zero": (
        "update",
        lambda s: {**s, "totals": totals(subtotal=1800, discount=1800, total=0)},
        "total_not_positive",
    ),
    "no total": ("update", lambda s: {**s, "totals": totals(subtotal=1800)}, "totals_do_not_add_up"),
    "an absurd total": (
        "update",
        lambda s: {**s, "totals": totals(subtotal=10**18, total=10**18)},
        "seller_answer_invalid",
    ),
    "a fractional total": (
        "update",
        lambda s: {**s, "totals": [{"type": "total", "display_text": "Total", "amount": 24.8}]},
        "seller_answer_invalid",
    ),
    "a total as text": (
        "update",
        lambda s: {**s, "totals": [{"type": "total", "display_text": "Total", "amount": "2480"}]},
        "seller_answer_invalid",
    ),
    "another currency": ("update", lambda s: {**s, "currency": "eur"}, "wrong_currency"),
    "another item": ("update", lambda s: with_line(s, item={"id": "yacht"}), "items_added"),
    "another quantity": ("update", lambda s: with_line(s, quantity=20, unit_amount=90), "quantity_changed"),
    "an item too many": (
        "update",
        lambda s: {
            **s,
            "line_items": [*s["line_items"], {**s["line_items"][0], "id": "li_x", "item": {"id": "extra"}}],
        },
        "items_added",
    ),
    "another checkout": ("update", lambda s: {**s, "id": "cs_other"}, "checkout_changed"),
    "another payee": (
        "update",
        lambda s: {**s, "capabilities": {"payment": {"handlers": [handler("profile_test_thief")]}}},
        "payee_changed",
    ),
    "no payment handler": (
        "create",
        lambda s: {**s, "capabilities": {}},
        "no_payment_handler",
    ),
    "an unknown status": ("update", lambda s: {**s, "status": "paid"}, "seller_answer_invalid"),
    "not JSON": ("create", lambda s: PlainTextResponse("<html>Hello</html>", 200), "seller_answer_invalid"),
    "nothing": ("create", lambda s: Response(b"", 200), "seller_answer_invalid"),
    "too much": ("create", lambda s: Response(b"[" + b"1," * 600_000 + b"1]", 200), "seller_answer_invalid"),
    "a redirect": ("create", lambda s: RedirectResponse("https://evil.example/"), "http_307"),
    "a refusal": (
        "create",
        lambda s: JSONResponse(
            {"type": "invalid_request", "code": "invalid_item_id", "message": "no such item"}, 400
        ),
        "invalid_item_id",
    ),
    "an old protocol": (
        "discovery",
        lambda s: {**s, "protocol": {**s["protocol"], "supported_versions": ["2025-09-29"]}},
        "protocol_not_served",
    ),
}


@pytest.mark.parametrize("lie", LIES)
async def test_each_lie_is_refused_by_name_and_nothing_is_charged(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor, lie: str
) -> None:
    step, twist, rule = LIES[lie]
    for one in ("create", "update", "read") if rule == "no_payment_handler" else (step,):
        seller.twists[one] = twist
    if step == "discovery":
        # Discovery is remembered by the worker: the same shop under its other name is asked afresh.
        name = seller.origin.replace("127.0.0.1", "localhost")
        bought = await buyer.buy(terms={**AUTO, "sellers": [name]}, seller=name)
    else:
        bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", rule)
    assert view.refusal is not None
    assert view.refusal.message
    assert processor.tokens_of(bought.id) == []
    await nothing_happened(bought, processor)
    assert "purchase.refusal" in await bought.actions()


async def test_a_seller_without_tls_is_refused(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms={"sellers": ["http://shop.example"]}, seller="http://shop.example")
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "tls_required")


async def test_charging_fifty_dollars_on_a_cheaper_token_is_refused_by_the_processor(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    errors: list[str] = []
    charge = seller.charge

    async def greedy(checkout: str, number: int, token: str, amount: int, proof: Any = None) -> Any:
        try:
            return await charge(checkout, number, token, 5_000, proof)
        except stripe.InvalidRequestError as error:
            errors.append(str(error.user_message))
            raise

    seller.charge = greedy  # type: ignore[method-assign]
    try:
        bought = await buyer.buy(terms=AUTO, revision_timeout_seconds=0)
        view = await bought.outcome()
    finally:
        seller.charge = charge  # type: ignore[method-assign]
    assert view.status == "failed"
    assert "greater than the remaining amount" in errors[0]
    await nothing_happened(bought, processor)


# Answers that get lost


@pytest.mark.parametrize("step", ["create", "update", "complete"])
async def test_a_5xx_after_the_work_was_done_is_asked_again_under_the_same_key(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor, step: str
) -> None:
    def fail_twice(session: dict[str, Any]) -> Response | None:
        if seller.steps().count(step) <= 2:
            return PlainTextResponse("oops", 503, {"Retry-After": "0"})
        return None

    seller.twists[step] = fail_twice
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    assert len(seller.keys(step)) == 1
    await paid_once(bought, processor, TOTAL)


async def test_a_completion_that_only_ever_fails_is_found_by_reading(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.twists["complete"] = lambda session: PlainTextResponse("oops", 500)
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert view.status == "completed"
    assert len(seller.keys("complete")) == 1
    await paid_once(bought, processor, TOTAL)


async def test_a_completion_answered_with_nonsense_is_found_by_reading(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.twists["complete"] = lambda session: {**session, "status": "surely paid"}
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, TOTAL)


async def test_a_payment_refunded_and_canceled_by_the_seller_is_not_called_unpaid(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    def sorry(session: dict[str, Any]) -> dict[str, Any]:
        seller.sessions[session["id"]] = {**session, "status": "canceled", "order": None}
        return seller.sessions[session["id"]]

    seller.twists["complete"] = sorry
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("failed", "charged_without_order")
    assert view.money_moved
    await paid_once(bought, processor, TOTAL)


async def test_polling_a_seller_that_takes_its_time(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    reads = 0

    def later(session: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal reads
        reads += 1
        return {**session, "status": "complete_in_progress", "order": None} if reads < 3 else None

    seller.twists["complete"] = lambda s: {**s, "status": "complete_in_progress", "order": None}
    seller.twists["read"] = later
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    assert seller.steps().count("complete") == 1
    await paid_once(bought, processor, TOTAL)


async def test_a_wish_to_cancel_during_the_payment_comes_too_late(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slow(session: dict[str, Any]) -> None:
        under_way.set()
        await go_on.wait()

    seller.twists["complete"] = slow
    bought = await buyer.buy(terms=AUTO)
    await asyncio.wait_for(under_way.wait(), 10)
    await bought.handle.signal("cancel", {"by": "alice"})
    go_on.set()
    view = await bought.outcome()
    assert view.status == "completed"
    await paid_once(bought, processor, TOTAL)


# The processor


@pytest.mark.parametrize("trouble", ["error", "lose_answer"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_of_the_processor_makes_no_second_token(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor, trouble: str, when: str
) -> None:
    processor.trouble(match=r"POST /v1/shared_payment/issued_tokens$", kind=trouble, when=when, times=2)
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    assert len(processor.tokens_of(bought.id)) == 1
    await paid_once(bought, processor, TOTAL)


async def test_a_lost_answer_to_the_revocation_is_found_by_asking_again(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    processor.trouble(match=r"POST .*/revoke$", kind="lose_answer", times=1)
    bought = await buyer.buy(
        terms={**AUTO, "payment_methods": ["pm_card_chargeDeclined"]}, revision_timeout_seconds=0
    )
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("failed", "payment_declined")
    await nothing_happened(bought, processor)
    [token] = processor.tokens_of(bought.id)
    assert token["deactivated_reason"] == "revoked"


async def test_an_unknown_payment_method_is_refused_by_the_processor(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy(terms={**AUTO, "payment_methods": ["pm_nobody"]})
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("failed", "processor_refused")
    await nothing_happened(bought, processor)
