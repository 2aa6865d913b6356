"""Recorded histories replay: a change that would break purchases under way fails here."""

from collections import Counter
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from tests.workflows.purchase.conftest import working
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Bought, Buyer
from tests.world.keys import TRUSTING
from tests.world.sandbox import Processor
from tests.world.workflow_sandbox import SANDBOX
from waystation.temporal.connect import CLEAR_DATA_CONVERTER
from workflows.calls import NO_LOCAL_ACTIVITIES
from workflows.mandate import Mandate
from workflows.purchase import Buy, Purchase

RECORDED = sorted(Path(__file__).with_name("histories").glob("*.json"))


def history_in(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
async def test_recorded_histories_replay(path: Path) -> None:
    replayer = Replayer(
        workflows=[Mandate, Purchase, Buy],
        data_converter=CLEAR_DATA_CONVERTER,
        workflow_runner=SANDBOX,
    )
    await replayer.replay_workflow(history_in(path))


def test_there_is_something_to_replay() -> None:
    assert len(RECORDED) >= 20


async def replays(bought: Bought, encrypted: Client) -> None:
    replayer = Replayer(
        workflows=[Mandate, Purchase],
        data_converter=encrypted.data_converter,
        workflow_runner=SANDBOX,
    )
    for handle in (bought.handle, bought.mandate):
        await replayer.replay_workflow(await handle.fetch_history())


async def markers(bought: Bought) -> Counter[str]:
    """Returns what the purchase's history marks: local activities and patches."""
    events = (await bought.handle.fetch_history()).events
    return Counter(one.marker_recorded_event_attributes.marker_name for one in events)


async def test_what_was_just_run_replays(buyer: Buyer, encrypted: Client) -> None:
    bought = await buyer.buy()
    await bought.approve()
    await bought.outcome()
    assert "core_local_activity" not in await markers(bought)
    await replays(bought, encrypted)


async def test_who_began_with_local_activities_goes_on_with_them(
    encrypted: Client, seller: ScriptedSeller, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        patched = workflow.patched
        earlier.setattr(workflow, "patched", lambda name: name != NO_LOCAL_ACTIVITIES and patched(name))
        async with working(encrypted, processor, TRUSTING) as queue:
            bought = await Buyer(encrypted, queue, seller.origin).buy()
            await bought.until("awaiting_approval")
    began_with = (await markers(bought))["core_local_activity"]
    async with working(encrypted, processor, TRUSTING, queue=queue):
        await bought.approve()
        assert (await bought.outcome()).status == "completed"
    assert 0 < began_with < (await markers(bought))["core_local_activity"]
    await replays(bought, encrypted)
