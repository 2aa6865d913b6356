"""Our buyer pays stock servers. The other way round: tests/seller/paywall."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from mpp import MemoryStore
from mpp.methods.evm import BASE_SEPOLIA_USDC
from mpp.methods.evm import server as stock_evm
from mpp.methods.stripe import server as stock_stripe
from mpp.server import Mpp, pay
from mpp.x402 import HttpFacilitator

from tests.buyer.bench import USDC, Bench, has_credential, times, usd
from tests.protocols.http402.test_measured_faults import StockX402Seller
from tests.seller.paywall.support import SECRET
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.stripe_http import open_stripe


def usdc(base_units: int) -> Money:
    return Money(amount=base_units, currency=USDC)


async def test_a_stock_mpp_stripe_server_is_paid(bench: Bench, tmp_path: Path) -> None:
    seller, _ = open_stripe("sk_test_stock", api_base="http://processor.test", transport=bench.network)
    method = stock_stripe.charge(network_id="profile_test_stock", client=seller, currency="usd")
    stock = Mpp(methods=method, realm="stock", secret_key=SECRET, store=MemoryStore())
    app = FastAPI()

    @app.get("/paid")
    @pay(stock.charge(amount="0.50"))
    async def paid(request: Request, credential: Any, receipt: Any) -> JSONResponse:
        return JSONResponse({"from": "stock"})

    bench.network.add("stock.test", app)
    mandate = await bench.mandate(usd(1_000))
    view = await bench.pay("https://stock.test/paid", usd(50), mandate)
    assert (view.status, view.money_moved) == ("delivered", "yes")
    assert view.answer is not None
    assert json.loads(base64.b64decode(view.answer.body_base64)) == {"from": "stock"}
    assert view.receipt is not None
    assert view.receipt.matches_payment is True
    assert await bench.charges() == [50]


@pytest.mark.parametrize("rail", [Rail.MPP_EVM, Rail.X402_EXACT])
async def test_a_stock_mpp_evm_server_is_paid_by_both_protocols(
    bench: Bench, tmp_path: Path, rail: Rail
) -> None:
    facilitator = HttpFacilitator(
        "https://paid.test/facilitator", client=httpx.AsyncClient(transport=bench.network)
    )
    method = stock_evm.charge(
        currency=BASE_SEPOLIA_USDC,
        recipient="0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
        facilitator=facilitator,
        route_binding="resource",
        store=MemoryStore(),
    )
    stock = Mpp(methods=method, realm="stock", secret_key=SECRET)
    app = FastAPI()

    @app.get("/paid")
    @pay(stock.charge(amount="0.001"))
    async def paid(request: Request, credential: Any, receipt: Any) -> JSONResponse:
        return JSONResponse({"from": "stock"})

    bench.network.add("stock.test", app)
    mandate = await bench.mandate(usdc(10_000))
    view = await bench.pay("https://stock.test/paid", usdc(1_000), mandate, rails=[rail])
    assert (view.status, view.money_moved) == ("delivered", "yes"), view.refusal
    assert await bench.transfers() == 1
    assert await bench.balance(mandate) == (1_000, 0)


async def test_a_stock_x402_server_is_paid(bench: Bench, tmp_path: Path) -> None:
    stock = StockX402Seller(tmp_path / "stock")
    stock.chain = bench.api.state.chain
    stock.verify, stock.settle = _facilitator(bench)
    bench.network.add("stock.test", stock.app)
    mandate = await bench.mandate(usdc(10_000))
    view = await bench.pay("https://stock.test/report", usdc(1_000), mandate)
    assert (view.status, view.money_moved) == ("delivered", "yes"), view.refusal
    assert view.receipt is not None
    assert view.receipt.reference.startswith("0x")
    assert await bench.transfers() == 1


async def test_a_lost_answer_of_a_stock_server_is_no_second_payment(bench: Bench, tmp_path: Path) -> None:
    """The stock server refuses the resend (and keeps the money); the truth is told, and nobody pays twice."""
    seller, _ = open_stripe("sk_test_stock", api_base="http://processor.test", transport=bench.network)
    method = stock_stripe.charge(network_id="profile_test_stock", client=seller, currency="usd")
    stock = Mpp(methods=method, realm="stock", secret_key=SECRET, store=MemoryStore())
    app = FastAPI()

    @app.get("/paid")
    @pay(stock.charge(amount="0.50"))
    async def paid(request: Request, credential: Any, receipt: Any) -> JSONResponse:
        return JSONResponse({"from": "stock"})

    bench.network.add("stock.test", app)
    bench.network.lose = times(1, has_credential)
    mandate = await bench.mandate(usd(1_000))
    view = await bench.pay("https://stock.test/paid", usd(50), mandate)
    assert (view.status, view.money_moved) == ("undelivered", "yes")
    assert await bench.charges() == [50]
    assert await bench.balance(mandate) == (50, 0)
    assert len(await bench.all_tokens()) == 1


def _facilitator(bench: Bench) -> tuple[Any, Any]:
    from waystation.sandbox.facilitator import Facilitator

    facilitator = Facilitator(bench.api.state.chain)
    return facilitator.verify, facilitator.settle
