"""The whole way on a real local chain: anvil, an EIP-3009 token, x402's own facilitator.

Needs ``anvil`` (``npm install @foundry-rs/anvil``) on the path or in ``WAYSTATION_ANVIL``.
``chain/TestUsd.bin`` is ``chain/TestUsd.sol`` compiled by solc with ``--optimize``.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from fastapi import FastAPI
from temporalio.client import Client
from x402.schemas import SettleRequest, SettleResponse, VerifyRequest, VerifyResponse

from tests.buyer.bench import Bench, has_credential, times
from tests.seller.paywall.support import REALM, RECIPIENT, SECRET, LossyTransport
from tests.support import eventually
from tests.world.anvil import ANVIL, NO_ANVIL, running_anvil
from waystation.buyer.wallet import Wallet
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.protocols import http402
from waystation.protocols.http402.eip3009 import TokenAsset
from waystation.seller.paywall import EvmRail, Paywall
from waystation.seller.paywall.journal import SqliteJournal

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from x402.mechanisms.evm import FacilitatorWeb3Signer
    from x402.mechanisms.evm.exact import ExactEvmFacilitatorScheme

CHAIN_ID = 84532
RICH_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""Anvil's first account, the same everywhere and worth nothing."""
HOLDINGS = 1_000_000

pytestmark = [
    pytest.mark.skipif(ANVIL is None, reason=NO_ANVIL),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class LocalChain:
    """Anvil with one token on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(trust_env=False)
        self.rich = Account.from_key(RICH_KEY).address
        self.token = ""

    async def rpc(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = (await self.http.post(self.url, json=body)).json()
        assert "error" not in answer, answer
        return answer["result"]

    async def ready(self) -> None:
        async def answers() -> bool:
            try:
                return int(await self.rpc("eth_chainId"), 16) == CHAIN_ID
            except httpx.HTTPError:
                return False

        await eventually(answers)
        code = (Path(__file__).parent / "chain" / "TestUsd.bin").read_text()
        receipt = await self.send(None, "0x" + code)
        self.token = str(to_checksum_address(receipt["contractAddress"]))

    async def send(self, to: str | None, data: str) -> dict[str, Any]:
        transaction = {"from": self.rich, "data": data} | ({"to": to} if to else {})
        sent = await self.rpc("eth_sendTransaction", transaction)
        receipt: dict[str, Any] = await eventually(
            lambda: self.rpc("eth_getTransactionReceipt", sent), what="the transaction is mined"
        )
        return receipt

    async def mint(self, address: str) -> None:
        selector = keccak(text="mint(address,uint256)")[:4]
        await self.send(
            self.token, "0x" + (selector + encode(["address", "uint256"], [address, HOLDINGS])).hex()
        )

    async def balance(self, address: str) -> int:
        data = "0x" + (keccak(text="balanceOf(address)")[:4] + encode(["address"], [address])).hex()
        return int(await self.rpc("eth_call", {"to": self.token, "data": data}, "latest"), 16)

    @property
    def asset(self) -> TokenAsset:
        return TokenAsset(CHAIN_ID, self.token, "USDC", "2", 6)

    async def close(self) -> None:
        await self.http.aclose()


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[LocalChain]:
    with running_anvil(tmp_path, CHAIN_ID) as anvil:
        made = LocalChain(anvil.url)
        try:
            await made.ready()
            yield made
        finally:
            await made.close()


def real_facilitator(chain: LocalChain) -> FastAPI:
    """x402's own facilitator over anvil."""
    scheme = ExactEvmFacilitatorScheme(FacilitatorWeb3Signer(RICH_KEY, chain.url))
    app = FastAPI()

    @app.post("/verify", response_model_exclude_none=True)
    async def verify(request: VerifyRequest) -> VerifyResponse:
        return await asyncio.to_thread(scheme.verify, request.payment_payload, request.payment_requirements)

    @app.post("/settle", response_model_exclude_none=True)
    async def settle(request: SettleRequest) -> SettleResponse:
        return await asyncio.to_thread(scheme.settle, request.payment_payload, request.payment_requirements)

    return app


@pytest.mark.parametrize("rail", [Rail.X402_EXACT, Rail.MPP_EVM])
async def test_a_payment_settles_on_the_chain_once(
    temporal: Client, chain: LocalChain, tmp_path: Path, rail: Rail
) -> None:
    wallet = Wallet(Account.create(), assets=(chain.asset,), rpc_url=chain.url)
    bench = Bench(tmp_path, temporal, wallet=wallet)
    await chain.mint(wallet.address)
    async with bench.working():
        await pay_and_check(bench, chain, tmp_path, rail)


async def pay_and_check(bench: Bench, chain: LocalChain, tmp_path: Path, rail: Rail) -> None:
    bench.network.add("facilitator.test", real_facilitator(chain))
    journal = SqliteJournal(tmp_path / "chain-paywall.sqlite3")
    evm = EvmRail(
        chain.asset,
        recipient=RECIPIENT,
        facilitator_url="https://facilitator.test",
        client=httpx.AsyncClient(transport=bench.network),
    )
    paywall = Paywall(realm=REALM, secret_key=SECRET, journal=journal, rails=[evm])
    app = FastAPI()

    @app.get("/paid")
    @paywall.charge(Money(amount=2_500, currency=chain.asset.currency))
    async def paid() -> dict[str, str]:
        return {"settled": "on a chain"}

    bench.network.add("chain.test", app)
    bench.network.lose = times(1, has_credential)
    price = Money(amount=2_500, currency=chain.asset.currency)
    mandate = await bench.mandate(Money(amount=10_000, currency=chain.asset.currency))
    view = await bench.pay("https://chain.test/paid", price, mandate, rails=[rail])
    assert (view.status, view.money_moved) == ("delivered", "yes"), view.refusal
    assert view.receipt is not None
    assert view.receipt.matches_payment is True
    assert await chain.balance(RECIPIENT) == 2_500
    assert await chain.balance(bench.wallet.address) == HOLDINGS - 2_500
    receipt = await chain.rpc("eth_getTransactionReceipt", view.receipt.reference)
    assert int(receipt["status"], 16) == 1
    assert await bench.balance(mandate) == (2_500, 0)
    await paywall.close()


async def test_too_little_on_the_chain_is_a_certain_refusal(
    temporal: Client, chain: LocalChain, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, temporal)
    payer = Wallet(Account.create(), assets=(chain.asset,), rpc_url=chain.url)
    bench.network.add("facilitator.test", real_facilitator(chain))
    evm = EvmRail(
        chain.asset,
        recipient=RECIPIENT,
        facilitator_url="https://facilitator.test",
        client=httpx.AsyncClient(transport=bench.network),
    )
    journal = SqliteJournal(tmp_path / "chain-paywall.sqlite3")
    paywall = Paywall(realm=REALM, secret_key=SECRET, journal=journal, rails=[evm])
    app = FastAPI()

    @app.get("/paid")
    @paywall.charge(Money(amount=5, currency=chain.asset.currency))
    async def paid() -> dict[str, str]:
        raise AssertionError("nothing was paid")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://x.test") as client:
        asked = await client.get("/paid")
        offer = http402.read_offer(asked.headers["payment-required"], 0, mpp=False)
        credential = payer.mint(offer, key="k")
        header = {credential.header: credential.value.get_secret_value()}
        answer = await client.get("/paid", headers=header)
    assert answer.status_code == 402
    assert answer.json()["detail"].startswith("No money moved")
    assert await payer.was_used(chain.asset.currency, payer.address, credential.nonce or "") is False
    await payer.close()
    await paywall.close()


async def test_a_settlement_whose_answer_was_lost_is_found_on_the_chain(
    chain: LocalChain, tmp_path: Path
) -> None:
    payer = Wallet(Account.create(), assets=(chain.asset,), rpc_url=chain.url)
    await chain.mint(payer.address)
    facilitator = LossyTransport(httpx.ASGITransport(real_facilitator(chain)))
    facilitator.only, facilitator.lose = "/settle", 1
    evm = EvmRail(
        chain.asset,
        recipient=RECIPIENT,
        facilitator_url="https://facilitator.test",
        rpc_url=chain.url,
        client=httpx.AsyncClient(mounts={"https://facilitator.test": facilitator}, trust_env=False),
    )
    journal = SqliteJournal(tmp_path / "chain-paywall.sqlite3")
    paywall = Paywall(realm=REALM, secret_key=SECRET, journal=journal, rails=[evm])
    app = FastAPI()

    @app.get("/paid")
    @paywall.charge(Money(amount=5, currency=chain.asset.currency))
    async def paid() -> dict[str, str]:
        return {"found": "on a chain"}

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://x.test") as client:
        asked = await client.get("/paid")
        offer = http402.read_offer(asked.headers["payment-required"], 0, mpp=False)
        credential = payer.mint(offer, key="k")
        header = {credential.header: credential.value.get_secret_value()}
        answer = await client.get("/paid", headers=header)
    assert answer.json() == {"found": "on a chain"}
    receipt = http402.parse_receipt(list(answer.headers.items()), Rail.X402_EXACT)
    assert receipt is not None
    mined = await chain.rpc("eth_getTransactionReceipt", receipt.reference)
    assert int(mined["status"], 16) == 1
    assert await chain.balance(RECIPIENT) == 5
    await payer.close()
    await paywall.close()
