"""What a version can't read ends no workflow: its task waits for a version that can."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.converter import DataConverter

from activities.contract import MandateQuestion
from tests.support import eventually
from tests.workflows.test_odd_messages import BUDGET, BUYING, TERMS
from tests.world.temporal import TemporalServer
from waystation.temporal.connect import open_client
from waystation.temporal.payload_converter import SharedPydanticPayloadConverter
from worker import build_worker
from workflows.allowance import Allowance
from workflows.allowance.workflow import AllowanceRun
from workflows.mandate import Mandate, MandateStart
from workflows.purchase import Purchase, PurchaseStart

NEXT_RUNS: dict[type, tuple[Any, dict[str, Any]]] = {
    Mandate: (MandateStart(terms=TERMS), {"ledger": {"made_up": 1}}),
    Purchase: (PurchaseStart(request=BUYING), {"state": {"made_up": 1}}),
    Allowance: (AllowanceRun(start=BUDGET), {"state": {"made_up": 1}}),
}


@activity.defn(name="read_mandate")
async def read_mandate(_: MandateQuestion) -> dict[str, int]:
    """Answers as no version known here does."""
    return {"made_up": 1}


@pytest.fixture(scope="module")
async def client(temporal_server: TemporalServer) -> Client:
    converter = DataConverter(payload_converter_class=SharedPydanticPayloadConverter)
    return await open_client(temporal_server.address, data_converter=converter)


@pytest.fixture(scope="module")
async def queue(client: Client) -> AsyncIterator[str]:
    async def nobody(_: str) -> None:
        return None

    name = f"next-runs-{uuid.uuid4()}"
    async with build_worker(client, nobody, task_queue=name, money=[read_mandate]):
        yield name


async def waits(handle: WorkflowHandle[Any, Any]) -> None:
    """Shows that a task of the workflow has failed, and that the workflow has not ended."""

    async def has_stumbled() -> bool:
        found = await handle.describe()
        assert found.status == WorkflowExecutionStatus.RUNNING
        failed = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        return failed in [event.event_type async for event in handle.fetch_history_events()]

    try:
        await eventually(has_stumbled, what="its task fails")
        assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
    finally:
        await handle.terminate()


@pytest.mark.parametrize("kind", NEXT_RUNS, ids=lambda kind: kind.__name__)
async def test_a_next_run_whose_state_it_cannot_read(client: Client, queue: str, kind: type) -> None:
    start, carried = NEXT_RUNS[kind]
    given = {**start.model_dump(mode="json"), **carried}
    name = workflow._Definition.must_from_class(kind).name or ""
    await waits(await client.start_workflow(name, given, id=f"next-{uuid.uuid4()}", task_queue=queue))


async def test_an_answer_of_an_activity_that_it_cannot_read(client: Client, queue: str) -> None:
    start = PurchaseStart(request=BUYING)
    await waits(
        await client.start_workflow(Purchase.run, start, id=f"answer-{uuid.uuid4()}", task_queue=queue)
    )
