"""The x402 extension ``payment-identifier``, on both sides."""

import base64
import json
from typing import Any

import httpx
import pytest
from x402.extensions.payment_identifier import PAYMENT_IDENTIFIER

from tests.buyer.bench import USDC, Bench, has_credential, times
from tests.seller.paywall.support import EvmSeller, account, x402_payload
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.protocols import http402


def sent_payloads(bench: Bench) -> list[dict[str, Any]]:
    requests = [request for request in bench.network.seen if "payment-signature" in request.headers]
    return [json.loads(base64.b64decode(request.headers["payment-signature"])) for request in requests]


async def credential(seller: EvmSeller, client: httpx.AsyncClient, payer: Any, identifier: Any) -> str:
    """A fresh credential of this payer under an identifier."""
    required, paid = await x402_payload(client, "/report", payer)
    assert required["extensions"][PAYMENT_IDENTIFIER]["info"] == {"required": False}
    paid["extensions"] = {PAYMENT_IDENTIFIER: {"info": {"required": False, "id": identifier}}}
    return http402.encode_json_header(paid)


async def test_one_identifier_is_one_payment(seller: EvmSeller) -> None:
    payer, other = account(), account()
    async with seller.http() as client:
        name = "pay_7d5d747be160e280"
        first = {"payment-signature": await credential(seller, client, payer, name)}
        second = {"payment-signature": await credential(seller, client, payer, name)}
        strangers = {"payment-signature": await credential(seller, client, other, name)}
        paid = await client.get("/report", headers=first)
        again = await client.get("/report", headers=first)
        conflict = await client.get("/report", headers=second)
        stranger = await client.get("/report", headers=strangers)
    assert paid.status_code == again.status_code == 200
    assert paid.content == again.content
    assert conflict.status_code == 409
    assert "payment-required" not in conflict.headers
    assert stranger.status_code == 200  # another payer's name is another name
    assert len(await seller.chain.transfers()) == 2


@pytest.mark.parametrize("bad", ["short", "with spaces in it, and long", 17, "x" * 129])
async def test_a_bad_identifier_is_refused(seller: EvmSeller, bad: Any) -> None:
    async with seller.http() as client:
        headers = {"payment-signature": await credential(seller, client, account(), bad)}
        answer = await client.get("/report", headers=headers)
    assert (answer.status_code, answer.json()["type"].split("/")[-1]) == (402, "malformed-credential")
    assert await seller.chain.transfers() == []


async def test_the_buyer_names_its_payment_where_that_is_offered(bench: Bench) -> None:
    mandate = await bench.mandate(Money(amount=10_000, currency=USDC))
    bench.network.lose = times(1, has_credential)
    most = Money(amount=1_000, currency=USDC)
    view = await bench.pay("/v1/quotes/A", most, mandate, rails=(Rail.X402_EXACT,))
    assert view.status == "delivered"
    names = [payload["extensions"][PAYMENT_IDENTIFIER]["info"]["id"] for payload in sent_payloads(bench)]
    assert len(names) == 2  # the lost answer was asked for again
    assert set(names) == {http402.payment_identifier(f"{view.payment_id}:mint:1")}
