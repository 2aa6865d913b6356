"""However many wait for a purchase, and however long: few updates of its workflow are under way for them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from temporalio.testing import WorkflowEnvironment

from api.gateways.money import MoneyGateway
from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_time import skipping, working
from tests.world.sandbox import Processor
from waystation.models.purchases import PurchaseView

__all__ = ["skipping"]

WAITERS = 30
MOST_UPDATES_UNDER_WAY = 10
"""Temporal's own limit, for each workflow."""


async def updates_of(bought: Bought) -> Counter[str]:
    """How often each update of this purchase was taken, by its id, and how many are under way."""
    taken, done = Counter[str](), Counter[str]()
    async for event in bought.handle.fetch_history_events():
        if event.HasField("workflow_execution_update_accepted_event_attributes"):
            accepted = event.workflow_execution_update_accepted_event_attributes
            taken[accepted.accepted_request.meta.update_id] += 1
        if event.HasField("workflow_execution_update_completed_event_attributes"):
            done[event.workflow_execution_update_completed_event_attributes.meta.update_id] += 1
    assert sum((taken - done).values()) <= MOST_UPDATES_UNDER_WAY
    return taken


@contextlib.asynccontextmanager
async def canceled_in_the_end(tasks: Iterable[asyncio.Task[PurchaseView]]) -> Any:
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_thirty_wait_through_minutes_of_confirming_and_people_can_decide(
    skipping: WorkflowEnvironment, seller: ScriptedSeller, processor: Processor
) -> None:
    confirmed = False

    def busy(session: dict[str, Any]) -> dict[str, Any] | None:
        if session["status"] == "completed" and not confirmed:
            return {**session, "status": "in_progress", "order": None}
        return None

    for step in ("complete", "read"):
        seller.twists[step] = busy
    async with working(skipping.client, processor) as queue:
        bought = await Buyer(skipping.client, queue, seller.origin).buy()
        gateway = MoneyGateway(skipping.client, 5.0, task_queue=queue)

        async def wait(*, or_for_a_person: bool) -> PurchaseView:
            """Asks anew as clients do, each time with what was seen last."""
            view = await gateway.purchase(bought.id)
            for _ in range(200):
                view = await gateway.outcome(view, 2.0, or_for_a_person=or_for_a_person)
                if view.final or (or_for_a_person and view.waits_for_a_person):
                    return view
                view = await gateway.purchase(bought.id)
            raise AssertionError("it never ended")

        def waiters() -> list[asyncio.Task[PurchaseView]]:
            return [asyncio.create_task(wait(or_for_a_person=number % 3 > 0)) for number in range(WAITERS)]

        first = waiters()
        async with canceled_in_the_end(first):
            for_people = [task for number, task in enumerate(first) if number % 3 > 0]
            asked = await asyncio.gather(*for_people)
            assert {view.status for view in asked} == {"awaiting_approval"}
            await bought.approve()
            await bought.until("confirming")
            second = waiters()
            async with canceled_in_the_end(second):
                for _ in range(4):
                    await skipping.sleep(timedelta(minutes=2))
                    await asyncio.sleep(0.5)
                assert (await bought.view()).status == "confirming"
                confirmed = True
                await skipping.sleep(timedelta(minutes=3))
                await eventually(lambda: _is_over(bought), what="the purchase is completed")
                ends = await asyncio.gather(*(set(first) - set(for_people)), *second)
                assert {view.status for view in ends} == {"completed"}
        taken = await updates_of(bought)
        assert set(taken) <= {"outcome", "outcome-0", "outcome-1"}
        assert set(taken.values()) == {1}


async def _is_over(bought: Bought) -> bool:
    return (await bought.view()).status == "completed"
