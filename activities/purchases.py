"""Asks a purchase how it stands, for workflows: these can be told anything, but can't ask."""

from temporalio import activity
from temporalio.client import Client

from activities.contract import PurchaseQuestion, PurchaseReadingCalls
from activities.heartbeats import heartbeating
from waystation.models.purchases import PurchaseView
from waystation.temporal.calls import ask
from waystation.temporal.messages import PURCHASE_STATUS


class PurchaseReading(PurchaseReadingCalls):
    """Asks Purchase workflows through the Temporal client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    @heartbeating
    async def read_purchase(self, call: PurchaseQuestion) -> PurchaseView:
        """Returns the purchase as it stands."""
        return await ask(self._client.get_workflow_handle(call.purchase_id), PURCHASE_STATUS)
