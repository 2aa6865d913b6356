"""How a seller's webhook finds the purchase that it is about, whichever of the two comes first."""

from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.service import RPCError

from api.gateways.money import MoneyGateway
from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.workflows.purchase.test_loop import AUTO
from waystation.models.purchases import OrderEventReceived, OrderFacts, PurchaseView
from workflows.purchase.order_events import order_events_id


def shipped(view: PurchaseView, order_id: str) -> OrderEventReceived:
    assert view.cart is not None
    order = OrderFacts(
        id=order_id,
        checkout_id=view.cart.checkout_id,
        permalink_url="https://shop.example/orders/1",
        status="shipped",
    )
    return OrderEventReceived(event_id="e1", sent_at=100, type="order_update", order=order)


def route_of(view: PurchaseView) -> str:
    assert view.cart is not None
    return order_events_id(view.request.seller, view.cart.checkout_id)


async def is_shipped(bought: Bought) -> bool:
    order = (await bought.view()).order
    return order is not None and order.status == "shipped"


async def events_of(client: Client, workflow_id: str) -> list[Any]:
    return [
        event.event_type async for event in client.get_workflow_handle(workflow_id).fetch_history_events()
    ]


async def test_the_route_sleeps_until_a_webhook_wakes_it(
    buyer: Buyer, seller: ScriptedSeller, encrypted: Client, purchase_queue: str
) -> None:
    bought = await buyer.buy(terms=AUTO)
    view = await bought.outcome()
    assert view.order is not None
    await eventually(lambda: exists(encrypted, route_of(view)), what="the route is laid")
    assert await events_of(encrypted, route_of(view)) == [EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED]
    gateway = MoneyGateway(encrypted, 10.0, task_queue=purchase_queue)
    await gateway.deliver_order_event(seller.origin, shipped(view, view.order.id))
    await eventually(lambda: is_shipped(bought), what="the purchase is told")


async def test_a_webhook_that_comes_first_waits_for_its_purchase(
    buyer: Buyer, seller: ScriptedSeller, encrypted: Client, purchase_queue: str
) -> None:
    bought = await buyer.buy()
    asked = await bought.until("awaiting_approval")
    assert asked.cart is not None
    gateway = MoneyGateway(encrypted, 10.0, task_queue=purchase_queue)
    early = shipped(asked, f"order_{asked.cart.checkout_id}")
    await gateway.deliver_order_event(seller.origin, early)
    woken = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED

    async def waits() -> bool:
        return woken in await events_of(encrypted, route_of(asked))

    await eventually(waits, what="the webhook waits")
    assert (await bought.view()).order is None
    await bought.approve()
    view = await bought.until("completed")
    assert view.order is not None
    delivered = shipped(view, view.order.id).order.model_copy(update={"status": "delivered"})
    again = OrderEventReceived(event_id="e2", sent_at=200, type="order_update", order=delivered)
    await gateway.deliver_order_event(seller.origin, again)

    async def both_were_handed_over() -> bool:
        return (await bought.actions()).count("order.updated") == 2

    await eventually(both_were_handed_over, what="both were handed over")


async def exists(client: Client, workflow_id: str) -> bool:
    try:
        await client.get_workflow_handle(workflow_id).describe()
    except RPCError:
        return False
    return True
