"""What goes over the wire around a payment: odd credentials, CORS, names for payments, failed payments."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi.middleware.cors import CORSMiddleware

from tests.seller.paywall.support import RECIPIENT, EvmSeller, Payer, stock_mpp, stock_x402
from waystation.protocols import http402
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.seller.paywall import EvmRail
from waystation.seller.paywall.answers import EXPOSED_HEADERS

PAGE = "https://page.test"
HUGE = 2**53 + 1


def opened(proof: dict[str, str]) -> tuple[str, str, dict[str, Any]]:
    [(name, value)] = proof.items()
    prefix = "" if name == "payment-signature" else "Payment "
    encoded = value.removeprefix(prefix)
    return name, prefix, json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


def set_at(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        document = document[name]
    document[path[-1]] = value


@pytest.mark.parametrize("number", [HUGE, -HUGE, 10**400, 1e300])
@pytest.mark.parametrize(
    "path",
    [("payload", "n"), ("payload", "validAfter"), ("challenge", "n"), ("accepted", "n"), ("n",)],
)
async def test_a_number_without_a_canonical_form_is_the_clients_mistake(
    payer: Payer, seller: EvmSeller, path: tuple[str, ...], number: Any
) -> None:
    name, prefix, document = opened(await payer.proof_for("/report"))
    if len(path) > 1:
        document.setdefault(path[0], {})  # the other protocol has no such part, and must ignore it
    set_at(document, path, number)
    sent = prefix + base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
    async with seller.http() as client:
        answer = await client.get("/report", headers={name: sent})
    assert answer.status_code < 500


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
async def test_base64_is_read_in_either_alphabet(
    payer: Payer, seller: EvmSeller, encode: Callable[[bytes], bytes], padded: bool
) -> None:
    name, prefix, document = opened(await payer.proof_for("/report"))
    document["note"] = "\u00bf\u00be\u00ff\u00fe?>~" * 3  # encoded with the characters that differ
    encoded = encode(json.dumps(document, ensure_ascii=False).encode()).decode()
    assert set("+/-_") & set(encoded)
    async with seller.http() as client:
        sent = prefix + (encoded if padded else encoded.rstrip("="))
        answer = await client.get("/report", headers={name: sent})
    assert answer.status_code == 200, answer.text


async def test_an_mpp_credential_may_leave_authorization_to_a_login(seller: EvmSeller) -> None:
    payer = Payer(seller, stock_mpp)
    [credential] = (await payer.proof_for("/report")).values()
    async with seller.http() as client:
        headers = {"authorization": "Bearer login", "payment-authorization": credential}
        assert (await client.get("/report", headers=headers)).status_code == 200
    await payer.client.aclose()


async def test_a_failed_x402_payment_says_so_in_its_own_header(seller: EvmSeller) -> None:
    payer = Payer(seller, stock_x402)
    await seller.chain.move(payer.account.address, RECIPIENT, 1_000_000_000 - 10, "0x" + "00" * 32)
    answer = await payer.client.get("/report")
    assert answer.status_code == 402
    failed = http402.decode_json_header(answer.headers["payment-response"])
    assert failed == {
        "success": False,
        "errorReason": "verification-failed",
        "transaction": "",
        "network": USDC_BASE_SEPOLIA.network,
    }
    assert "payment-required" in answer.headers
    await payer.client.aclose()


@pytest.mark.parametrize("header", ["e30=", "x", None])
async def test_so_does_one_that_was_never_tried(seller: EvmSeller, header: str | None) -> None:
    async with seller.http() as client:
        headers = {} if header is None else {"payment-signature": header}
        answer = await client.get("/report", headers=headers)
    assert answer.status_code == 402
    if header is None:
        assert "payment-response" not in answer.headers
    else:
        failed = http402.decode_json_header(answer.headers["payment-response"])
        assert (failed["success"], failed["errorReason"]) == (False, "malformed-credential")


def exposed(answer: httpx.Response) -> set[str]:
    return {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}


async def test_a_page_of_another_origin_can_read_what_it_needs_to_pay(
    payer: Payer, seller: EvmSeller
) -> None:
    seller.app.add_middleware(CORSMiddleware, allow_origins=[PAGE], allow_headers=["payment-signature"])
    async with seller.http() as client:
        asked = await client.get("/report", headers={"origin": PAGE})
        preflight = await client.options(
            "/report",
            headers={
                "origin": PAGE,
                "access-control-request-method": "GET",
                "access-control-request-headers": "payment-signature",
            },
        )
    paid = await payer.client.get("/report", headers={"origin": PAGE})
    assert (asked.status_code, preflight.status_code, paid.status_code) == (402, 200, 200)
    assert exposed(asked) == exposed(paid) == set(EXPOSED_HEADERS)
    assert paid.headers["access-control-allow-origin"] == PAGE


async def test_a_preflight_is_never_asked_to_pay(seller: EvmSeller) -> None:
    @seller.app.api_route("/any", methods=["GET", "OPTIONS"])
    @seller.paywall.charge(seller.price)
    async def anything() -> dict[str, str]:
        return {"paid": "yes"}

    headers = {"origin": PAGE, "access-control-request-method": "GET"}
    async with seller.http() as client:
        preflight = await client.options("/any", headers=headers)
        assert (await client.options("/any")).status_code == 402
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert "access-control-allow-origin" not in preflight.headers


async def test_a_second_payment_under_one_idempotency_key_is_not_charged(
    payer: Payer, seller: EvmSeller
) -> None:
    first = await payer.client.get("/report", headers={"idempotency-key": "order-7"})
    again = await payer.client.get("/report", headers={"idempotency-key": "order-7"})
    assert (again.status_code, again.content) == (200, first.content)
    assert (len(await seller.chain.transfers()), seller.runs.total()) == (1, 1)
    other = await payer.client.get("/report", headers={"idempotency-key": "order-8"})
    assert other.status_code == 200
    assert len(await seller.chain.transfers()) == 2


async def test_an_idempotency_key_belongs_to_one_payer_and_one_request(
    payer: Payer, seller: EvmSeller
) -> None:
    key = {"idempotency-key": "1"}
    stranger = Payer(seller, stock_x402)
    assert (await payer.client.get("/report", headers=key)).json()["run"] == 1
    assert (await stranger.client.get("/report", headers=key)).json()["run"] == 2
    assert (await payer.client.get("/other", headers=key)).status_code == 200
    assert len(await seller.chain.transfers()) == 3
    await stranger.client.aclose()


async def test_a_key_whose_payment_was_refused_may_pay_again(payer: Payer, seller: EvmSeller) -> None:
    key = {"idempotency-key": "k"}
    address = payer.account.address
    await seller.chain.move(address, RECIPIENT, 1_000_000_000 - 10, "0x" + "00" * 32)
    assert (await payer.client.get("/report", headers=key)).status_code == 402
    await seller.chain.move(RECIPIENT, address, 5_000, "0x" + "01" * 32)
    assert (await payer.client.get("/report", headers=key)).status_code == 200


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_an_unusable_idempotency_key_is_refused_uncharged(
    payer: Payer, seller: EvmSeller, key: str
) -> None:
    answer = await payer.client.get("/report", headers={"idempotency-key": key})
    assert answer.status_code == 400
    assert await seller.chain.transfers() == []


@pytest.mark.parametrize("seconds", [0, -1, 9, 3_601, 10**9])
def test_max_timeout_seconds_has_bounds(seconds: int) -> None:
    with pytest.raises(ValueError, match="max_timeout_seconds"):
        EvmRail(
            USDC_BASE_SEPOLIA,
            recipient=RECIPIENT,
            facilitator_url="http://f.test",
            max_timeout_seconds=seconds,
        )
