"""Temporal's test server, which skips the time in which nothing happens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from tests.world.temporal import TEMPORAL
from waystation.temporal.connect import CLEAR_DATA_CONVERTER

TEST_SERVER = Path(TEMPORAL).with_name("temporal-test-server")


@asynccontextmanager
async def running_time_skipping() -> AsyncIterator[WorkflowEnvironment]:
    """Yields a server with a client of it; time passes in ``sleep`` and while a result is awaited."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(TEST_SERVER), data_converter=CLEAR_DATA_CONVERTER
    ) as environment:
        yield environment
