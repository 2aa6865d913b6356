"""One stack with its sandbox for all tests here, ended after them."""

from collections.abc import AsyncIterator

import pytest

from tests.world.money_stack import MoneyStack, running_money_stack
from tests.world.temporal import TemporalServer, running_temporal

AGENTS = ("waystation.agents.shopper:agent", "tests.end_to_end.liar:agent", "tests.end_to_end.saver:agent")


@pytest.fixture(scope="package")
async def shared_money(
    temporal_server_of_money: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MoneyStack]:
    async with running_money_stack(
        tmp_path_factory.mktemp("money"), temporal_server_of_money, *AGENTS
    ) as stack:
        yield stack


@pytest.fixture(scope="package")
async def temporal_server_of_money(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TemporalServer]:
    """Of its own: two stacks on one server would share the workers' task queue, and not the keys."""
    async with running_temporal(tmp_path_factory.mktemp("money-temporal")) as server:
        yield server


@pytest.fixture
async def money(shared_money: MoneyStack) -> AsyncIterator[MoneyStack]:
    yield shared_money
    await shared_money.behave()
