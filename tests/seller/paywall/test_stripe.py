"""The paywall charging shared payment tokens at the sandbox processor; pympp's client pays."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import stripe
from fastapi import FastAPI, HTTPException
from mpp.client import Mpp
from mpp.methods.stripe import client as stripe_method

from tests.seller.paywall.support import BASE_URL, REALM, SECRET, LossyTransport
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.protocols import http402
from waystation.sandbox.processor import create_app as create_processor
from waystation.seller.paywall import Paywall, StripeRail
from waystation.seller.paywall.entries import EntryState
from waystation.seller.paywall.journal import SqliteJournal
from waystation.stripe_http import STRIPE_API_VERSION, open_stripe

NETWORK_ID = "profile_test_seller"


def stripe_client(key: str, transport: httpx.AsyncBaseTransport) -> stripe.StripeClient:
    client, _ = open_stripe(key, api_base="http://processor.test", transport=transport)
    return client


class StripeSeller:
    """A paid route, its processor, and an agent that issues tokens there."""

    def __init__(self, folder: Path) -> None:
        self.processor = httpx.ASGITransport(create_processor(folder))
        self.network = LossyTransport(self.processor)
        self.agent = stripe_client("sk_test_agent", self.processor)
        self.journal = SqliteJournal(folder / "paywall.sqlite3")
        rail = StripeRail(stripe_client("sk_test_seller", self.network), network_id=NETWORK_ID)
        self.paywall = Paywall(
            realm=REALM, secret_key=SECRET, journal=self.journal, rails=[rail], wait_seconds=5
        )
        self.runs: Counter[str] = Counter()
        self.fail_handler = 0
        self.card = "pm_card_visa"
        self.minted: list[str] = []
        self.app = FastAPI()
        self.transport = LossyTransport(httpx.ASGITransport(self.app, raise_app_exceptions=False))

        @self.app.get("/missing")
        @self.paywall.charge(Money(amount=50, currency="usd"), refund_errors=True)
        async def missing(status: int) -> dict[str, Any]:
            self.runs["missing"] += 1
            if status == 200:
                return {}
            raise HTTPException(status, "no such report")

        @self.app.get("/report")
        @self.paywall.charge(Money(amount=50, currency="usd"))
        async def report() -> dict[str, Any]:
            self.runs["report"] += 1
            if self.fail_handler:
                self.fail_handler -= 1
                raise RuntimeError("after the charge")
            return {"run": self.runs["report"]}

    async def issue(self, amount: int = 50, card: str | None = None) -> str:
        answer = await self.agent.raw_request_async(
            "post",
            "/v1/shared_payment/issued_tokens",
            payment_method=card or self.card,
            seller_details={"network_business_profile": NETWORK_ID},
            usage_limits={
                "currency": "usd",
                "max_amount": amount,
                "expires_at": int((datetime.now(UTC) + timedelta(minutes=10)).timestamp()),
            },
            stripe_version=STRIPE_API_VERSION,
            idempotency_key=f"issue-{len(self.minted)}",
        )
        token = str(answer.data["id"])
        self.minted.append(token)
        return token

    def stock_client(self) -> httpx.AsyncClient:
        async def create_token(parameters: Any) -> str:
            return await self.issue(int(parameters.amount))

        method = stripe_method.charge(create_token=create_token, payment_method=self.card)
        mpp = Mpp(methods=[method])
        mpp.payment_transport._inner = self.transport
        return mpp.client(base_url=BASE_URL)

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self.transport, base_url=BASE_URL)

    async def credential(self, client: httpx.AsyncClient, token: str) -> dict[str, str]:
        asked = await client.get("/report")
        return {"authorization": http402.stripe_credential(asked.headers["www-authenticate"], token)}

    async def charges(self) -> list[dict[str, Any]]:
        return await self.ledger("charge")

    async def ledger(self, kind: str) -> list[dict[str, Any]]:
        async with httpx.AsyncClient(transport=self.processor, base_url="http://processor.test") as client:
            entries = (await client.get("/sandbox/ledger")).json()["entries"]
        return [entry for entry in entries if entry["kind"] == kind]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[StripeSeller]:
    made = StripeSeller(tmp_path)
    yield made
    await made.paywall.close()


async def test_a_stock_client_pays_with_a_token(shop: StripeSeller) -> None:
    async with shop.stock_client() as client:
        answer = await client.get("/report")
    assert (answer.status_code, answer.json()) == (200, {"run": 1})
    [charge] = await shop.charges()
    assert charge["amount"] == 50
    receipt = http402.parse_receipt(list(answer.headers.items()), Rail.MPP_STRIPE)
    assert receipt is not None
    assert receipt.reference.startswith("pi_")


async def test_a_lost_processor_answer_is_no_invitation_to_pay_again(shop: StripeSeller) -> None:
    async with shop.stock_client() as client:
        shop.network.lose = 1
        answer = await client.get("/report")
        assert answer.status_code == 500
        assert "www-authenticate" not in answer.headers
        assert len(shop.minted) == 1
        proof = {"authorization": shop.transport.seen[-1].headers["authorization"]}
    async with shop.http() as client:
        again = await client.get("/report", headers=proof)
    assert again.status_code == 200
    assert len(await shop.charges()) == 1
    assert shop.runs.total() == 1
    creations = [request for request in shop.network.seen if request.method == "POST"]
    keys = {request.headers["idempotency-key"] for request in creations}
    assert len(creations) == 2
    assert len(keys) == 1  # the challenge alone, whatever the attempt or the token
    assert not any(token in key for key in keys for token in shop.minted)


async def test_three_tokens_for_one_challenge_are_one_charge(shop: StripeSeller) -> None:
    async with shop.http() as client:
        asked = await client.get("/report")
        challenge = asked.headers["www-authenticate"]
        tokens = [await shop.issue() for _ in range(3)]
        proofs = [{"authorization": http402.stripe_credential(challenge, token)} for token in tokens]
        answers = await asyncio.gather(*(client.get("/report", headers=proof) for proof in proofs))
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403]
    assert not any("www-authenticate" in answer.headers for answer in answers)
    assert len(await shop.charges()) == 1
    assert shop.runs.total() == 1


async def test_a_declined_card_is_a_402_and_stays_one_for_its_challenge(shop: StripeSeller) -> None:
    async with shop.http() as client:
        proof = await shop.credential(client, await shop.issue(card="pm_card_visa_chargeDeclined"))
        first = await client.get("/report", headers=proof)
        again = await client.get("/report", headers=proof)
    assert (first.status_code, again.status_code) == (402, 402)
    assert first.json()["type"].endswith("/verification-failed")
    assert "www-authenticate" in first.headers
    assert await shop.charges() == []


async def test_a_token_for_too_little_is_refused_by_the_processor(shop: StripeSeller) -> None:
    async with shop.http() as client:
        proof = await shop.credential(client, await shop.issue(amount=49))
        answer = await client.get("/report", headers=proof)
    assert answer.status_code == 402
    assert await shop.charges() == []
    assert shop.runs.total() == 0


async def test_a_spent_token_buys_nothing_under_a_new_challenge(shop: StripeSeller) -> None:
    async with shop.http() as client:
        token = await shop.issue()
        assert (await client.get("/report", headers=await shop.credential(client, token))).status_code == 200
        answer = await client.get("/report", headers=await shop.credential(client, token))
    assert answer.status_code == 402
    assert len(await shop.charges()) == 1


async def test_a_card_that_wants_a_person_is_refused_and_cannot_be_charged_later(shop: StripeSeller) -> None:
    async with shop.http() as client:
        proof = await shop.credential(client, await shop.issue(card="pm_card_authenticationRequired"))
        answer = await client.get("/report", headers=proof)
    assert answer.status_code == 402
    async with httpx.AsyncClient(transport=shop.processor, base_url="http://processor.test") as client:
        intents = (await client.get("/sandbox/ledger")).json()["payment_intents"]
    assert [intent["status"] for intent in intents] in (["canceled"], [])


async def test_reconciling_finds_a_charge_whose_answer_was_lost(shop: StripeSeller) -> None:
    async with shop.http() as client:
        proof = await shop.credential(client, await shop.issue())
        shop.network.lose = 1
        assert (await client.get("/report", headers=proof)).status_code == 500
        assert await shop.paywall.reconcile(older_than=timedelta(0)) == 1
        [owed] = await shop.paywall.undelivered()
        assert owed.charge is not None
        assert owed.charge.reference.startswith("pi_")
        before = len(shop.network.seen)
        assert (await client.get("/report", headers=proof)).status_code == 200
        assert len(shop.network.seen) == before  # delivered without asking the processor again
    assert len(await shop.charges()) == 1


async def test_reconciling_leaves_what_was_never_charged_open(shop: StripeSeller) -> None:
    async with shop.http() as client:
        proof = await shop.credential(client, await shop.issue())
        shop.network.drop = 1
        assert (await client.get("/report", headers=proof)).status_code == 500
        assert await shop.paywall.reconcile(older_than=timedelta(0)) == 0
        [entry] = await shop.journal.in_state(EntryState.CLAIMED, created_before=datetime.now(UTC))
        assert entry.unclear is not None
        assert (await client.get("/report", headers=proof)).status_code == 200
    assert len(await shop.charges()) == 1


async def test_a_charge_whose_key_the_processor_has_forgotten_is_found_by_its_challenge(
    shop: StripeSeller,
) -> None:
    """After a day the same key would be a new request, and the spent token a refusal."""
    async with shop.http() as client:
        proof = await shop.credential(client, await shop.issue())
        shop.network.lose = 1
        assert (await client.get("/report", headers=proof)).status_code == 500

        async def forget_keys(request: httpx.Request) -> None:
            request.headers["idempotency-key"] = f"forgotten-{len(shop.network.seen)}"

        shop.network.before = forget_keys
        answer = await client.get("/report", headers=proof)
    assert answer.status_code == 200
    assert len(await shop.charges()) == 1


@pytest.mark.parametrize(("status", "refunds"), [(404, 1), (410, 1), (422, 1), (200, 0)])
async def test_an_error_gives_the_money_back_once_where_the_route_says_so(
    shop: StripeSeller, status: int, refunds: int
) -> None:
    async with shop.stock_client() as client:
        answer = await client.get("/missing", params={"status": status})
    proof = {"authorization": shop.transport.seen[-1].headers["authorization"]}
    async with shop.http() as client:
        again = await client.get("/missing", params={"status": status}, headers=proof)
    assert (answer.status_code, again.status_code) == (status, status)
    assert "payment-receipt" in answer.headers
    assert [entry["amount"] for entry in await shop.ledger("refund")] == [50] * refunds
    assert (shop.runs["missing"], len(await shop.charges())) == (1, 1)
    assert await shop.paywall.refunds_due() == []


async def test_a_second_token_under_one_idempotency_key_is_not_charged(shop: StripeSeller) -> None:
    key = {"idempotency-key": "order-7"}
    async with shop.http() as client:
        declined = await shop.credential(client, await shop.issue(card="pm_card_visa_chargeDeclined"))
        assert (await client.get("/report", headers=declined | key)).status_code == 402
        first = await shop.credential(client, await shop.issue()) | key
        second = await shop.credential(client, await shop.issue()) | key
        answers = [await client.get("/report", headers=headers) for headers in (first, second, first)]
    assert [answer.status_code for answer in answers] == [200, 409, 200]
    assert len(await shop.charges()) == 1


async def test_a_refund_whose_answer_was_lost_is_made_once(shop: StripeSeller) -> None:
    shop.network.only, shop.network.lose = "/refunds", 1
    async with shop.stock_client() as client:
        assert (await client.get("/missing", params={"status": 404})).status_code == 404
    [due] = await shop.paywall.refunds_due()
    assert due.state is EntryState.REFUNDING
    await shop.paywall.reconcile()
    assert await shop.paywall.refunds_due() == []
    assert len(await shop.ledger("refund")) == 1


async def test_no_token_in_journal_or_logs(
    shop: StripeSeller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop.http() as client:
        token = await shop.issue()
        proof = await shop.credential(client, token)
        shop.network.lose = 1
        shop.fail_handler = 1
        for _ in range(3):
            answer = await client.get("/report", headers=proof)
        assert answer.status_code == 200
    await shop.journal.close()
    contents = [path.read_bytes() for path in tmp_path.glob("paywall*")]  # noqa: ASYNC240
    assert contents
    assert not any(token.encode() in content for content in contents)
    ours = [record for record in caplog.records if record.name.startswith("waystation")]
    assert ours
    assert not any(token in record.getMessage() + str(record.exc_text) for record in ours)
