"""Whatever a workflow is started with, it ends with a reason: no task is repeated forever."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.converter import DataConverter

from tests.world.temporal import TemporalServer
from tests.world.workflow_sandbox import SANDBOX
from waystation.temporal.connect import open_client
from waystation.temporal.names import INVALID_ARGUMENT
from waystation.temporal.payload_converter import SharedPydanticPayloadConverter
from worker import WORKFLOWS, build_worker

UNENDED = timedelta(seconds=60)
"""After this Temporal ends what would never end, with another reason."""
INPUTS: list[tuple[list[Any], str]] = [
    ([{"agnet": "x"}], "agnet: Extra inputs are not permitted"),
    (["text"], "input: Input should be an object"),
    ([[1, 2]], "input: Input should be an object"),
    ([], "Start it with one argument"),
    ([None], "Start it with one argument"),
    ([{}, {}], "Start it with one argument"),
]


@pytest.fixture(scope="module")
async def client(temporal_server: TemporalServer) -> Client:
    """With the converter that every process has."""
    converter = DataConverter(payload_converter_class=SharedPydanticPayloadConverter)
    return await open_client(temporal_server.address, data_converter=converter)


@pytest.fixture(scope="module")
async def queue(client: Client) -> AsyncIterator[str]:
    async def nobody(_: str) -> None:
        return None

    name = f"odd-starts-{uuid.uuid4()}"
    async with build_worker(client, nobody, task_queue=name, workflow_runner=SANDBOX):
        yield name


@pytest.mark.parametrize("kind", WORKFLOWS, ids=lambda kind: kind.__name__)
async def test_an_odd_start_ends_with_a_reason(client: Client, queue: str, kind: type) -> None:
    name = workflow._Definition.must_from_class(kind).name or ""
    for given, reason in INPUTS:
        with pytest.raises(WorkflowFailureError) as failure:
            await client.execute_workflow(
                name, args=given, id=f"odd-{uuid.uuid4()}", task_queue=queue, execution_timeout=UNENDED
            )
        cause = failure.value.cause
        assert getattr(cause, "type", None) == INVALID_ARGUMENT, (given, cause)
        assert reason in str(cause), (given, cause)
