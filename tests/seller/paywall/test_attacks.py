"""What may be tried against the paywall, by stock clients and by hand: each attack has a name."""

import asyncio
import base64
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.seller.paywall.support import RECIPIENT, EvmSeller, Payer, account, stock_x402
from waystation.buyer.wallet import Wallet
from waystation.protocols import http402
from waystation.seller.paywall.entries import EntryState


async def settled(seller: EvmSeller) -> int:
    return len(await seller.chain.transfers())


async def test_a_stock_client_pays_and_gets_the_answer(payer: Payer, seller: EvmSeller) -> None:
    answer = await payer.client.get("/report", params={"topic": "rain"})
    assert answer.status_code == 200
    assert answer.json() == {"answer": "report:rain", "run": 1}
    [transfer] = await seller.chain.transfers()
    assert (transfer.payer, transfer.payee, transfer.amount) == (payer.account.address, RECIPIENT, 1_000)
    assert answer.headers["cache-control"] == "private, no-store"
    receipt = answer.headers.get("payment-receipt") or answer.headers.get("payment-response")
    assert receipt is not None
    decoded = json.loads(base64.urlsafe_b64decode(receipt + "=" * (-len(receipt) % 4)))
    assert transfer.tx in decoded.values()


async def test_a_stock_client_pays_a_request_with_a_body(payer: Payer, seller: EvmSeller) -> None:
    answer = await payer.client.post("/report", json={"text": "long"})
    assert answer.status_code == 200
    assert await settled(seller) == 1


async def test_nothing_runs_while_unpaid_and_nobody_may_cache_the_challenge(seller: EvmSeller) -> None:
    async with seller.http() as client:
        answer = await client.get("/report")
    assert answer.status_code == 402
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "https://paymentauth.org/problems/payment-required"
    assert "payment-receipt" not in answer.headers
    assert seller.runs.total() == 0


async def test_a_bad_request_is_refused_before_it_is_charged(payer: Payer, seller: EvmSeller) -> None:
    answer = await payer.client.get("/count/notanumber")
    assert answer.status_code == 422
    assert await settled(seller) == 0


async def test_a_free_tier_costs_nothing_and_a_dynamic_price_is_charged_as_asked(
    payer: Payer, seller: EvmSeller
) -> None:
    assert (await payer.client.get("/count/0")).status_code == 200
    assert await settled(seller) == 0
    assert (await payer.client.get("/count/7")).status_code == 200
    [transfer] = await seller.chain.transfers()
    assert transfer.amount == 70


async def test_replaying_a_proof_gets_the_same_answer_and_no_second_run(
    payer: Payer, seller: EvmSeller
) -> None:
    first = await payer.client.get("/report")
    async with seller.http() as client:
        again = await client.get("/report", headers=payer.proof())
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers.get("payment-receipt") == first.headers.get("payment-receipt")
    assert again.headers.get("payment-response") == first.headers.get("payment-response")
    assert seller.runs.total() == 1
    assert await settled(seller) == 1


async def test_eight_identical_proofs_at_once_are_one_charge_one_run_one_answer(
    payer: Payer, seller: EvmSeller
) -> None:
    proof = await proof_for(payer, seller, "/report")
    seller.gate = asyncio.Event()
    async with seller.http() as client:
        waiting = [asyncio.create_task(client.get("/report", headers=proof)) for _ in range(8)]
        await asyncio.wait_for(seller.entered.wait(), 5)
        seller.gate.set()
        answers = await asyncio.gather(*waiting)
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert seller.runs.total() == 1
    assert await settled(seller) == 1


async def test_eight_identical_proofs_across_two_replicas_are_one_run(
    payer: Payer, seller: EvmSeller, tmp_path: Path
) -> None:
    replica = EvmSeller(tmp_path)
    proof = await proof_for(payer, seller, "/report")
    async with seller.http() as here, replica.http() as there:
        clients = [here, there] * 4
        answers = await asyncio.gather(*(client.get("/report", headers=proof) for client in clients))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert seller.runs.total() + replica.runs.total() == 1
    assert await settled(seller) == 1
    await replica.close()


async def test_replay_after_a_restart_gets_the_recorded_answer(
    payer: Payer, seller: EvmSeller, tmp_path: Path
) -> None:
    first = await payer.client.get("/report")
    restarted = EvmSeller(tmp_path)
    async with restarted.http() as client:
        again = await client.get("/report", headers=payer.proof())
    assert again.content == first.content
    assert restarted.runs.total() == 0
    await restarted.close()


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "/other", None),
        ("GET", "/report?topic=else", None),
        ("POST", "/report", {"text": "x"}),
        ("GET", "/count/100", None),
    ],
)
async def test_a_proof_for_one_request_is_no_proof_for_another_at_the_same_price(
    payer: Payer, seller: EvmSeller, method: str, url: str, body: dict[str, Any] | None
) -> None:
    proof = await proof_for(payer, seller, "/report")
    async with seller.http() as client:
        answer = await client.request(method, url, json=body, headers=proof)
    assert answer.status_code == 402
    assert answer.json()["type"].endswith("/invalid-challenge")
    assert seller.runs.total() == 0
    assert await settled(seller) == 0


async def test_another_body_needs_another_payment(payer: Payer, seller: EvmSeller) -> None:
    await payer.client.post("/report", json={"text": "one"})
    async with seller.http() as client:
        answer = await client.post("/report", json={"text": "two"}, headers=payer.proof())
    assert answer.status_code == 402
    assert seller.runs["summary"] == 1


async def test_a_proof_for_another_realm_is_refused(payer: Payer, seller: EvmSeller, tmp_path: Path) -> None:
    proof = await proof_for(payer, seller, "/report")
    seller.paywall.realm = "other.test"
    async with seller.http() as client:
        answer = await client.get("/report", headers=proof)
    assert answer.status_code == 402
    assert await settled(seller) == 0


async def test_an_x402_authorization_used_once_cannot_buy_a_second_route(seller: EvmSeller) -> None:
    """The payer signs once and pastes the signature under another route's terms.

    (An MPP authorization names its challenge in the nonce, so can't even be pasted.)
    """
    payer = Payer(seller, stock_x402)
    await payer.client.get("/report")
    proof = payer.proof()
    async with seller.http() as client:
        asked = await client.get("/other")
        terms = http402.decode_json_header(asked.headers["payment-required"])
        payload = http402.decode_json_header(proof["payment-signature"])
        payload["accepted"] = terms["accepts"][0]
        forged = {"payment-signature": http402.encode_json_header(payload)}
        answer = await client.get("/other", headers=forged)
    assert answer.status_code == 403
    assert "www-authenticate" not in answer.headers
    assert seller.runs["other"] == 0


async def test_a_lowered_price_in_the_echoed_terms_is_refused(payer: Payer, seller: EvmSeller) -> None:
    proof = await proof_for(payer, seller, "/count/7")
    name, value = next(iter(proof.items()))
    if name == "payment-signature":
        payload = http402.decode_json_header(value)
        payload["accepted"]["amount"] = "1"
        proof = {name: http402.encode_json_header(payload)}
    else:
        credential = json.loads(base64.urlsafe_b64decode(value[8:] + "=="))
        request = json.loads(base64.urlsafe_b64decode(credential["challenge"]["request"] + "=="))
        request["amount"] = "1"
        encoded = base64.urlsafe_b64encode(json.dumps(request).encode()).decode().rstrip("=")
        credential["challenge"]["request"] = encoded
        packed = base64.urlsafe_b64encode(json.dumps(credential).encode()).decode().rstrip("=")
        proof = {name: f"Payment {packed}"}
    async with seller.http() as client:
        answer = await client.get("/count/7", headers=proof)
    assert answer.status_code == 402
    assert await settled(seller) == 0


async def test_a_signature_by_someone_else_is_refused(payer: Payer, seller: EvmSeller) -> None:
    proof = await proof_for(payer, seller, "/report")
    name, value = next(iter(proof.items()))
    prefix = "" if name == "payment-signature" else "Payment "
    decoded = json.loads(base64.urlsafe_b64decode(value.removeprefix(prefix) + "=="))
    payload = decoded["payload"]
    signature = payload["signature"]
    payload["signature"] = signature[:10] + ("0" if signature[10] != "0" else "1") + signature[11:]
    encoded = base64.urlsafe_b64encode(json.dumps(decoded).encode()).decode()
    if name == "payment-signature":
        encoded = base64.b64encode(json.dumps(decoded).encode()).decode()
    async with seller.http() as client:
        answer = await client.get("/report", headers={name: prefix + encoded.rstrip("=")})
    assert answer.status_code == 402
    assert answer.json()["type"].endswith("/verification-failed")
    assert await settled(seller) == 0


@pytest.mark.parametrize("step", ["/verify", "/settle"])
async def test_a_crash_before_the_charge_heals(payer: Payer, seller: EvmSeller, step: str) -> None:
    seller.facilitator.only = step
    seller.facilitator.drop = 1
    assert (await payer.client.get("/report")).status_code == 500
    async with seller.http() as client:
        again = await client.get("/report", headers=payer.proof())
    assert again.status_code == 200
    assert await settled(seller) == 1


async def test_a_handler_that_fails_after_the_charge_is_run_again_for_the_same_proof(
    payer: Payer, seller: EvmSeller
) -> None:
    seller.fail_handler = 1
    answer = await payer.client.get("/report")
    assert answer.status_code == 500
    assert "www-authenticate" not in answer.headers
    assert [entry.state for entry in await seller.paywall.undelivered()] == [EntryState.CHARGED]
    async with seller.http() as client:
        again = await client.get("/report", headers=payer.proof())
    assert again.status_code == 200
    assert await settled(seller) == 1
    assert await seller.paywall.undelivered() == []


async def test_a_client_that_hangs_up_finds_its_answer_later(payer: Payer, seller: EvmSeller) -> None:
    proof = await proof_for(payer, seller, "/report")
    seller.gate = asyncio.Event()
    async with seller.http() as client:
        hanging = asyncio.create_task(client.get("/report", headers=proof))
        await asyncio.wait_for(seller.entered.wait(), 5)
        hanging.cancel()
        seller.gate.set()
        answer = await client.get("/report", headers=proof)
    assert answer.status_code == 200
    assert seller.runs.total() == 1


async def test_another_worker_takes_over_when_the_first_one_dies(
    payer: Payer, seller: EvmSeller, tmp_path: Path
) -> None:
    """The first worker charges and then never comes back; its lease runs out."""
    proof = await proof_for(payer, seller, "/report")
    dying, taking_over = EvmSeller(tmp_path, lease_seconds=0.3), EvmSeller(tmp_path, lease_seconds=0.3)
    dying.gate = asyncio.Event()
    async with dying.http() as there, taking_over.http() as here:
        first = asyncio.create_task(there.get("/report", headers=proof))
        await asyncio.wait_for(dying.entered.wait(), 5)
        for work in dying.paywall._running.values():
            work.cancel()
        answer = await here.get("/report", headers=proof)
        with pytest.raises(asyncio.CancelledError):
            await first
    assert answer.status_code == 200
    assert taking_over.runs.total() == 1
    assert await settled(seller) == 1
    await dying.close()
    await taking_over.close()


async def test_a_slow_handler_keeps_its_lease(payer: Payer, seller: EvmSeller, tmp_path: Path) -> None:
    proof = await proof_for(payer, seller, "/report")
    slow, other = EvmSeller(tmp_path, lease_seconds=0.3), EvmSeller(tmp_path, lease_seconds=0.3)
    slow.gate = asyncio.Event()
    async with slow.http() as there, other.http() as here:
        first = asyncio.create_task(there.get("/report", headers=proof))
        await asyncio.wait_for(slow.entered.wait(), 5)
        await renewals(slow, 4)
        second = asyncio.create_task(here.get("/report", headers=proof))
        await renewals(slow, 2)
        slow.gate.set()
        answers = await asyncio.gather(first, second)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert slow.runs.total() + other.runs.total() == 1
    await slow.close()
    await other.close()


async def renewals(seller: EvmSeller, count: int) -> None:
    """Waits until the running entry was renewed so many times."""
    [key] = seller.paywall._running
    first = await seller.journal.load(key)
    async with asyncio.timeout(10):
        while (await seller.journal.load(key)).version < first.version + count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a condition in a database can only be polled


async def test_too_little_money_is_a_402_that_says_no_money_moved(payer: Payer, seller: EvmSeller) -> None:
    await seller.chain.move(payer.account.address, RECIPIENT, 1_000_000_000 - 10, "0x" + "00" * 32)
    answer = await payer.client.get("/report")
    assert answer.status_code == 402
    assert answer.json()["detail"].startswith("No money moved")
    assert seller.runs.total() == 0


async def test_an_expired_challenge_is_refused_unpaid(seller: EvmSeller) -> None:
    seller.paywall._challenge_lifetime = timedelta(seconds=-1)
    payer = Wallet(account())
    async with seller.http() as client:
        asked = await client.get("/report")
        [offer, _] = [
            http402.read_offer(asked.headers["www-authenticate"], 0, mpp=True),
            http402.read_offer(asked.headers["payment-required"], 0, mpp=False),
        ]
        proof = payer.mint(offer, key="k")
        answer = await client.get("/report", headers={proof.header: proof.value.get_secret_value()})
    assert answer.status_code == 402
    assert answer.json()["type"].endswith("/payment-expired")
    assert await settled(seller) == 0


@pytest.mark.parametrize(
    "header",
    [
        {"authorization": "Payment"},
        {"authorization": "Payment !!!"},
        {"authorization": "Payment " + "A" * 70_000},
        {"authorization": "Payment e30"},
        {
            "authorization": "Payment "
            + base64.urlsafe_b64encode(b'{"challenge":{"id":1},"payload":[]}').decode()
        },
        {"payment-signature": "e30="},
        {"payment-signature": "x" * 70_000},
        {"payment-signature": base64.b64encode(b'{"x402Version":2,"accepted":[],"payload":1}').decode()},
        {"payment-signature": base64.b64encode(b"[" * 5_000).decode()},
    ],
)
async def test_rubbish_in_a_credential_header_is_a_402(seller: EvmSeller, header: dict[str, str]) -> None:
    async with seller.http() as client:
        answer = await client.get("/report", headers=header)
    assert answer.status_code == 402
    assert seller.runs.total() == 0


async def test_the_journal_holds_no_signature(payer: Payer, seller: EvmSeller) -> None:
    await payer.client.get("/report")
    await seller.close()
    [value] = payer.proof().values()
    decoded = json.loads(base64.urlsafe_b64decode(value.removeprefix("Payment ") + "=="))
    signature = decoded["payload"]["signature"].removeprefix("0x").encode()
    files = seller.journal_files()
    assert files
    assert not any(signature in content for content in files)


async def proof_for(payer: Payer, _: EvmSeller, url: str) -> dict[str, str]:
    return await payer.proof_for(url)
