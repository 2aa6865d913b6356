"""Servers that the whole test run shares: started once, real, and ended with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from tests.support import TemporalServer


@pytest.fixture(scope="session")
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    server = TemporalServer(Path(tmp_path_factory.mktemp("temporal")))
    try:
        await server.ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
async def temporal(temporal_server: TemporalServer) -> Client:
    return await Client.connect(temporal_server.address, data_converter=pydantic_data_converter)
