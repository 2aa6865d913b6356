"""A paid request tells webhooks itself, with or without a session."""

from tests.buyer.bench import Bench, usd
from tests.support import eventually
from tests.workflows.webhooks.listening import Listener, listening
from waystation.models.webhooks import WebhookEvent


async def test_a_payment_tells_webhooks_what_they_need(bench: Bench) -> None:
    async with listening(bench.temporal, bench.task_queue, "*", details=True) as listener:
        mandate = await bench.mandate(usd(1_000), approval_threshold=0)
        handle = await bench.start("/v1/reports/rain", usd(60), mandate)
        [asked] = await eventually(lambda: of_type(listener, "approval.requested"))
        assert asked.data["amount"] == 50
        assert asked.data["currency"] == "usd"
        assert asked.data["mandate_id"] == mandate
        await handle.signal("approve", {"digest": asked.data["digest"], "approver": "alice"})
        assert (await handle.result()).status == "delivered"
        heard = await listener.heard()
    assert {one.data["payment_id"] for one in heard} == {handle.id}
    assert [one.data["status"] for one in heard if one.type == "payment.updated"] == [
        "choosing",
        "awaiting_approval",
        "paying",
        "confirming",
        "delivered",
    ]
    assert heard[-1].data["money_moved"] == "yes"
    for token in await bench.all_tokens():
        assert token not in str(heard)


async def of_type(listener: Listener, kind: str) -> list[WebhookEvent]:
    return [one for one in await listener.heard() if one.type == kind]
