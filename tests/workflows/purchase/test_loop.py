"""The whole loop against a seller that tests can bend and the sandbox processor's process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller, completed, message
from tests.workflows.purchase.support import Bought, Buyer
from tests.world.sandbox import Processor
from tests.world.temporal import TEMPORAL
from waystation.models.decisions import (
    Approve,
    Cancel,
    Decision,
    Reject,
)
from waystation.models.mandates import RevokeRequest
from waystation.models.purchases import (
    AuthenticationDone,
    OrderEventReceived,
    OrderFacts,
    OrderFulfillment,
    RetryPayment,
    Revise,
)
from workflows.mandate import Mandate
from workflows.purchase import Purchase

AUTO = {"approval_threshold": 50_000}
TOTAL = 2 * 900 + 180 + 500
STEPS = ["create", "update", "read", "complete"]
PROOF = {
    "three_ds_cryptogram": "AAABCZIhcQAAAABZlyFxAAAAAAA=",
    "electronic_commerce_indicator": "05",
    "transaction_id": "ds-1",
    "version": "2.2.0",
}


async def nothing_happened(bought: Bought, processor: Processor) -> None:
    """No charge, no reservation, no token that could still be charged."""
    assert await bought.balance() == (0, 0)
    for token in processor.tokens_of(bought.id):
        assert token["status"] == "deactivated"
        assert token["usage_details"]["amount_captured"]["value"] == 0


async def paid_once(bought: Bought, processor: Processor, amount: int) -> None:
    captured = [
        token["usage_details"]["amount_captured"]["value"] for token in processor.tokens_of(bought.id)
    ]
    assert [value for value in captured if value] == [amount]
    assert await bought.balance() == (amount, 0)


def refusal_type(failed: WorkflowUpdateFailedError) -> str | None:
    assert isinstance(failed.cause, ApplicationError)
    return failed.cause.type


async def command_line(buyer: Buyer, *arguments: str) -> None:
    address = buyer.client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        TEMPORAL, *arguments, "--address", address, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


# The straight way


async def test_an_approved_purchase_is_paid_once_and_the_books_are_right(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    shown = await bought.approve()
    assert shown.cart is not None
    assert shown.cart.total == TOTAL
    view = await bought.outcome()
    assert view.status == "completed"
    assert view.receipt is not None
    assert (view.receipt.amount, view.receipt.approved_by) == (TOTAL, "alice")
    await paid_once(bought, processor, TOTAL)
    [token] = processor.tokens_of(bought.id)
    assert token["deactivated_reason"] == "consumed"
    assert token["usage_limits"]["max_amount"] == TOTAL
    assert token["seller_details"]["network_business_profile"] == "profile_test_shop"
    assert [step for step in seller.steps() if step != "discovery"] == [
        "create",
        "update",
        "read",
        "complete",
    ]
    assert seller.keys("create") == {f"{bought.id}:create"}
    assert seller.keys("update") == {f"{bought.id}:select:1"}
    assert seller.keys("complete") == {f"{bought.id}:complete:1"}
    actions = await bought.actions()
    wanted = [
        "purchase.requested",
        "checkout.created",
        "mandate.reserved",
        "approval.requested",
        "approval.received",
        "token.issued",
        "checkout.complete",
        "mandate.committed",
        "purchase.completed",
    ]
    assert [action for action in actions if action in wanted] == wanted


async def test_below_the_threshold_nobody_has_to_approve(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy(terms={"approval_threshold": TOTAL})
    view = await bought.outcome()
    assert view.status == "completed"
    assert view.approval is not None
    assert view.approval.auto
    await paid_once(bought, processor, TOTAL)


async def test_one_cent_above_the_threshold_somebody_has_to(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms={"approval_threshold": TOTAL - 1})
    await bought.until("awaiting_approval")
    await bought.handle.signal(Purchase.cancel, Cancel(by="alice"))
    assert (await bought.outcome()).status == "canceled"


# Decisions


async def test_a_rejection_undoes_everything(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    assert await bought.balance() == (0, TOTAL)
    await bought.handle.signal(Purchase.reject, Reject(approver="alice", reason="too dear"))
    view = await bought.outcome()
    assert view.status == "rejected"
    assert view.refusal is not None
    assert "too dear" in view.refusal.message
    assert seller.steps()[-1] == "cancel"
    await nothing_happened(bought, processor)


async def test_the_first_decision_wins_and_the_loser_is_told(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy()
    view = await bought.until("awaiting_approval")
    yes = Decision(approve=Approve(digest=view.digest or "", approver="alice"))
    no = Decision(reject=Reject(approver="bob"))
    await bought.handle.execute_update(Purchase.decide, yes)
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await bought.handle.execute_update(Purchase.decide, no)
    assert refusal_type(caught.value) == "AlreadyDecided"
    assert "alice" in str(caught.value.cause)
    assert (await bought.outcome()).status == "completed"


async def test_the_agent_and_strangers_cannot_approve(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms={"approvers": ["alice", "bob"]})
    view = await bought.until("awaiting_approval")
    for approver in ("shopper", "mallory"):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await bought.handle.execute_update(
                Purchase.decide, Decision(approve=Approve(digest=view.digest or "", approver=approver))
            )
        assert refusal_type(caught.value) == "NotAnApprover"
        await bought.handle.signal(Purchase.approve, Approve(digest=view.digest or "", approver=approver))
    assert (await bought.view()).status == "awaiting_approval"
    assert (await bought.actions()).count("approval.refused") == 4
    await bought.approve("bob")
    assert (await bought.outcome()).status == "completed"


async def test_a_stale_digest_is_refused(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    stale = "sha256:" + "0" * 64
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await bought.handle.execute_update(
            Purchase.decide, Decision(approve=Approve(digest=stale, approver="alice"))
        )
    assert refusal_type(caught.value) == "StaleDigest"
    await bought.approve()
    assert (await bought.outcome()).status == "completed"


async def test_approving_from_the_command_line_and_garbage_does_no_harm(
    buyer: Buyer, seller: ScriptedSeller
) -> None:
    bought = await buyer.buy()
    view = await bought.until("awaiting_approval")

    async def signal(name: str, value: str) -> None:
        await command_line(buyer, "workflow", "signal", "-w", bought.id, "--name", name, "--input", value)

    for garbage in ("null", "1", '"yes"', "{}", '{"digest": "x", "approver": "alice"}', "[1, 2]"):
        await signal("approve", garbage)
    for name in ("reject", "revise", "cancel", "authentication_result", "retry_payment", "order_event"):
        await signal(name, "null")
    assert (await bought.view()).status == "awaiting_approval"
    await signal("approve", f'{{"digest": "{view.digest}", "approver": "alice"}}')
    assert (await bought.outcome()).status == "completed"


async def test_a_price_change_after_approval_voids_it(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()

    def dearer(session: dict[str, Any]) -> dict[str, Any]:
        seller.twists.pop("read")
        seller.prices["mug"] = 1000
        seller.sessions[session["id"]] = seller.price(session)
        return seller.sessions[session["id"]]

    seller.twists["read"] = dearer
    first = await bought.approve()

    async def asked_again() -> bool:
        view = await bought.view()
        return view.status == "awaiting_approval" and view.digest != first.digest

    await eventually(asked_again, what="the new cart waits for approval")
    second = await bought.approve()
    assert second.cart is not None
    assert second.cart.total == TOTAL + 220
    view = await bought.outcome()
    assert view.status == "completed"
    await paid_once(bought, processor, TOTAL + 220)
    assert "approval.voided" in await bought.actions()


async def test_canceling_the_workflow_undoes_it_too(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    await bought.handle.cancel()
    view = await bought.handle.result()
    assert view.status == "canceled"
    assert seller.steps()[-1] == "cancel"
    await nothing_happened(bought, processor)


async def test_revoking_the_mandate_ends_what_waits(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    await bought.mandate.signal(Mandate.revoke, RevokeRequest(by="alice"))
    view = await bought.outcome()
    assert view.status == "refused"
    assert view.refusal is not None
    assert view.refusal.rule == "mandate_revoked"
    await nothing_happened(bought, processor)


# Changing one's mind


async def test_a_revision_changes_the_cart_and_asks_again(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    first = await bought.until("awaiting_approval")
    more = Revise.model_validate({"by": "shopper", "items": [{"id": "mug", "quantity": 1}, {"id": "tea"}]})
    await bought.handle.signal(Purchase.revise, more)
    await eventually(lambda: _changed(bought, first.digest), what="the revised cart waits for approval")
    await bought.handle.signal(Purchase.revise, Revise(by="bob", fulfillment_option="fast"))
    total = 900 + 450 + 135 + 900
    await eventually(lambda: _total_is(bought, total), what="the faster option is in the cart")
    view = await bought.view()
    for who in ("shopper", "bob"):  # whoever has changed it does not approve it
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await bought.handle.execute_update(
                Purchase.decide, Decision(approve=Approve(digest=view.digest or "", approver=who))
            )
        assert "may not decide" in str(refused.value.cause)
    await bought.approve()
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, total)


async def _changed(bought: Bought, digest: str | None) -> bool:
    view = await bought.view()
    return view.status == "awaiting_approval" and view.digest != digest


async def _total_is(bought: Bought, total: int) -> bool:
    view = await bought.view()
    return view.status == "awaiting_approval" and view.cart is not None and view.cart.total == total


async def test_what_is_out_of_stock_can_be_replaced(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    def sold_out(session: dict[str, Any]) -> dict[str, Any] | None:
        if all(item["id"] != "mug" for item in session["wanted"]):
            return None
        return {
            **session,
            "status": "not_ready_for_payment",
            "messages": [message("out_of_stock", "$.line_items[0]")],
        }

    seller.twists["update"] = sold_out
    bought = await buyer.buy(terms=AUTO)
    view = await bought.until("needs_revision")
    assert view.messages[0].code == "out_of_stock"
    await bought.handle.signal(Purchase.revise, Revise.model_validate({"by": "a", "items": [{"id": "tea"}]}))
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, 450 + 45 + 500)


async def test_what_is_out_of_stock_is_refused_when_nobody_is_to_be_waited_for(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.twists["update"] = lambda session: {
        **session,
        "status": "not_ready_for_payment",
        "messages": [message("out_of_stock", "$.line_items[0]", "no more mugs")],
    }
    bought = await buyer.buy(terms=AUTO, revision_timeout_seconds=0)
    view = await bought.outcome()
    assert view.status == "refused"
    assert view.refusal is not None
    assert (view.refusal.rule, "no more mugs" in view.refusal.message) == ("out_of_stock", True)
    await nothing_happened(bought, processor)


# A person or the issuer has to do something


async def test_escalation_hands_over_the_sellers_page_and_goes_on(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.twists["update"] = lambda session: {
        **session,
        "status": "requires_escalation",
        "continue_url": "https://shop.example/age-check",
    }
    bought = await buyer.buy(terms=AUTO)
    view = await bought.until("escalated")
    assert view.continue_url == "https://shop.example/age-check"
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, TOTAL)


async def test_a_checkout_finished_at_the_sellers_page_costs_the_mandate_nothing(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.twists["update"] = lambda session: {
        **session,
        "status": "requires_escalation",
        "continue_url": "https://shop.example/pay",
    }
    seller.twists["read"] = completed
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert view.status == "completed"
    assert view.receipt is None
    assert view.order is not None
    await nothing_happened(bought, processor)


async def test_a_card_that_wants_3ds_is_paid_after_authentication(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy(terms={**AUTO, "payment_methods": ["pm_card_authenticationRequired"]})
    view = await bought.until("authentication_required")
    assert view.authentication is not None
    assert view.authentication["directory_server"] == "visa"
    done = AuthenticationDone.model_validate({"outcome": "authenticated", "outcome_details": PROOF})
    await bought.handle.signal(Purchase.authentication_result, done)
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, TOTAL)
    assert seller.keys("complete") == {f"{bought.id}:complete:1", f"{bought.id}:complete:2"}
    trail = (await bought.trail()).model_dump_json()
    assert PROOF["three_ds_cryptogram"] not in trail


async def test_a_failed_authentication_charges_nothing(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    methods = ["pm_card_authenticationRequired"]
    bought = await buyer.buy(terms={**AUTO, "payment_methods": methods}, revision_timeout_seconds=0)
    await bought.until("authentication_required")
    await bought.handle.signal(Purchase.authentication_result, AuthenticationDone(outcome="denied"))  # type: ignore[arg-type]
    view = await bought.outcome()
    assert view.status == "failed"
    await nothing_happened(bought, processor)


# Declines


async def test_after_a_decline_the_next_method_of_the_mandate_is_tried(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    methods = ["pm_card_chargeDeclined", "pm_card_mastercard"]
    bought = await buyer.buy(terms={"payment_methods": methods})
    await bought.approve()
    view = await bought.outcome()
    assert view.status == "completed"
    assert view.payment_tries == 2
    await paid_once(bought, processor, TOTAL)
    reasons = sorted(token["deactivated_reason"] for token in processor.tokens_of(bought.id))
    assert reasons == ["consumed", "revoked"]


def declined() -> JSONResponse:
    error = {"type": "invalid_request", "code": "payment_declined", "message": "try another card"}
    return JSONResponse(error, 402)


async def test_a_person_can_have_it_tried_again(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.before["complete"] = declined
    bought = await buyer.buy(terms=AUTO)
    await bought.until("payment_declined")
    seller.before.clear()
    await bought.handle.signal(Purchase.retry_payment, RetryPayment(by="alice", payment_method="pm_stolen"))
    assert (await bought.view()).status == "payment_declined"
    await bought.handle.signal(Purchase.retry_payment, RetryPayment(by="alice"))
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, TOTAL)


async def test_a_seller_that_charges_and_says_declined_is_not_paid_twice(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    def lie(session: dict[str, Any]) -> JSONResponse:
        seller.twists.pop("complete")
        seller.sessions[session["id"]] = {**session, "status": "ready_for_payment", "order": None}
        return declined()

    seller.twists["complete"] = lie
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, TOTAL)
    assert len(processor.tokens_of(bought.id)) == 1


async def test_a_declined_card_with_nobody_to_ask_ends_the_purchase(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy(
        terms={**AUTO, "payment_methods": ["pm_card_chargeDeclined"]}, revision_timeout_seconds=0
    )
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("failed", "payment_declined")
    await nothing_happened(bought, processor)


# Mandates


async def test_a_seller_outside_the_mandate_is_not_even_contacted(
    buyer: Buyer, seller: ScriptedSeller
) -> None:
    bought = await buyer.buy(terms={"sellers": ["https://other.example"]})
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "seller_not_allowed")
    assert seller.calls == []


@pytest.mark.parametrize(
    ("terms", "rule"),
    [
        ({"cap": {"amount": TOTAL - 1, "currency": "usd"}}, "cap_exceeded"),
        ({"per_payment_cap": TOTAL - 1}, "per_payment_cap"),
        ({"constraints": [{"type": "ship_to_countries", "countries": ["FR"]}]}, "country_not_allowed"),
        ({"constraints": [{"type": "allowed_items", "item_ids": ["tea"]}]}, "item_not_allowed"),
    ],
)
async def test_the_mandates_rules_hold_for_the_sellers_total(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor, terms: dict[str, Any], rule: str
) -> None:
    bought = await buyer.buy(terms=terms)
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", rule)
    assert seller.steps()[-1] == "cancel"
    await nothing_happened(bought, processor)


async def test_a_cart_that_does_not_say_where_it_goes_is_not_paid_where_the_country_matters(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    """The request has an address in the United States: that is no word of the seller's."""
    for step in ("create", "update", "read"):
        seller.twists[step] = lambda session: {**session, "fulfillment_details": None}
    only_us = [{"type": "ship_to_countries", "countries": ["US"]}]
    bought = await buyer.buy(terms={**AUTO, "constraints": only_us})
    view = await bought.outcome()
    assert view.refusal is not None
    assert (view.status, view.refusal.rule, view.approval) == ("refused", "country_not_allowed", None)
    assert "the seller's cart doesn't say where this goes" in view.refusal.message
    await nothing_happened(bought, processor)


async def test_a_revision_is_held_to_the_mandates_items_though_the_price_is_the_same(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.prices["jar"] = seller.prices["mug"]
    only_mugs = {"constraints": [{"type": "allowed_items", "item_ids": ["mug"]}]}
    bought = await buyer.buy(terms=only_mugs)
    await bought.until("awaiting_approval")
    other = Revise.model_validate({"by": "bob", "items": [{"id": "jar", "quantity": 2}]})
    await bought.handle.signal(Purchase.revise, other)
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "item_not_allowed")
    await nothing_happened(bought, processor)


def _sent_to(**changed: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def twist(session: dict[str, Any]) -> dict[str, Any]:
        details = session["fulfillment_details"]
        session["fulfillment_details"] = {**details, "address": {**details["address"], **changed}}
        return session

    return twist


async def test_a_cart_that_goes_to_somebody_else_waits_for_a_person_in_spite_of_auto_approval(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    for step in ("create", "update", "read", "complete"):
        seller.twists[step] = _sent_to(name="Mallory", line_one="Elsewhere 1")
    bought = await buyer.buy(terms=AUTO)
    view = await bought.until("awaiting_approval")
    assert view.cart is not None
    assert view.cart.ship_to is not None
    assert view.cart.ship_to.address is not None
    assert view.cart.ship_to.address.name == "Mallory"
    await bought.handle.signal(Purchase.reject, Reject(approver="alice"))
    assert (await bought.outcome()).status == "rejected"
    await nothing_happened(bought, processor)


async def test_a_cart_that_goes_to_another_country_is_refused(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    for step in ("create", "update", "read"):
        seller.twists[step] = _sent_to(country="FR")
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "country_changed")
    await nothing_happened(bought, processor)


async def test_an_unknown_mandate_is_refused(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.start("no-such-mandate")
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "mandate_not_found")
    assert seller.calls == []


async def test_purchases_at_once_stay_within_one_cap(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    mandate = await buyer.mandate(**AUTO, cap={"amount": 3 * TOTAL + 100, "currency": "usd"})
    many = await asyncio.gather(*(buyer.start(mandate.id) for _ in range(6)))
    views = await asyncio.gather(*(bought.outcome() for bought in many))
    assert sorted(view.status for view in views) == ["completed"] * 3 + ["refused"] * 3
    balance = await mandate.query(Mandate.balance)
    assert (balance.spent.amount, balance.reserved.amount) == (3 * TOTAL, 0)


# The order afterwards


async def test_webhooks_keep_the_order_current(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert view.order is not None
    order = view.order

    def event(number: int, sent_at: int, changed: OrderFacts) -> OrderEventReceived:
        return OrderEventReceived(event_id=f"e{number}", sent_at=sent_at, type="order_update", order=changed)

    parcel = OrderFulfillment(id="f1", type="shipping", status="shipped", tracking_number="1Z")
    shipped = order.model_copy(update={"status": "shipped", "fulfillments": (parcel,)})
    await bought.handle.signal(Purchase.order_event, event(1, 200, shipped))
    late = order.model_copy(update={"status": "created"})
    await bought.handle.signal(Purchase.order_event, event(2, 100, late))
    await bought.handle.signal(Purchase.order_event, event(1, 300, late))
    foreign = order.model_copy(update={"checkout_id": "cs_other", "status": "canceled"})
    await bought.handle.signal(Purchase.order_event, event(3, 400, foreign))
    another = order.model_copy(update={"id": "order_other", "status": "canceled"})
    await bought.handle.signal(Purchase.order_event, event(4, 400, another))
    view = await bought.view()
    assert view.order is not None
    assert (view.order.status, view.order.fulfillments[0].tracking_number) == ("shipped", "1Z")
    assert view.status == "completed"
    actions = await bought.actions()
    assert [a for a in actions if a.startswith("order.")] == [
        "order.updated",
        "order.outdated",
        "order.outdated",
        "order.ignored",
        "order.ignored",
    ]


async def test_an_approval_outlives_a_seller_that_is_away(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    away = iter(range(5))
    seller.before["read"] = lambda: JSONResponse({}, 503) if next(away, None) is not None else None
    await bought.approve()
    assert (await bought.outcome()).status == "completed"
    await paid_once(bought, processor, TOTAL)


def refunded(order: OrderFacts, *amounts: int, **changes: str) -> OrderFacts:
    given = {"type": "refund", "status": "completed", "occurred_at": "2026-05-01T12:00:00Z", **changes}
    adjustments = [{"id": f"re_{n}", "amount": amount, **given} for n, amount in enumerate(amounts)]
    return OrderFacts.model_validate({**order.model_dump(), "adjustments": adjustments})


async def told(bought: Bought, number: int, order: OrderFacts) -> None:
    event = OrderEventReceived(event_id=f"e{number}", sent_at=number, type="order_update", order=order)
    await bought.handle.signal(Purchase.order_event, event)


async def test_refunds_give_the_mandate_room_back(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms=AUTO)
    order = (await bought.outcome()).order
    assert order is not None
    await told(bought, 1, refunded(order, 500, status="pending"))
    await told(bought, 2, refunded(order, 500, type="credit"))
    await told(bought, 3, refunded(order, 500))
    await eventually(lambda: balance_is(bought, TOTAL - 500), what="the first refund has come back")
    await told(bought, 4, refunded(order, 500, 10 * TOTAL))
    await eventually(lambda: balance_is(bought, 0), what="no more than was paid comes back")
    await told(bought, 5, refunded(order, 500, 10 * TOTAL))
    trail = [entry for entry in (await bought.trail()).entries if entry.action == "mandate.refunded"]
    assert [entry.detail["refunded"] for entry in trail] == [500, TOTAL]
    view = await bought.mandate.query(Mandate.balance)
    assert (view.refunded.amount, view.left.amount) == (TOTAL, view.terms.cap.amount)
    assert [one.refunded for one in view.reservations] == [TOTAL]


async def test_a_refund_after_the_end_of_the_mandate_is_noted(buyer: Buyer, seller: ScriptedSeller) -> None:
    bought = await buyer.buy(terms=AUTO)
    order = (await bought.outcome()).order
    assert order is not None
    await bought.mandate.terminate("its time is over")
    await told(bought, 1, refunded(order, 500))

    async def noted() -> bool:
        return "mandate.refund_without_effect" in await bought.actions()

    await eventually(noted, what="the refund is noted")


async def balance_is(bought: Bought, spent: int) -> bool:
    return await bought.balance() == (spent, 0)
