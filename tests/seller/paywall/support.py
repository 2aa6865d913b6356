"""What the tests of paid requests share: apps, lossy networks, stock clients."""

import asyncio
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from fastapi import FastAPI, Request
from mpp.client import Mpp
from mpp.methods.evm import BASE_SEPOLIA_USDC
from mpp.methods.evm import client as evm_client
from x402.client import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.schemas import PaymentRequired

from waystation.models.money import Money
from waystation.protocols.http402 import decode_json_header
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox.facilitator import Chain, create_facilitator_app
from waystation.seller.paywall import EvmRail, Paywall
from waystation.seller.paywall.journal import SqliteJournal

with warnings.catch_warnings():
    # web3, which the stock x402 client drags in, imports a deprecated module of websockets.
    warnings.simplefilter("ignore", DeprecationWarning)
    from x402.mechanisms.evm.exact import ExactEvmClientScheme
    from x402.mechanisms.evm.exact import ExactEvmServerScheme as ExactEvmServerScheme

SECRET = "a paywall secret for tests, 32 characters or more"
REALM = "api.test"
RECIPIENT = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
BASE_URL = "http://api.test"
USDC = USDC_BASE_SEPOLIA.currency


def usdc(base_units: int) -> Money:
    return Money(amount=base_units, currency=USDC)


class LossyTransport(httpx.AsyncBaseTransport):
    """Forwards requests; ``lose`` answers after they took effect, ``drop`` requests before.

    ``only`` restricts the trouble to paths with this end.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.lose = 0
        self.drop = 0
        self.only = ""
        self.seen: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], Any] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.before is not None:
            await self.before(request)
        if not request.url.path.endswith(self.only):
            return await self.inner.handle_async_request(request)
        if self.drop:
            self.drop -= 1
            raise httpx.ConnectError("dropped before it arrived", request=request)
        response = await self.inner.handle_async_request(request)
        if self.lose:
            self.lose -= 1
            await response.aread()
            raise httpx.ReadError("the answer was lost", request=request)
        return response


class EvmSeller:
    """A small API behind the paywall, charged on the simulated chain."""

    def __init__(
        self, folder: Path, *, name: str = "paywall", lease_seconds: float = 15, asks_chain: bool = True
    ) -> None:
        self.folder = folder
        self.asks_chain = asks_chain
        self.chain = Chain(folder / "chain.sqlite3")
        self.runs: Counter[str] = Counter()
        self.fail_handler = 0
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.price = usdc(1_000)
        self.facilitator = LossyTransport(httpx.ASGITransport(create_facilitator_app(self.chain)))
        self.facilitator.only = "/settle"
        self.journal: Any = SqliteJournal(folder / f"{name}.sqlite3")
        self.paywall = self._paywall(lease_seconds)
        self.app = self._app()

    def _paywall(self, lease_seconds: float) -> Paywall:
        self.facilitator_client = httpx.AsyncClient(transport=self.facilitator)
        rail = EvmRail(
            USDC_BASE_SEPOLIA,
            recipient=RECIPIENT,
            facilitator_url="http://facilitator.test",
            rpc_url="http://facilitator.test/rpc" if self.asks_chain else None,
            client=self.facilitator_client,
        )
        return Paywall(
            realm=REALM,
            secret_key=SECRET,
            journal=self.journal,
            rails=[rail],
            lease_seconds=lease_seconds,
            wait_seconds=5,
        )

    def _app(self) -> FastAPI:
        app = FastAPI()

        async def work(name: str) -> dict[str, Any]:
            self.runs[name] += 1
            self.entered.set()
            if self.gate is not None:
                await self.gate.wait()
            if self.fail_handler:
                self.fail_handler -= 1
                raise RuntimeError("the handler failed after the charge")
            return {"answer": name, "run": self.runs[name]}

        @app.get("/report")
        @self.paywall.charge(self.price)
        async def report(topic: str = "none") -> dict[str, Any]:
            return await work(f"report:{topic}")

        @app.get("/other")
        @self.paywall.charge(self.price)
        async def other() -> dict[str, Any]:
            return await work("other")

        @app.post("/report")
        @self.paywall.charge(self.price)
        async def summary(body: dict[str, Any]) -> dict[str, Any]:
            return await work("summary")

        @app.get("/count/{n}")
        @self.paywall.charge(by_count)
        async def count(n: int) -> dict[str, Any]:
            return await work("count")

        return app

    def http(self, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
        inner = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport or inner, base_url=BASE_URL)

    def journal_files(self) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.iterdir() if path.name.startswith("paywall")]

    async def close(self) -> None:
        await self.paywall.close()
        await self.chain.close()


def by_count(request: Request) -> Money | None:
    n = int(request.path_params["n"])
    return usdc(n * 10) if n else None


def account() -> Any:
    return Account.create()


def stock_mpp(transport: httpx.AsyncBaseTransport, payer: Any) -> httpx.AsyncClient:
    """pympp's own client with its evm method, over a transport."""
    method = evm_client.charge(currency=BASE_SEPOLIA_USDC, account=payer)
    mpp = Mpp(methods=[method])
    mpp.payment_transport._inner = transport
    return mpp.client(base_url=BASE_URL)


def stock_x402(transport: httpx.AsyncBaseTransport, payer: Any) -> httpx.AsyncClient:
    """x402's own client with its exact EVM scheme, over a transport."""
    client = x402Client()
    client.register("eip155:84532", ExactEvmClientScheme(payer))
    return httpx.AsyncClient(transport=x402AsyncTransport(client, transport), base_url=BASE_URL)


async def x402_payload(
    client: httpx.AsyncClient, url: str, payer: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a server requires, and the stock library's payload for it, which is not sent."""
    stock = x402Client()
    stock.register("eip155:84532", ExactEvmClientScheme(payer))
    required = decode_json_header((await client.get(url)).headers["payment-required"])
    made = await stock.create_payment_payload(PaymentRequired.model_validate(required))
    return required, made.model_dump(by_alias=True, exclude_none=True, mode="json")


def paid_header(requests: Sequence[httpx.Request]) -> dict[str, str]:
    """The credential header that a stock client sent last."""
    for request in reversed(requests):
        for name in ("authorization", "payment-signature"):
            if name in request.headers:
                return {name: request.headers[name]}
    raise AssertionError("no request carried a credential")


class Payer:
    """A stock client and the wire it speaks over."""

    def __init__(self, seller: EvmSeller, make: Callable[..., httpx.AsyncClient]) -> None:
        self.wire = LossyTransport(httpx.ASGITransport(seller.app, raise_app_exceptions=False))
        self.account: Any = account()
        self.client = make(self.wire, self.account)

    def proof(self) -> dict[str, str]:
        return paid_header(self.wire.seen)

    async def proof_for(self, url: str, **request: Any) -> dict[str, str]:
        """A proof that the stock client made but that never reached the server."""

        async def hold_back(sent: httpx.Request) -> None:
            if "authorization" in sent.headers or "payment-signature" in sent.headers:
                raise httpx.ConnectError("held back", request=sent)

        self.wire.before = hold_back
        try:
            await self.client.get(url, **request)
        except Exception as error:  # each client has its own type
            if "credential" not in str(error) and "held back" not in str(error):
                raise
        else:
            raise AssertionError("the client paid nothing")
        finally:
            self.wire.before = None
        return self.proof()
