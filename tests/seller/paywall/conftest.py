"""A paid API and a stock client of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.seller.paywall.support import EvmSeller, Payer, stock_mpp, stock_x402


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
