"""A purchase tells webhooks itself, with or without a session."""

from temporalio.client import Client

from tests.support import eventually
from tests.workflows.purchase.support import Buyer
from tests.workflows.webhooks.listening import Listener, listening
from waystation.models.webhooks import WebhookEvent


async def test_a_purchase_tells_webhooks_what_they_need(buyer: Buyer, encrypted: Client) -> None:
    async with listening(encrypted, buyer.queue, "purchase.*", "approval.*") as listener:
        bought = await buyer.buy()
        await bought.approve()
        view = await bought.outcome()
        await eventually(lambda: statuses(listener, "completed"), what="it is told that it is completed")
        heard = [one for one in await listener.heard() if one.data["purchase_id"] == bought.id]
    assert view.cart is not None
    assert [one.type for one in heard if one.type.startswith("approval.")] == [
        "approval.requested",
        "approval.granted",
    ]
    assert [one.data["status"] for one in heard if one.type == "purchase.updated"][-2:] == [
        "paying",
        "completed",
    ]
    [asked] = [one for one in heard if one.type == "approval.requested"]
    assert asked.data == {
        "purchase_id": bought.id,
        "agent": "shopper",
        "mandate_id": view.request.mandate_id,
        "seller": buyer.seller,
        "currency": "usd",
        "total": view.cart.total,
        "digest": view.digest,
        "deadline": asked.data["deadline"],
        "approvers": asked.data["approvers"],
    }
    assert all(one.details is None for one in heard)
    assert len({one.id for one in heard}) == len(heard)


async def statuses(listener: Listener, status: str) -> list[WebhookEvent]:
    return [one for one in await listener.heard() if one.data.get("status") == status]


async def test_the_cart_comes_with_the_details(buyer: Buyer, encrypted: Client) -> None:
    async with listening(encrypted, buyer.queue, "approval.requested", details=True) as listener:
        bought = await buyer.buy()
        await bought.until("awaiting_approval")
        await bought.approve()
        await bought.outcome()
        [asked] = [one for one in await listener.heard() if one.data["purchase_id"] == bought.id]
    assert asked.details is not None
    assert "cart" in asked.details
