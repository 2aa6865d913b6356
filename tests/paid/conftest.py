"""Fixtures for paid requests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .support import EvmSeller, Payer, stock_mpp, stock_x402


@pytest.fixture
async def seller(tmp_path: Path) -> AsyncIterator[EvmSeller]:
    made = EvmSeller(tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=["mpp", "x402"])
async def payer(request: pytest.FixtureRequest, seller: EvmSeller) -> AsyncIterator[Payer]:
    made = Payer(seller, stock_mpp if request.param == "mpp" else stock_x402)
    yield made
    await made.client.aclose()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stripe's own client hands httpx its form body in a way that httpx deprecates."""
    ignored = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(ignored)
