"""``waystation.workflow.pay`` in somebody's own workflow, within Temporal's sandbox."""

import asyncio
import uuid

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.worker import Worker

from tests.buyer.bench import AGENT, API, Bench, usd
from tests.workflow.buying import Research
from tests.world.replays import AS_IT_IS, replayer_of
from waystation.models.paid_http import PaidHttpRequest
from waystation.models.payments import PaidRequestStart
from waystation.workflow import money


async def test_it_returns_once_the_request_is_final_and_pays_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money, "SESSION_TASK_QUEUE", bench.task_queue)
    mandate, payment_id = await bench.mandate(usd(1_000)), f"pay-{uuid.uuid4()}"
    request = PaidHttpRequest(url=f"{API}/v1/reports/rain")
    start = PaidRequestStart(request=request, max_price=usd(60), mandate_id=mandate, agent=AGENT)
    queue = f"research-{uuid.uuid4()}"
    async with Worker(bench.temporal, task_queue=queue, workflows=[Research]):
        parent = await bench.temporal.start_workflow(
            Research.run, args=[start, payment_id], id=f"r-{uuid.uuid4()}", task_queue=queue
        )
        view = await asyncio.wait_for(parent.result(), 30)
        assert (view.payment_id, view.status, view.money_moved) == (payment_id, "delivered", "yes")
        again = await bench.temporal.start_workflow(
            Research.run, args=[start, payment_id], id=f"r-{uuid.uuid4()}", task_queue=queue
        )
        with pytest.raises(WorkflowFailureError, match="failed"):
            await asyncio.wait_for(again.result(), 30)
    assert await bench.charges() == [50]
    memo = await (await bench.temporal.get_workflow_handle(payment_id).describe()).memo()
    assert memo["agent"] == AGENT
    replayer = replayer_of([Research], bench.temporal.data_converter, AS_IT_IS)
    await replayer.replay_workflow(await parent.fetch_history())
