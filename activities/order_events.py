"""Tells a seller's order webhooks which purchase they belong to."""

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.contract import OrderRoute, OrderRoutingCalls
from activities.heartbeats import heartbeating
from waystation.models.purchases import OrderBinding, OrderEventsStart
from waystation.temporal.calls import start_workflow, tell
from waystation.temporal.messages import ORDER_EVENTS, ORDER_EVENTS_BIND


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
        try:
            await start_workflow(
                self._client,
                ORDER_EVENTS,
                OrderEventsStart(purchase_id=call.purchase_id),
                id=call.route_id,
                task_queue=activity.info().task_queue,
                start_delay=call.lasts,
            )
        except WorkflowAlreadyStartedError:
            handle = self._client.get_workflow_handle(call.route_id)
            await tell(handle, ORDER_EVENTS_BIND, OrderBinding(purchase_id=call.purchase_id))
