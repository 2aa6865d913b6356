"""A settlement that nobody answered: the chain knows, and where none is configured, people are told."""

import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.seller.paywall.support import RECIPIENT, EvmSeller, Payer, stock_mpp, stock_x402, usdc
from waystation.models.payments import Rail
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox.facilitator import Chain, create_facilitator_app
from waystation.seller.paywall import EvmRail, evm_chain
from waystation.seller.paywall.entries import Charge, Entry, SignedTransfer
from waystation.seller.paywall.evm_chain import FINAL_AFTER_SECONDS
from waystation.seller.paywall.rails import Outcome, Refused, Settled, Unclear

NOW = datetime.now(UTC)


@pytest.fixture(params=[stock_mpp, stock_x402], ids=["mpp", "x402"])
def client(request: pytest.FixtureRequest) -> Callable[..., httpx.AsyncClient]:
    made: Callable[..., httpx.AsyncClient] = request.param
    return made


async def test_a_lost_settlement_answer_is_looked_up_at_once(payer: Payer, seller: EvmSeller) -> None:
    seller.facilitator.lose = 1
    answer = await payer.client.get("/report")
    assert answer.status_code == 200
    assert len(await seller.chain.transfers()) == 1


async def test_a_lost_settlement_is_found_when_the_chain_answers_again(
    payer: Payer, seller: EvmSeller
) -> None:
    seller.facilitator.lose = 1
    seller.facilitator.before = chain_is_away
    answer = await payer.client.get("/report")
    assert answer.status_code == 500
    assert not {"www-authenticate", "payment-required", "payment-response"} & set(answer.headers)
    assert answer.headers["cache-control"] == "no-store"
    assert await seller.paywall.reconcile(older_than=timedelta(0)) == 0
    seller.facilitator.before = None
    assert await seller.paywall.reconcile(older_than=timedelta(0)) == 1
    [owed] = await seller.paywall.undelivered()
    [transfer] = await seller.chain.transfers()
    assert owed.charge is not None
    assert owed.charge.reference == transfer.tx
    async with seller.http() as client:
        assert (await client.get("/report", headers=payer.proof())).status_code == 200
    assert len(await seller.chain.transfers()) == 1


async def chain_is_away(request: httpx.Request) -> None:
    if request.url.path.endswith("/rpc"):
        raise httpx.ConnectError("away", request=request)


async def test_without_a_chain_people_are_told_and_nobody_is_asked_to_pay_again(
    tmp_path: Path, client: Callable[..., httpx.AsyncClient]
) -> None:
    seller = EvmSeller(tmp_path, asks_chain=False)
    payer = Payer(seller, client)
    seller.facilitator.lose = 1
    answers = [await payer.client.get("/report")]
    async with seller.http() as http:
        answers += [await http.get("/report", headers=payer.proof()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500] * 3
    assert not any("www-authenticate" in answer.headers for answer in answers)
    assert await seller.paywall.reconcile(older_than=timedelta(0)) == 0
    [entry] = await seller.paywall.unclear(older_than=timedelta(0))
    assert entry.unclear is not None
    assert entry.transfer is not None
    assert entry.transfer.payer == payer.account.address
    [transfer] = await seller.chain.transfers()
    found = Charge(reference=transfer.tx, network=USDC_BASE_SEPOLIA.network, charged_at=NOW)
    assert await seller.paywall.note_charged(entry, found)
    assert not await seller.paywall.note_refused(entry, "a second opinion")
    async with seller.http() as http:
        assert (await http.get("/report", headers=payer.proof())).status_code == 200
    await payer.client.aclose()
    await seller.close()


async def test_a_transaction_that_a_facilitator_names_is_kept(payer: Payer, seller: EvmSeller) -> None:
    """Stock facilitators answer ``settlement_pending`` with the hash of what they have sent."""
    pending = {
        "success": False,
        "errorReason": "settlement_pending",
        "transaction": "0x" + "ab" * 32,
        "network": USDC_BASE_SEPOLIA.network,
    }
    transport = seller.facilitator.inner

    class Pending(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/settle"):
                return httpx.Response(200, json=pending)
            return await transport.handle_async_request(request)

    seller.facilitator.inner = Pending()
    assert (await payer.client.get("/report")).status_code == 500
    [entry] = await seller.paywall.unclear(older_than=timedelta(0))
    assert entry.transaction == pending["transaction"]


@pytest.mark.parametrize("what", ["verify", "settle"])
async def test_a_facilitator_that_redirects_gets_no_credential_elsewhere(
    payer: Payer, seller: EvmSeller, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport, visited = seller.facilitator.inner, []

    class Redirecting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            visited.append(request.url.host)
            if request.url.path == f"/{what}":
                return httpx.Response(307, headers={"location": f"http://thief.test/{what}"})
            return await transport.handle_async_request(request)

    seller.facilitator.inner = Redirecting()
    seller.facilitator_client.follow_redirects = True
    assert (await payer.client.get("/report")).status_code == 500
    assert "thief.test" not in visited
    assert "correct facilitator_url" in caplog.text
    assert await seller.chain.transfers() == []


# The chain alone

PAYER, NONCE = "0x" + "11" * 20, "0x" + "22" * 32
OTHER_NONCE = "0x" + "33" * 32
THIEF = "0x" + "44" * 20


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    made = Chain(tmp_path / "chain.sqlite3")
    yield made
    await made.close()


async def outcome(chain: Chain, *, valid_before: datetime, transaction: str | None = None) -> Outcome:
    client = httpx.AsyncClient(transport=httpx.ASGITransport(create_facilitator_app(chain)))
    rail = EvmRail(
        USDC_BASE_SEPOLIA,
        recipient=RECIPIENT,
        facilitator_url="http://f.test",
        rpc_url="http://f.test/rpc",
        client=client,
    )
    entry = Entry(
        key="k",
        challenge_id="c",
        fingerprint="f",
        scope="s",
        route="GET /",
        rail=Rail.X402_EXACT,
        price=usdc(100),
        payee=RECIPIENT,
        created_at=NOW,
        transaction=transaction,
        transfer=SignedTransfer(payer=PAYER, nonce=NONCE, valid_before=int(valid_before.timestamp())),
    )
    return await rail.find(entry)


@pytest.mark.parametrize("given", [True, False])
async def test_a_payment_is_recognized_by_its_transfer(chain: Chain, given: bool) -> None:
    made = await chain.move(PAYER, RECIPIENT, 100, NONCE)
    assert made is not None
    found = await outcome(chain, valid_before=NOW, transaction=made.tx if given else None)
    assert isinstance(found, Settled)
    assert found.charge.reference == made.tx


@pytest.mark.parametrize(
    ("payee", "amount"), [(THIEF, 100), (RECIPIENT, 99), (RECIPIENT, 101)], ids=["payee", "less", "more"]
)
async def test_a_nonce_that_paid_somebody_or_something_else_pays_nothing(
    chain: Chain, payee: str, amount: int
) -> None:
    made = await chain.move(PAYER, payee, amount, NONCE)
    await chain.move(PAYER, RECIPIENT, 100, OTHER_NONCE)
    assert made is not None
    for transaction in (None, made.tx):
        assert isinstance(await outcome(chain, valid_before=NOW, transaction=transaction), Refused)


async def test_what_was_never_used_is_refused_only_when_it_can_never_be(chain: Chain) -> None:
    now = datetime.now(UTC)
    assert isinstance(await outcome(chain, valid_before=now + timedelta(minutes=5)), Unclear)
    assert isinstance(await outcome(chain, valid_before=now), Unclear)
    long_ago = now - timedelta(seconds=FINAL_AFTER_SECONDS + 1)
    assert isinstance(await outcome(chain, valid_before=long_ago), Refused)


async def test_a_transfer_under_another_authorization_in_the_same_transaction_is_not_this_payment() -> None:
    """One transaction: this nonce pays the payer's friend, another one pays the seller."""
    answers = Bundled()
    rail = EvmRail(
        USDC_BASE_SEPOLIA,
        recipient=RECIPIENT,
        facilitator_url="http://f.test",
        rpc_url="http://f.test/rpc",
        client=httpx.AsyncClient(transport=answers),
    )
    entry = Entry(
        key="k",
        challenge_id="c",
        fingerprint="f",
        scope="s",
        route="GET /",
        rail=Rail.X402_EXACT,
        price=usdc(100),
        payee=RECIPIENT,
        created_at=NOW,
        transfer=SignedTransfer(payer=PAYER, nonce=NONCE, valid_before=0),
    )
    assert isinstance(await rail.find(entry), Refused)
    answers.swapped = True
    assert isinstance(await rail.find(entry), Settled)


class Bundled(httpx.AsyncBaseTransport):
    """An endpoint whose one transaction has two authorizations."""

    swapped = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        used, moved = evm_chain._USED, evm_chain._TRANSFER
        nonces = [OTHER_NONCE, NONCE] if self.swapped else [NONCE, OTHER_NONCE]
        topics: list[list[str]] = [
            [used, evm_chain._topic(PAYER), nonces[0]],
            [moved, evm_chain._topic(PAYER), evm_chain._topic(THIEF)],
            [used, evm_chain._topic(PAYER), nonces[1]],
            [moved, evm_chain._topic(PAYER), evm_chain._topic(RECIPIENT)],
        ]
        logs: list[dict[str, Any]] = [
            {"address": USDC_BASE_SEPOLIA.address, "topics": one, "data": hex(100), "transactionHash": "0x1"}
            for one in topics
        ]
        results: dict[str, Any] = {
            "eth_getBlockByNumber": {"number": "0x10", "timestamp": hex(int(NOW.timestamp()))},
            "eth_call": "0x1",
            "eth_getLogs": logs[:1],
            "eth_getTransactionReceipt": {"status": "0x1", "logs": logs},
        }
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": results[asked["method"]]})
