"""The whole loop against a seller that tests can bend and the sandbox processor's process."""

from tests.purchases.scripted_seller import ScriptedSeller
from tests.purchases.support import Buyer, Processor


async def test_an_approved_purchase_is_paid_once_and_the_books_are_right(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    shown = await bought.approve()
    assert shown.cart is not None
    assert shown.cart.total == 2 * 900 + 180 + 500
    view = await bought.outcome()
    assert view.status == "completed"
    assert view.receipt is not None
    assert (view.receipt.amount, view.receipt.approved_by) == (2480, "alice")
    assert await bought.balance() == (2480, 0)
    [token] = await processor.tokens_of(bought.id)
    assert token["deactivated_reason"] == "consumed"
    assert token["usage_limits"]["max_amount"] == 2480
    assert token["seller_details"]["network_business_profile"] == "profile_test_shop"
    assert token["usage_details"]["amount_captured"]["value"] == 2480
    assert seller.steps() == ["discovery", "create", "update", "read", "complete"] or seller.steps() == [
        "create",
        "update",
        "read",
        "complete",
    ]
    assert seller.keys("complete") == {f"{bought.id}:complete:1"}
    actions = await bought.actions()
    for action in ("purchase.requested", "mandate.reserved", "approval.received", "token.issued"):
        assert action in actions
