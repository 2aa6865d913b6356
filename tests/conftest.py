"""Servers that the whole test run shares: started once, real, and ended with it."""

from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.world.process import Process
from tests.world.stack import Stack, running_stack
from tests.world.temporal import TemporalServer, running_temporal
from waystation.client import Client

# Nothing here measures a process, so none need import everything again.
Process.forks = True


@pytest.fixture(scope="session")
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    async with running_temporal(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest.fixture(scope="session")
async def temporal(temporal_server: TemporalServer) -> TemporalClient:
    return await TemporalClient.connect(temporal_server.address, data_converter=pydantic_data_converter)


@pytest.fixture(scope="session")
async def stack(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A Waystation that all tests share; they kill none of it."""
    async with running_stack(tmp_path_factory.mktemp("stack"), temporal_server) as stack:
        yield stack


@pytest.fixture(scope="session")
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with stack.client() as client:
        yield client
