"""A payment token whose issuing was never answered: it is found, and worthless when all is over."""

from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.common import RetryPolicy

from tests.support import eventually
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Buyer
from tests.workflows.purchase.test_loop import AUTO, nothing_happened
from tests.workflows.purchase.test_time import working
from tests.world.sandbox import Processor
from workflows.purchase import calls

ISSUE = r"POST /v1/shared_payment/issued_tokens$"
ATTEMPTS = 2


@pytest.fixture(autouse=True)
def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = RetryPolicy(maximum_attempts=ATTEMPTS, initial_interval=timedelta(milliseconds=10))
    monkeypatch.setitem(calls._TOKEN.call, "retry_policy", soon)


@pytest.mark.parametrize("trouble", ["lose_answer", "error"])
async def test_a_token_whose_answer_is_lost_is_revoked(
    encrypted: Client, seller: ScriptedSeller, processor: Processor, trouble: str
) -> None:
    processor.trouble(match=ISSUE, kind=trouble, when="after", times=ATTEMPTS)
    async with working(encrypted, processor) as queue:
        bought = await Buyer(encrypted, queue, seller.origin).buy(terms=AUTO)
        view = await bought.outcome()
        assert (view.status, view.refusal.rule if view.refusal else None) == (
            "failed",
            "processor_unavailable",
        )
        [token] = processor.tokens_of(bought.id)
        assert token["deactivated_reason"] == "revoked"
        assert {"token.found", "token.retired"} <= {*await bought.actions()}
        await nothing_happened(bought, processor)


async def test_a_purchase_canceled_while_its_token_is_issued_leaves_none(
    encrypted: Client, seller: ScriptedSeller, processor: Processor
) -> None:
    processor.trouble(match=ISSUE, kind="hang", when="after")
    async with working(encrypted, processor) as queue:
        bought = await Buyer(encrypted, queue, seller.origin).buy(terms=AUTO)
        await eventually(lambda: processor.tokens_of(bought.id), what="the token is made")
        await bought.handle.cancel()
        view = await bought.outcome()
        assert view.final
        [token] = processor.tokens_of(bought.id)
        assert token["deactivated_reason"] == "revoked"
        await nothing_happened(bought, processor)
