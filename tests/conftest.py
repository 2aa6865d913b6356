"""Servers that the whole test run shares: started once, real, and ended with it."""

import gc
from collections.abc import AsyncIterator, Generator

import pytest
from hypothesis import HealthCheck, settings
from temporalio.client import Client as TemporalClient
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support import EXAMPLES_FACTOR
from tests.world.certificates import read_once
from tests.world.process import Process
from tests.world.stack import Stack, running_stack
from tests.world.temporal import TemporalServer, running_temporal
from waystation.client import Client
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, open_client

LONGEST_FIRST = (
    "tests/console",
    "tests/cli",
    "tests/conformance",
    "tests/workflows",
    "tests/api",
    "tests/seller",
    "tests/end_to_end",
)
"""So that no process is left with a long file at the end."""
WITH_A_STACK = ("tests/console", "tests/cli", "tests/end_to_end")
"""Folders whose tests share servers of their own, which are ended after the last of them."""

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile(
    "tests", max_examples=100 * EXAMPLES_FACTOR, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# Nothing here measures a process, so none need import everything again, or read certificates.
Process.forks = True
read_once()


class ByServers(LoadScopeScheduling):
    """Distributes tests by file, some folders as a whole, so that those which share servers stay together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.rpartition("/")[0]
        return folder if folder in WITH_A_STACK else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServers:
    config.option.loadscopereorder = False  # the order is the one below
    return ByServers(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return next(
            (at for at, folder in enumerate(LONGEST_FIRST) if item.nodeid.startswith(folder + "/")),
            len(LONGEST_FIRST),
        )

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Doesn't look for garbage among what is imported and collected, for all of that stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
async def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    async with running_temporal(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest.fixture(scope="session")
async def temporal(temporal_server: TemporalServer) -> TemporalClient:
    return await open_client(temporal_server.address, data_converter=CLEAR_DATA_CONVERTER)


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
