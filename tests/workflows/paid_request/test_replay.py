"""Determinism: every task replayed from the history, and whole histories replayed afterwards.

Recorded histories replay too: a change that would break payments under way fails here.
"""

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from tests.buyer.bench import AGENT, API, USDC, Bench, has_credential, times, usd
from tests.workflows.paid_request.record_histories import SCENES
from tests.world.workflow_sandbox import SANDBOX
from waystation.buyer.payer import Payer
from waystation.models.decisions import Approve
from waystation.models.money import Money
from waystation.temporal.connect import CLEAR_DATA_CONVERTER
from workflows.allowance import Allowance
from workflows.paid_request import PaidRequest

RECORDED = sorted(Path(__file__).with_name("histories").glob("*.json"))


def history_in(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
async def test_recorded_histories_replay(path: Path) -> None:
    replayer = Replayer(
        workflows=[PaidRequest, Allowance],
        data_converter=CLEAR_DATA_CONVERTER,
        workflow_runner=SANDBOX,
    )
    await replayer.replay_workflow(history_in(path))


def test_there_is_something_to_replay() -> None:
    earlier = {f"{scene}-with_local_activities" for scene in SCENES}
    earlier |= {f"payment-{scene}-asking_for_each" for scene in ("by_card", "approved")}
    assert {path.stem for path in RECORDED} == SCENES.keys() | earlier


@pytest.mark.parametrize("cached", [0, 1_000])
async def test_histories_replay(tmp_path: Path, temporal: Client, cached: int) -> None:
    """With no cache at all every workflow task is a replay."""
    ids: list[str] = []
    async with Bench(tmp_path, temporal).working(max_cached_workflows=cached) as bench:
        ids += await plain_approved_and_refused(bench)
        ids.append(await an_allowance(bench))
    replayer = Replayer(
        workflows=[PaidRequest, Allowance],
        data_converter=bench.temporal.data_converter,
        workflow_runner=SANDBOX,
    )
    for workflow_id in ids:
        history: Any = await temporal.get_workflow_handle(workflow_id).fetch_history()
        await replayer.replay_workflow(history)


async def plain_approved_and_refused(bench: Bench) -> list[str]:
    dollars = await bench.mandate(usd(1_000))
    asking = await bench.mandate(usd(1_000), approval_threshold=0)
    tokens = await bench.mandate(Money(amount=10_000, currency=USDC))
    bench.network.lose = times(1, has_credential)
    plain = await bench.start("/v1/reports/plain", usd(60), dollars)
    assert (await plain.result()).status == "delivered"
    approved = await bench.start("/v1/reports/asked", usd(60), asking)
    view = await bench.status(approved, "awaiting_approval")
    await approved.signal(PaidRequest.approve, Approve(digest=view.terms_digest or "", approver="alice"))
    assert (await approved.result()).status == "delivered"
    refused = await bench.start("/v1/reports/dear", usd(10), dollars)
    assert (await refused.result()).status == "refused"
    signed = await bench.start("/v1/quotes/A", Money(amount=1_000, currency=USDC), tokens)
    assert (await signed.result()).status == "delivered"
    return [plain.id, approved.id, refused.id, signed.id]


async def an_allowance(bench: Bench) -> str:
    mandate = await bench.mandate(usd(1_000))
    agent = Payer(
        bench.temporal, mandate_id=mandate, agent=AGENT, task_queue=bench.task_queue, transport=bench.network
    )
    async with agent.allowance(API, budget=usd(200), max_price=usd(50)) as allowance:
        for n in range(3):
            await agent.fetch(f"{API}/v1/reports/r{n}", max_price=usd(50))
    assert (await agent.settled(allowance)).spent == 150
    assert await bench.balance(mandate) == (150, 0)
    return allowance
