"""A cart that costs nothing: the protocol can't complete it, so it is refused before it takes anything."""

from typing import Any

import pytest

from tests.workflows.purchase.scripted_seller import ScriptedSeller, totals
from tests.workflows.purchase.support import Buyer
from tests.workflows.purchase.test_loop import AUTO, nothing_happened
from tests.world.sandbox import Processor

WITH_AN_APPROVAL: dict[str, Any] = {}


def free(session: dict[str, Any]) -> dict[str, Any]:
    discounted = totals(items_base_amount=1800, subtotal=1800, discount=1800, total=0)
    return {**session, "totals": discounted}


def free_without_a_way_to_pay(session: dict[str, Any]) -> dict[str, Any]:
    return {**free(session), "capabilities": {}}


@pytest.mark.parametrize("terms", [AUTO, WITH_AN_APPROVAL], ids=["approved by the mandate", "by a person"])
@pytest.mark.parametrize("twist", [free, free_without_a_way_to_pay])
async def test_a_free_cart_takes_no_room_no_token_and_nobodys_time(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor, terms: dict[str, Any], twist: Any
) -> None:
    seller.twists |= dict.fromkeys(("create", "update", "read"), twist)
    bought = await buyer.buy(terms=terms)
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "total_not_positive")
    assert processor.tokens_of(bought.id) == []
    assert not {"mandate.reserved", "approval.requested", "token.issued"} & {*await bought.actions()}
    assert seller.steps()[-1] == "cancel"
    await nothing_happened(bought, processor)


async def test_a_cart_that_becomes_free_once_it_is_approved_gives_its_room_back(
    buyer: Buyer, seller: ScriptedSeller, processor: Processor
) -> None:
    bought = await buyer.buy()
    await bought.until("awaiting_approval")
    seller.twists |= {"read": free}
    await bought.approve()
    view = await bought.outcome()
    assert (view.status, view.refusal.rule if view.refusal else None) == ("refused", "total_not_positive")
    assert processor.tokens_of(bought.id) == []
    assert "mandate.released" in await bought.actions()
    await nothing_happened(bought, processor)
