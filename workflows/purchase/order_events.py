"""Forwards a seller's order webhooks to the purchase that they are about.

A webhook names the seller's checkout, not our purchase. One small workflow per checkout, whose id follows
from seller and checkout alone, keeps what arrives until a purchase has claimed the checkout.
"""

import contextlib
import hashlib
from datetime import timedelta
from functools import partial

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    import workflows.policies as policies
    from waystation.models.purchases import OrderBinding, OrderEventReceived, OrderEventsStart
    from waystation.temporal.calls import tell_workflow
    from waystation.temporal.messages import ORDER_EVENTS, PURCHASE_ORDER_EVENT
    from workflows.guards import drop_unless, ending, starting

MAX_EVENTS_WAITING = 100


def order_events_id(seller: str, checkout_id: str) -> str:
    """Returns the workflow id for a seller (origin) and its checkout."""
    digest = hashlib.sha256(f"{seller}\n{checkout_id}".encode()).hexdigest()
    return f"order-events-{digest[:40]}"


@workflow.defn(name=ORDER_EVENTS.name)
class OrderEvents:
    """Keeps events and forwards them; lives as long as a purchase follows its order."""

    @workflow.init
    @starting
    def __init__(self, start: OrderEventsStart) -> None:
        self._purchase_id = start.purchase_id
        self._waiting = list(start.waiting)

    @workflow.run
    @ending
    async def run(self, start: OrderEventsStart) -> int:
        """Forwards until nobody needs it any more; returns the number forwarded in this run."""
        forwarded = 0
        while True:
            bound = self._purchase_id is not None
            try:
                await workflow.wait_condition(partial(self._has_work, bound), timeout=self._lifetime())
            except TimeoutError:
                return forwarded
            while self._waiting and self._purchase_id is not None:
                event = self._waiting.pop(0)
                with contextlib.suppress(FailureError):  # the purchase has ended
                    await tell_workflow(self._purchase_id, PURCHASE_ORDER_EVENT, event)
                    forwarded += 1
            if workflow.info().is_continue_as_new_suggested():
                carried = OrderEventsStart(purchase_id=self._purchase_id, waiting=tuple(self._waiting))
                workflow.continue_as_new(carried)

    @workflow.signal
    @drop_unless(OrderBinding)
    def bind(self, binding: OrderBinding) -> None:
        """Binds the checkout to a purchase; the first one stays."""
        self._purchase_id = self._purchase_id or binding.purchase_id

    @workflow.signal
    @drop_unless(OrderEventReceived)
    def deliver(self, event: OrderEventReceived) -> None:
        """Takes a webhook whose signature was checked. Each has the whole order: the latest are kept."""
        self._waiting = [*self._waiting, event][-MAX_EVENTS_WAITING:]

    def _lifetime(self) -> timedelta:
        if self._purchase_id is None:
            return policies.UNBOUND_ORDER_LIFETIME
        until = workflow.info().workflow_start_time + policies.FOLLOW_ORDER
        return max(until - workflow.now(), timedelta(0))

    def _has_work(self, bound: bool) -> bool:
        newly_bound = self._purchase_id is not None and not bound
        return newly_bound or bool(self._waiting and self._purchase_id is not None)
