"""Servers that the whole test run shares: started once, real, and ended with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client as TemporalClient
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.stack import Stack, start_stack
from tests.support import TemporalServer
from waystation.client import Client


@pytest.fixture(scope="session")
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    server = TemporalServer(Path(tmp_path_factory.mktemp("temporal")))
    try:
        await server.ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
async def temporal(temporal_server: TemporalServer) -> TemporalClient:
    return await TemporalClient.connect(temporal_server.address, data_converter=pydantic_data_converter)


@pytest.fixture(scope="session")
async def stack(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A Waystation that all tests share; they kill none of it."""
    stack = await start_stack(Path(tmp_path_factory.mktemp("stack")), temporal_server)
    try:
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
async def client(stack: Stack) -> AsyncIterator[Client]:
    async with stack.client() as client:
        yield client
