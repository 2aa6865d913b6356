"""Faults of stock 402 components, measured by one script, and the same script on ours.

Each test runs twice, once per column. The stock column is asserted as it is today: when a
library mends a fault, its test fails and the line can go.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from mpp import MemoryStore
from mpp.client import Mpp as StockClient
from mpp.methods.stripe import client as stock_stripe_client
from mpp.methods.stripe import server as stock_stripe_server
from mpp.server import Mpp as StockServer
from mpp.server import pay
from x402.http.middleware.fastapi import payment_middleware
from x402.http.types import PaymentOption, RouteConfig
from x402.schemas import AssetAmount, SupportedKind, SupportedResponse
from x402.server import x402ResourceServer

from tests.buyer.bench import Bench, usd
from tests.buyer.evil import EvilServer, ask, stripe_challenge
from tests.seller.paywall.support import (
    BASE_URL,
    REALM,
    RECIPIENT,
    SECRET,
    EvmSeller,
    ExactEvmServerScheme,
    LossyTransport,
    account,
    paid_header,
    stock_x402,
)
from waystation.models.money import Money
from waystation.protocols import http402
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox.facilitator import Chain, Facilitator
from waystation.sandbox.processor import create_app as create_processor
from waystation.seller.paywall import Paywall, StripeRail
from waystation.seller.paywall.journal import SqliteJournal
from waystation.stripe_http import STRIPE_API_VERSION, open_stripe

NETWORK_ID = "profile_test_seller"
columns = pytest.mark.parametrize("column", ["stock", "ours"])


class CardSeller:
    """One 50 cent route, sold by pympp's server or by our paywall, over a network that can lose answers."""

    def __init__(self, folder: Path, column: str) -> None:
        self.processor = httpx.ASGITransport(create_processor(folder))
        self.network = LossyTransport(self.processor)
        self.app = FastAPI()
        self.wire = LossyTransport(httpx.ASGITransport(self.app, raise_app_exceptions=False))
        self.runs = 0
        self.fail_handler = 0
        self.minted: list[str] = []
        self._agent, _ = open_stripe(
            "sk_test_agent", api_base="http://processor.test", transport=self.processor
        )
        seller, _ = open_stripe("sk_test_seller", api_base="http://processor.test", transport=self.network)
        self.close: Callable[[], Awaitable[None]] = self._sell(folder, column, seller)

    def _sell(self, folder: Path, column: str, seller: Any) -> Callable[[], Awaitable[None]]:
        if column == "ours":
            rail = StripeRail(seller, network_id=NETWORK_ID)
            journal = SqliteJournal(folder / "paywall.sqlite3")
            paywall = Paywall(realm=REALM, secret_key=SECRET, journal=journal, rails=[rail])

            @self.app.get("/report")
            @paywall.charge(Money(amount=50, currency="usd"))
            async def ours() -> dict[str, int]:
                return self._work()

            return paywall.close
        store = MemoryStore()
        method = stock_stripe_server.charge(network_id=NETWORK_ID, client=seller, currency="usd")
        stock = StockServer(methods=method, realm=REALM, secret_key=SECRET, store=store)

        @self.app.get("/report")
        @pay(stock.charge(amount="0.50"))
        async def stocks(request: Request, credential: Any, receipt: Any) -> dict[str, int]:
            return self._work()

        async def nothing() -> None:
            return None

        return nothing

    def _work(self) -> dict[str, int]:
        if self.fail_handler:
            self.fail_handler -= 1
            raise RuntimeError("the handler failed after the charge")
        self.runs += 1
        return {"run": self.runs}

    async def issue(self, amount: int = 50) -> str:
        expires = int((datetime.now(UTC) + timedelta(minutes=10)).timestamp())
        answer = await self._agent.raw_request_async(
            "post",
            "/v1/shared_payment/issued_tokens",
            payment_method="pm_card_visa",
            seller_details={"network_business_profile": NETWORK_ID},
            usage_limits={"currency": "usd", "max_amount": amount, "expires_at": expires},
            stripe_version=STRIPE_API_VERSION,
            idempotency_key=f"issue-{len(self.minted)}",
        )
        self.minted.append(str(answer.data["id"]))
        return self.minted[-1]

    def stock_client(self) -> httpx.AsyncClient:
        return stock_card_client(self.wire, self.issue).client(base_url=BASE_URL)

    async def charges(self) -> list[int]:
        async with httpx.AsyncClient(transport=self.processor, base_url="http://processor.test") as client:
            entries = (await client.get("/sandbox/ledger")).json()["entries"]
        return [entry["amount"] for entry in entries if entry["kind"] == "charge"]


def stock_card_client(
    transport: httpx.AsyncBaseTransport, issue: Callable[[int], Awaitable[str]]
) -> StockClient:
    async def create_token(parameters: Any) -> str:
        return await issue(int(parameters.amount))

    method = stock_stripe_client.charge(create_token=create_token, payment_method="pm_card_visa")
    client = StockClient(methods=[method])
    client.payment_transport._inner = transport
    return client


@pytest.fixture
async def card_seller(tmp_path: Path, column: str) -> Any:
    made = CardSeller(tmp_path, column)
    yield made
    await made.close()


@columns
async def test_a_lost_processor_answer_charges(card_seller: CardSeller, column: str) -> None:
    """The stock server asks for another payment; the stock client makes it."""
    card_seller.network.lose = 1
    async with card_seller.stock_client() as client:
        await client.get("/report")
    expected = {"stock": [50, 50], "ours": [50]}
    assert await card_seller.charges() == expected[column]


@columns
async def test_three_tokens_for_one_challenge_charge(card_seller: CardSeller, column: str) -> None:
    async with httpx.AsyncClient(transport=card_seller.wire, base_url=BASE_URL) as client:
        asked = await client.get("/report")
        for _ in range(3):
            token = await card_seller.issue()
            credential = http402.stripe_credential(asked.headers["www-authenticate"], token)
            await client.get("/report", headers={"authorization": credential})
    expected = {"stock": [50, 50, 50], "ours": [50]}
    assert await card_seller.charges() == expected[column]


@columns
async def test_a_handler_that_fails_after_the_charge_is_made_good(
    card_seller: CardSeller, column: str
) -> None:
    """Paid; and the same credential again gets the answer, or never does."""
    card_seller.fail_handler = 1
    async with card_seller.stock_client() as client:
        await client.get("/report")
    assert await card_seller.charges() == [50]
    async with httpx.AsyncClient(transport=card_seller.wire, base_url=BASE_URL) as client:
        again = await client.get("/report", headers=paid_header(card_seller.wire.seen))
    delivered = (again.status_code == 200, card_seller.runs)
    assert delivered == {"stock": (False, 0), "ours": (True, 1)}[column]


@columns
async def test_a_server_that_raises_its_price_gets_tokens_for(bench: Bench, column: str) -> None:
    prices = ["50", "500", "5000", "50000"]
    server = EvilServer(
        lambda request, n: ask(stripe_challenge(prices[n], network_id=NETWORK_ID)),
        lambda request, n: ask(stripe_challenge(prices[n + 1], network_id=NETWORK_ID)),
    )
    bench.network.add("evil.test", server.app)
    if column == "stock":

        async def issue(amount: int) -> str:
            expires = int((datetime.now(UTC) + timedelta(minutes=10)).timestamp())
            answer = await bench.agent_client.raw_request_async(
                "post",
                "/v1/shared_payment/issued_tokens",
                payment_method="pm_card_visa",
                seller_details={"network_business_profile": NETWORK_ID},
                usage_limits={"currency": "usd", "max_amount": amount, "expires_at": expires},
                stripe_version=STRIPE_API_VERSION,
                idempotency_key=f"issue-{amount}",
            )
            return str(answer.data["id"])

        async with stock_card_client(bench.network, issue).client() as client:
            await client.get("https://evil.test/")
    else:
        mandate = await bench.mandate(usd(100_000))
        await bench.pay("https://evil.test/", usd(100_000), mandate)
    tokens = (await bench.ledger())["tokens"]
    minted = sorted(token["usage_limits"]["max_amount"] for token in tokens)
    assert minted == {"stock": [50, 500, 5000], "ours": [50]}[column]


class StockX402Seller:
    """Two routes at one price behind x402's own FastAPI middleware, with the sandbox's facilitator."""

    def __init__(self, folder: Path) -> None:
        self.chain = Chain(folder / "chain.sqlite3")
        self._facilitator = Facilitator(self.chain)
        self.verify, self.settle = self._facilitator.verify, self._facilitator.settle
        self.runs: Counter[str] = Counter()
        self.app = FastAPI()
        asset = USDC_BASE_SEPOLIA
        price = AssetAmount(
            amount="1000", asset=asset.address, extra={"name": asset.name, "version": asset.version}
        )
        option = PaymentOption(scheme="exact", pay_to=RECIPIENT, price=price, network=asset.network)
        server = x402ResourceServer(self)
        server.register(asset.network, ExactEvmServerScheme())
        routes = {"GET /report": RouteConfig(accepts=option), "GET /other": RouteConfig(accepts=option)}
        self.app.middleware("http")(payment_middleware(routes, server))

        @self.app.get("/report")
        async def report() -> dict[str, int]:
            return await self._work("report:none")

        @self.app.get("/other")
        async def other() -> dict[str, int]:
            return await self._work("other")

    def get_supported(self) -> SupportedResponse:
        kind = SupportedKind(x402_version=2, scheme="exact", network=USDC_BASE_SEPOLIA.network)
        return SupportedResponse(kinds=[kind])

    async def _work(self, name: str) -> dict[str, int]:
        self.runs[name] += 1
        await asyncio.sleep(0.05)  # a handler that takes its time, so that six requests meet
        return {"run": self.runs[name]}

    async def close(self) -> None:
        await self.chain.close()


@pytest.fixture
async def x402_seller(tmp_path: Path, column: str) -> Any:
    made = StockX402Seller(tmp_path) if column == "stock" else EvmSeller(tmp_path)
    yield made
    await made.close()


async def x402_proof(seller: Any) -> dict[str, str]:
    """A payload that a stock client bought for ``/report`` and that never arrived."""
    wire = LossyTransport(httpx.ASGITransport(seller.app, raise_app_exceptions=False))

    async def hold_back(request: httpx.Request) -> None:
        if "payment-signature" in request.headers:
            raise httpx.ConnectError("held back", request=request)

    wire.before = hold_back
    async with stock_x402(wire, account()) as client:
        with pytest.raises(Exception, match=r"held back|Failed"):
            await client.get("/report")
    return paid_header(wire.seen)


@columns
async def test_an_x402_payload_for_one_route_is_accepted_on_another(x402_seller: Any, column: str) -> None:
    proof = await x402_proof(x402_seller)
    transport = httpx.ASGITransport(x402_seller.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        answer = await client.get("/other", headers=proof)
    assert answer.status_code == {"stock": 200, "ours": 402}[column]
    assert x402_seller.runs["other"] == {"stock": 1, "ours": 0}[column]


@columns
async def test_an_x402_payload_six_times_at_once_runs_the_handler(x402_seller: Any, column: str) -> None:
    proof = await x402_proof(x402_seller)
    transport = httpx.ASGITransport(x402_seller.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        await asyncio.gather(*(client.get("/report", headers=proof) for _ in range(6)))
    assert x402_seller.runs["report:none"] == {"stock": 6, "ours": 1}[column]
    assert len(await x402_seller.chain.transfers()) == 1
