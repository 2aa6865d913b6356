"""Recorded histories replay: a change that would break purchases under way fails here."""

from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from tests.workflows.purchase.support import Buyer
from tests.world.workflow_sandbox import SANDBOX
from waystation.temporal.connect import CLEAR_DATA_CONVERTER
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
    assert len(RECORDED) >= 11


async def test_what_was_just_run_replays(buyer: Buyer, encrypted: Client) -> None:
    bought = await buyer.buy()
    await bought.approve()
    await bought.outcome()
    replayer = Replayer(
        workflows=[Mandate, Purchase],
        data_converter=encrypted.data_converter,
        workflow_runner=SANDBOX,
    )
    for handle in (bought.handle, bought.mandate):
        await replayer.replay_workflow(await handle.fetch_history())
