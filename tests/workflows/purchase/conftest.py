"""The processor's process, a bendable seller, and a worker with encryption, shared by all tests here."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from activities.registration import open_purchase_activities
from activities.webhooks import WebhookRegistry
from tests.workflows.purchase.scripted_seller import ScriptedSeller
from tests.workflows.purchase.support import Buyer
from tests.workflows.purchase.town import Town
from tests.world.keys import TRUSTING, VAULT
from tests.world.sandbox import Processor, running_processor
from tests.world.temporal import TemporalServer
from waystation.proofs import Verifier
from waystation.settings import MoneySettings
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec, generate_key
from worker import PURCHASE_WORKFLOWS, WORKFLOW_RUNNER

SHOP_KEY = "key-of-the-agent-at-the-shop"


@pytest.fixture(scope="session")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processor]:
    with running_processor(tmp_path_factory.mktemp("processor")) as server:
        yield server


@pytest.fixture(scope="session")
async def scripted(processor: Processor) -> AsyncIterator[ScriptedSeller]:
    async with ScriptedSeller(processor.url).served() as seller:
        yield seller


@pytest.fixture
async def seller(scripted: ScriptedSeller, processor: Processor) -> AsyncIterator[ScriptedSeller]:
    scripted.reset()
    yield scripted
    scripted.reset()
    processor.heal()


@pytest.fixture(scope="session")
async def encrypted(temporal_server: TemporalServer) -> Client:
    codec = encryption_codec([f"tests:{generate_key()}"])
    return await open_client(temporal_server.address, data_converter=encrypting_data_converter(codec))


@asynccontextmanager
async def working(
    client: Client, processor: Processor, verifier: Verifier, *, queue: str | None = None
) -> AsyncIterator[str]:
    """Runs a worker for purchases, on a queue of its own unless one is given, and yields the queue."""
    queue = queue or f"purchases-{uuid.uuid4()}"
    settings = MoneySettings(
        allowed_networks=("127.0.0.0/8",),
        stripe_key=SecretStr("sk_test_agent"),
        stripe_api_base=processor.url,
        seller_default_credential=SecretStr(SHOP_KEY),
    )
    async with AsyncExitStack() as resources:
        activities = await open_purchase_activities(
            client, settings, resources, verifier=verifier, vault=VAULT
        )
        async with Worker(
            client,
            task_queue=queue,
            workflows=PURCHASE_WORKFLOWS,
            activities=[*activities, WebhookRegistry(client).webhook_subscribers],
            workflow_runner=WORKFLOW_RUNNER,
        ):
            yield queue


@pytest.fixture(scope="session")
async def purchase_queue(encrypted: Client, processor: Processor) -> AsyncIterator[str]:
    async with working(encrypted, processor, TRUSTING) as queue:
        yield queue


@pytest.fixture
def buyer(encrypted: Client, purchase_queue: str, seller: ScriptedSeller) -> Buyer:
    return Buyer(encrypted, purchase_queue, seller.origin)


@pytest.fixture(scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    # A server of its own: its worker takes up what its API starts, on the queue that all stacks share.
    async with Town(tmp_path_factory.mktemp("town")) as town:
        yield town
