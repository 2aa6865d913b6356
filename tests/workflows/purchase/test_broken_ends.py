"""Ends at which something of our own breaks: what may have been paid stays accounted for, and is told."""

import asyncio

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

from activities.contract import MANDATE_REFUSED, CommitFor, PurchaseNote, Told
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Buyer
from tests.workflows.purchase.test_loop import AUTO, TOTAL, nothing_happened
from tests.workflows.purchase.test_time import working
from tests.world.sandbox import Processor
from waystation.models.decisions import Reject
from waystation.models.mandates import Reservation
from workflows.purchase import Purchase
from workflows.purchase.checkout import PurchaseCheckout
from workflows.purchase.tokens import PurchaseTokens


async def broken(*_: object) -> None:
    raise LookupError("nobody expected this")


async def test_a_purchase_whose_undoing_breaks_is_ended_and_its_room_given_back(
    encrypted: Client, seller: ScriptedSeller, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PurchaseCheckout, "cancel", broken)
    async with working(encrypted, processor) as queue:
        bought = await Buyer(encrypted, queue, seller.origin).buy()
        await bought.until("awaiting_approval")
        await bought.handle.signal(Purchase.reject, Reject(approver="alice"))
        view = await bought.outcome()
        assert (view.status, view.refusal.rule if view.refusal else None) == ("failed", "internal_error")
        assert "purchase.abandoned" in await bought.actions()
        await nothing_happened(bought, processor)


async def test_a_purchase_whose_token_cannot_be_settled_counts_as_spent(
    encrypted: Client, seller: ScriptedSeller, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PurchaseTokens, "_revoke", broken)
    async with working(encrypted, processor) as queue:
        declining = {**AUTO, "payment_methods": ["pm_card_chargeDeclined"]}
        bought = await Buyer(encrypted, queue, seller.origin).buy(terms=declining, revision_timeout_seconds=0)
        view = await bought.outcome()
        assert (view.status, view.refusal.rule if view.refusal else None) == (
            "failed",
            "charged_without_order",
        )
        assert "purchase.abandoned" in await bought.actions()
        assert await bought.balance() == (TOTAL, 0)


@activity.defn
async def commit_to_mandate(call: CommitFor) -> Reservation:
    """Refuses."""
    raise ApplicationError(
        f"no {call.request.key}", "unknown_reservation", type=MANDATE_REFUSED, non_retryable=True
    )


async def test_what_the_mandate_refuses_to_book_stays_reserved(
    encrypted: Client, seller: ScriptedSeller, processor: Processor
) -> None:
    async with working(encrypted, processor, instead=[commit_to_mandate]) as queue:
        bought = await Buyer(encrypted, queue, seller.origin).buy(terms=AUTO)
        view = await bought.outcome()
        assert (view.status, view.money_moved) == ("completed", True)
        actions = await bought.actions()
        assert "mandate.commit_refused" in actions
        assert not {"mandate.committed", "mandate.released"} & {*actions}
        assert await bought.balance() == (0, TOTAL)


async def test_the_last_word_is_kept_until_the_session_has_it(
    encrypted: Client, seller: ScriptedSeller, processor: Processor
) -> None:
    told: list[PurchaseNote] = []
    listens = asyncio.Event()

    @activity.defn
    async def announce_purchase(call: PurchaseNote) -> Told:
        if not listens.is_set():
            raise ApplicationError("the session doesn't listen now")
        told.append(call)
        return "told"

    async with working(encrypted, processor, instead=[announce_purchase]) as queue:
        bought = await Buyer(encrypted, queue, seller.origin).buy(session_id="s-1")
        await bought.until("awaiting_approval")
        await bought.handle.signal(Purchase.reject, Reject(approver="alice"))
        await bought.until("rejected")
        assert (await bought.handle.describe()).status == WorkflowExecutionStatus.RUNNING
        listens.set()
        await bought.handle.result()
    last = told[-1].note.events[-1]
    assert last["type"] == "purchase.updated"
    assert "rejected" in str(last)
