"""A buyer's bench, and one that gives up soon."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import RetryPolicy

from tests.buyer.bench import Bench
from tests.world.temporal import TemporalServer
from waystation.buyer import credentials
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec, generate_key
from workflows import policies
from workflows.paid_request import calls as paid_request


@pytest.fixture
async def bench(tmp_path: Path, temporal: Client) -> AsyncIterator[Bench]:
    async with Bench(tmp_path, temporal).working() as made:
        yield made


@pytest.fixture
async def quick_bench(
    tmp_path: Path, temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """A bench that gives up soon."""
    soon = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(milliseconds=10))
    for call in (paid_request._PROBE, paid_request._REDEEM, paid_request._REDEEM_LATE):
        monkeypatch.setitem(call.options.call, "retry_policy", soon)
    monkeypatch.setattr(policies, "AUTHORIZATION_MARGIN", timedelta(seconds=0.5))
    monkeypatch.setattr(credentials, "CHAIN_MARGIN_SECONDS", 0)
    async with Bench(tmp_path, temporal).working() as made:
        yield made


@pytest.fixture
async def encrypted(temporal_server: TemporalServer) -> Client:
    codec = encryption_codec(["k1:" + generate_key()])
    return await open_client(temporal_server.address, data_converter=encrypting_data_converter(codec))
