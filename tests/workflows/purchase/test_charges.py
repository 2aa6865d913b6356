"""What is booked is what the processor captured, whatever the seller says; nobody is blind after paying."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller, completed
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_loop import AUTO, TOTAL, nothing_happened, paid_once
from tests.workflows.purchase.test_time import skipping, working
from tests.world.sandbox import Processor
from waystation.models.money import Money
from waystation.models.purchases import Charge, PaymentToken
from workflows.purchase.charges import charge_of, counts_as_spent

__all__ = ["skipping"]


@pytest.fixture
def takes_only(seller: ScriptedSeller) -> Iterator[None]:
    """The seller charges 500 and says that everything was paid."""
    charge = seller.charge

    async def some(checkout: str, number: int, token: str, amount: int, proof: Any = None) -> Any:
        return await charge(checkout, number, token, 500, proof)

    seller.charge = some  # type: ignore[method-assign]
    yield
    seller.charge = charge  # type: ignore[method-assign]


@pytest.fixture
def takes_nothing(seller: ScriptedSeller) -> Iterator[None]:
    """The seller orders without charging."""
    complete = seller.complete

    async def free(session: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        return completed(session)

    seller.complete = free  # type: ignore[method-assign]
    yield
    seller.complete = complete  # type: ignore[method-assign]


@pytest.mark.usefixtures("takes_only")
async def test_what_was_captured_is_booked_and_not_what_was_agreed(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert (view.status, view.money_moved) == ("completed", True)
    assert view.charge == Charge(status="captured", amount=500)
    assert view.receipt is not None
    assert view.receipt.amount == 500
    await paid_once(bought, processor, 500)


@pytest.mark.usefixtures("takes_nothing")
async def test_an_order_that_was_never_charged_is_an_open_case_and_costs_nothing(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    async with working(skipping.client, processor) as queue:
        buyer = Buyer(skipping.client, queue, seller.origin)
        bought = await buyer.buy(terms=AUTO)
        view = await bought.until("completed")
        # The seller could still charge: the room is kept until its token has ended.
        assert view.charge is not None
        assert (view.charge.status, view.money_moved, view.receipt) == ("awaited", False, None)
        assert await bought.balance() == (0, TOTAL)
        await skipping.sleep(timedelta(minutes=20))
        await eventually(lambda: _charge_is(bought, "nothing"), what="the token has ended")
        view = await bought.view()
        assert (view.status, view.money_moved, view.receipt) == ("completed", False, None)
        assert view.order is not None
        assert "purchase.ordered_without_charge" in await bought.actions()
        await nothing_happened(bought, processor)


async def test_a_charge_that_comes_after_the_order_is_booked_when_it_comes(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    complete, later = seller.complete, asyncio.Event()
    charging: list[asyncio.Task[dict[str, Any]]] = []

    async def charge_later(session: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        token = body["payment_data"]["instrument"]["credential"]["token"]

        async def charge() -> dict[str, Any]:
            await later.wait()
            return await seller.charge(session["id"], 1, token, TOTAL)

        charging.append(asyncio.create_task(charge()))
        return completed(session)

    seller.complete = charge_later  # type: ignore[method-assign]
    try:
        bought = await buyer.buy(terms=AUTO)
        view = await bought.until("completed")
        assert view.charge == Charge(status="awaited", amount=0)
        later.set()
        await asyncio.gather(*charging)
    finally:
        seller.complete = complete  # type: ignore[method-assign]
    await eventually(lambda: _charge_is(bought, "captured"), what="the charge is seen")
    await eventually(lambda: _has_receipt(bought), what="the charge is booked")
    await paid_once(bought, processor, TOTAL)


async def test_a_processor_that_is_silent_at_the_end_is_asked_again(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    processor.trouble(match=r"GET /v1/shared_payment/issued_tokens/", kind="error", times=2)
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    await eventually(lambda: _has_receipt(bought), what="the charge is booked")
    await paid_once(bought, processor, TOTAL)


STRANGE: dict[str, Any] = {
    "an unknown kind of link": {"links": [{"type": "imprint", "url": "https://shop.example"}]},
    "an unknown message": {"messages": [{"type": "error", "code": "well_done", "content": "Thanks"}]},
    "no amounts": {"totals": None, "line_items": None, "currency": None},
    "amounts as text": {"totals": [{"type": "total", "amount": "24.80"}]},
    "no page of the order": {"order": {"id": "order_1"}},
}


@pytest.mark.parametrize("strange", STRANGE)
async def test_whatever_is_shown_with_an_order_it_is_one(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor, strange: str
) -> None:
    for step in ("complete", "read"):
        seller.twists[step] = lambda session: (
            {**session, **STRANGE[strange]} if session["status"] == "completed" else None
        )
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert (view.status, seller.steps().count("complete")) == ("completed", 1)
    await paid_once(bought, processor, TOTAL)


async def test_after_an_answer_that_makes_no_sense_the_processor_is_asked_first(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    for step in ("complete", "read"):
        seller.twists[step] = lambda session: (
            {**session, "status": "surely paid"} if session["status"] == "completed" else None
        )
    bought = await buyer.buy(terms=AUTO)

    async def knows() -> bool:
        view = await bought.view()
        return view.status == "confirming" and view.money_moved

    await eventually(knows, what="the purchase knows that money moved")
    assert (await bought.view()).charge == Charge(status="captured", amount=TOTAL)
    seller.twists.clear()
    assert (await bought.outcome()).status == "completed"
    assert seller.steps().count("complete") == 1
    await paid_once(bought, processor, TOTAL)


async def _charge_is(bought: Bought, status: str) -> bool:
    charge = (await bought.view()).charge
    return charge is not None and charge.status == status


async def _has_receipt(bought: Bought) -> bool:
    return (await bought.view()).receipt is not None


# The processor's word, read


@pytest.mark.parametrize(
    ("status", "reason", "captured", "charge", "spent"),
    [
        ("active", None, None, ("awaited", None), 900),
        ("active", None, 0, ("awaited", 0), 0),
        ("active", None, 500, ("awaited", 500), 500),
        ("requires_action", None, 0, ("awaited", 0), 0),
        ("unknown", None, None, ("unknown", None), 900),
        ("deactivated", "consumed", 900, ("captured", 900), 900),
        ("deactivated", "consumed", 500, ("captured", 500), 500),
        ("deactivated", "consumed", 5_000, ("captured", 5_000), 900),
        ("deactivated", "consumed", 0, ("captured", None), 900),
        ("deactivated", "consumed", None, ("captured", None), 900),
        ("deactivated", "revoked", 500, ("captured", 500), 500),
        ("deactivated", "revoked", 0, ("nothing", None), 0),
        ("deactivated", "revoked", None, ("nothing", None), 0),
        ("deactivated", "expired", 0, ("nothing", None), 0),
        ("deactivated", None, 0, ("nothing", None), 0),
        ("deactivated", None, None, ("unknown", None), 900),
    ],
)
def test_what_a_token_says_of_the_money(
    status: str, reason: str | None, captured: int | None, charge: tuple[str, int | None], spent: int
) -> None:
    token = PaymentToken.model_validate(
        {
            "id": "spt_1",
            "fingerprint": "f",
            "status": status,
            "deactivated_reason": reason,
            "captured": captured,
        }
    )
    found = charge_of(token)
    assert (found.status, found.amount) == charge
    assert counts_as_spent(found, Money(amount=900, currency="usd")).amount == spent
