"""The trail has every answer of the seller and the processor, also those that are worth nothing."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller, completed
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_loop import AUTO
from tests.workflows.purchase.test_time import skipping, working
from tests.world.sandbox import Processor
from waystation.models.trail import AuditTrail

__all__ = ["skipping"]

OF_STEP = {
    "create": {"checkout.created", "checkout.create_failed"},
    "update": {"checkout.updated", "checkout.update_failed"},
    "read": {"checkout.read", "checkout.unreadable"},
    "complete": {"checkout.answered", "checkout.complete_failed"},
    "cancel": {"checkout.canceled", "checkout.cancel_failed"},
}


def answers_in(trail: AuditTrail) -> Counter[str]:
    """How many answers to each of a seller's steps the trail has."""
    found: Counter[str] = Counter()
    step_of = {action: step for step, actions in OF_STEP.items() for action in actions}
    for entry in trail.entries:
        if entry.action in step_of:
            found[step_of[entry.action]] += int(str(entry.detail.get("times", 1)))
    for repeated in trail.repeated:
        if repeated.action in step_of:
            found[step_of[repeated.action]] += repeated.count
    return found


async def has_all_that_was_asked(bought: Bought, seller: ScriptedSeller) -> AuditTrail:
    await bought.handle.query("status")
    trail = await bought.trail()
    asked = Counter(step for step in seller.steps() if step != "discovery")
    assert answers_in(trail) == asked
    return trail


async def test_an_answer_about_another_checkout_and_the_polls_after_it_are_in_the_trail(
    buyer: Buyer, seller: ScriptedSeller
) -> None:
    polls = 0

    def busy(session: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal polls
        if session["status"] != "completed":
            return None
        polls += 1
        return {**session, "status": "in_progress", "order": None} if polls <= 3 else None

    seller.twists["complete"] = lambda session: {**completed(session), "id": "cs_of_somebody_else"}
    seller.twists["read"] = busy
    bought = await buyer.buy(terms=AUTO)
    assert (await bought.outcome()).status == "completed"
    trail = await has_all_that_was_asked(bought, seller)
    about = [entry.detail["checkout_id"] for entry in trail.entries if entry.action == "checkout.answered"]
    assert about == ["cs_of_somebody_else"]
    said = [
        (entry.detail["status"], entry.detail.get("times"))
        for entry in trail.entries
        if entry.action == "checkout.read"
    ]
    assert said == [("in_progress", None), ("in_progress", 2), ("completed", None)]


@pytest.mark.parametrize("step", ["create", "update", "complete"])
async def test_what_fails_is_in_the_trail(buyer: Buyer, seller: ScriptedSeller, step: str) -> None:
    seller.twists[step] = lambda session: {"id": session["id"], "status": "who knows"}
    bought = await buyer.buy(terms=AUTO)

    async def is_noted() -> bool:
        return bool(OF_STEP[step] & {*await bought.actions()})

    await eventually(is_noted, what=f"the trail says that {step} failed")
    [failed] = [entry for entry in (await bought.trail()).entries if entry.action in OF_STEP[step]]
    assert (failed.actor, failed.detail["kind"]) == ("seller", "SellerAnswerInvalid")


async def test_hours_of_asking_are_a_few_entries(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    seller.twists["read"] = lambda session: (
        {**session, "status": "in_progress", "order": None} if session["status"] == "completed" else None
    )
    seller.twists["complete"] = lambda session: {**session, "status": "in_progress", "order": None}
    async with working(skipping.client, processor) as queue:
        bought = await Buyer(skipping.client, queue, seller.origin).buy(terms=AUTO)
        await bought.until("confirming")
        await skipping.sleep(timedelta(hours=2))
        trail = await has_all_that_was_asked(bought, seller)
        assert seller.steps().count("read") > 60
        assert len(trail.entries) < 60
        [read] = [one for one in trail.repeated if one.action == "checkout.read"]
        assert read.last - read.first > timedelta(hours=1)
