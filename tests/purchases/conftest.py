"""The processor's process, a bendable seller, and a worker with encryption, shared by all tests here."""

import contextlib
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from activities.checkouts import SellerCredentials
from tests.purchases.scripted_seller import ScriptedSeller
from tests.purchases.support import Buyer, Processor
from tests.support import TemporalServer
from waystation.encryption import encrypting_data_converter, encryption_codec, generate_key
from waystation.stripe_http import HttpxClient, open_stripe
from worker import WORKFLOW_RUNNER
from workflows.purchase_parts import purchase_worker_parts

SHOP_KEY = "key-of-the-agent-at-the-shop"


@contextlib.asynccontextmanager
async def _closing(connections: HttpxClient) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await connections.close_async()


@pytest.fixture(scope="session")
async def processor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Processor]:
    process = Processor(tmp_path_factory.mktemp("processor"))
    try:
        await process.ready()
        yield process
    finally:
        process.kill()


@pytest.fixture(scope="session")
async def scripted(processor: Processor) -> AsyncIterator[ScriptedSeller]:
    async with ScriptedSeller(processor.url).served() as seller:
        yield seller


@pytest.fixture
async def seller(scripted: ScriptedSeller, processor: Processor) -> AsyncIterator[ScriptedSeller]:
    scripted.reset()
    yield scripted
    scripted.reset()
    await processor.calm()


@pytest.fixture(scope="session")
async def encrypted(temporal_server: TemporalServer) -> Client:
    codec = encryption_codec([f"tests:{generate_key()}"])
    return await Client.connect(temporal_server.address, data_converter=encrypting_data_converter(codec))


@pytest.fixture(scope="session")
async def purchase_queue(encrypted: Client, processor: Processor) -> AsyncIterator[str]:
    queue = f"purchases-{uuid.uuid4()}"
    stripe, connections = open_stripe("sk_test_agent", api_base=processor.url)
    async with httpx.AsyncClient() as http, _closing(connections):
        parts = purchase_worker_parts(
            encrypted,
            http=http,
            sellers=SellerCredentials({}, default=SecretStr(SHOP_KEY)),
            processor=stripe,
        )
        async with Worker(
            encrypted,
            task_queue=queue,
            workflows=parts.workflows,
            activities=parts.activities,
            workflow_runner=WORKFLOW_RUNNER,
        ):
            yield queue


@pytest.fixture
def buyer(encrypted: Client, purchase_queue: str, seller: ScriptedSeller) -> Buyer:
    return Buyer(encrypted, purchase_queue, seller.origin)
