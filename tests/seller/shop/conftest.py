from collections.abc import AsyncIterator, Iterator

import pytest

from tests.seller.shop.agent import Agent
from tests.world.sandbox import Processor, Shop, running_processor, running_shop


@pytest.fixture(scope="session")
def seller_processor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processor]:
    with running_processor(tmp_path_factory.mktemp("seller_processor")) as server:
        yield server


@pytest.fixture(scope="session")
def shop_server(tmp_path_factory: pytest.TempPathFactory, seller_processor: Processor) -> Iterator[Shop]:
    with running_shop(tmp_path_factory.mktemp("shop"), seller_processor) as server:
        yield server


@pytest.fixture
def shop(shop_server: Shop) -> Iterator[Shop]:
    """The shop, honest and well stocked again afterwards."""
    yield shop_server
    shop_server.heal()
    shop_server.processor.heal()
    shop_server.behave()
    shop_server.stock("print_last", 1)
    shop_server.stock("mug_blue", 1_000)


@pytest.fixture
async def agent(shop: Shop) -> AsyncIterator[Agent]:
    one = Agent(shop.url, shop.processor.url)
    yield one
    await one.close()
