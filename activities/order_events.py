"""Tells a seller's order webhooks which purchase they belong to."""

from typing import Final

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.contract import OrderRoute, OrderRoutingCalls
from activities.heartbeats import heartbeating

ORDER_EVENTS_WORKFLOW: Final = "OrderEvents"


class OrderRouting(OrderRoutingCalls):
    """Binds a checkout's order webhooks to a purchase."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    @heartbeating
    async def route_order_events(self, call: OrderRoute) -> None:
        """Starts the checkout's ``OrderEvents`` workflow, or binds the one that a webhook started.

        It sleeps until the first webhook arrives, and costs nothing until then.
        """
        bound = {"purchase_id": call.purchase_id}
        try:
            await self._client.start_workflow(
                ORDER_EVENTS_WORKFLOW,
                bound,
                id=call.route_id,
                task_queue=activity.info().task_queue,
                start_delay=call.lasts,
            )
        except WorkflowAlreadyStartedError:
            await self._client.get_workflow_handle(call.route_id).signal("bind", bound)
