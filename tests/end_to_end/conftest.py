"""One stack with its sandbox for all tests here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.shop_front import MoneyStack, start_money_stack
from tests.support import TemporalServer


@pytest.fixture(scope="session")
async def shared_money(
    temporal_server_of_money: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MoneyStack]:
    stack = await start_money_stack(Path(tmp_path_factory.mktemp("money")), temporal_server_of_money)
    try:
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
async def temporal_server_of_money(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TemporalServer]:
    """Of its own: two stacks on one server would share the workers' task queue, and not the keys."""
    server = TemporalServer(Path(tmp_path_factory.mktemp("money-temporal")))
    try:
        await server.ready()
        yield server
    finally:
        server.kill()


@pytest.fixture
async def money(shared_money: MoneyStack) -> AsyncIterator[MoneyStack]:
    yield shared_money
    await shared_money.behave()
