"""A payment buys only what it costs: whatever a price depends on, it is asked for again when it is paid."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Request

from tests.seller.paywall.support import EvmSeller, Payer, usdc
from waystation.models.money import Money
from waystation.seller.paywall.entries import EntryState

SMALL, LARGE = 50, 5_000


def by_header(request: Request) -> Money | None:
    size = request.headers.get("x-size", "small")
    return {"small": usdc(SMALL), "large": usdc(LARGE), "none": None}[size]


def by_host(request: Request) -> Money:
    return usdc(LARGE if request.url.hostname == "large.test" else SMALL)


def by_cookie(request: Request) -> Money:
    return usdc(SMALL if request.cookies.get("member") else LARGE)


async def by_header_later(request: Request) -> list[Money]:
    price = by_header(request)
    return [] if price is None else [price]


PRICES: dict[str, tuple[Callable[[Request], Any], dict[str, str], dict[str, str]]] = {
    "header": (by_header, {"x-size": "small"}, {"x-size": "large"}),
    "awaited": (by_header_later, {"x-size": "small"}, {"x-size": "large"}),
    "host": (by_host, {"host": "small.test"}, {"host": "large.test"}),
    "cookie": (by_cookie, {"cookie": "member=1"}, {}),
}


def sell(seller: EvmSeller, price: Any) -> None:
    @seller.app.get("/thing")
    @seller.paywall.charge(price)
    async def thing(request: Request) -> dict[str, Any]:
        seller.runs["thing"] += 1
        if seller.fail_handler:
            seller.fail_handler -= 1
            raise RuntimeError("after the charge")
        return {"size": request.headers.get("x-size"), "host": request.headers.get("host")}


@pytest.mark.parametrize("kind", PRICES)
async def test_a_payment_for_the_cheap_does_not_buy_the_dear(
    payer: Payer, seller: EvmSeller, kind: str
) -> None:
    price, cheap, dear = PRICES[kind]
    sell(seller, price)
    proof = await payer.proof_for("/thing", headers=cheap)
    async with seller.http() as client:
        answer = await client.get("/thing", headers=dear | proof)
        assert answer.status_code == 402
        assert {"www-authenticate", "payment-required"} <= set(answer.headers)
        assert (await seller.chain.transfers(), seller.runs["thing"]) == ([], 0)
        assert (await client.get("/thing", headers=cheap | proof)).status_code == 200
    assert [transfer.amount for transfer in await seller.chain.transfers()] == [SMALL]


async def test_a_price_that_changed_with_time_is_asked_for_anew(payer: Payer, seller: EvmSeller) -> None:
    now = [usdc(SMALL)]
    sell(seller, lambda _: now[0])
    proof = await payer.proof_for("/thing")
    now[0] = usdc(SMALL + 1)
    async with seller.http() as client:
        assert (await client.get("/thing", headers=proof)).status_code == 402
    assert await seller.chain.transfers() == []


async def test_what_has_become_free_is_served_and_not_charged(payer: Payer, seller: EvmSeller) -> None:
    sell(seller, by_header)
    proof = await payer.proof_for("/thing", headers={"x-size": "small"})
    async with seller.http() as client:
        answer = await client.get("/thing", headers={"x-size": "none"} | proof)
    assert (answer.status_code, answer.json()["size"]) == (200, "none")
    assert await seller.chain.transfers() == []


async def test_a_charge_that_is_still_owed_buys_nothing_dearer_either(
    payer: Payer, seller: EvmSeller
) -> None:
    sell(seller, by_header)
    seller.fail_handler = 1
    assert (await payer.client.get("/thing", headers={"x-size": "small"})).status_code == 500
    async with seller.http() as client:
        refused = await client.get("/thing", headers={"x-size": "large"} | payer.proof())
        assert refused.status_code == 403
        assert "www-authenticate" not in refused.headers
        again = await client.get("/thing", headers={"x-size": "small"} | payer.proof())
    assert (again.status_code, again.json()["size"]) == (200, "small")


async def test_what_was_paid_and_answered_is_given_again_to_dearer_requests_and_nothing_else_is(
    payer: Payer, seller: EvmSeller
) -> None:
    sell(seller, by_header)
    bought = await payer.client.get("/thing", headers={"x-size": "small"})
    assert bought.status_code == 200
    async with seller.http() as client:
        again = await client.get("/thing", headers={"x-size": "large"} | payer.proof())
    assert (again.status_code, again.content) == (200, bought.content)
    assert again.json()["size"] == "small"
    assert seller.runs["thing"] == 1
    assert [transfer.amount for transfer in await seller.chain.transfers()] == [SMALL]


async def test_whoever_was_charged_is_served_though_the_price_has_changed_since(
    payer: Payer, seller: EvmSeller
) -> None:
    now = [usdc(SMALL)]
    sell(seller, lambda _: now[0])
    seller.fail_handler = 1
    assert (await payer.client.get("/thing")).status_code == 500
    now[0] = usdc(LARGE)
    [owed] = await seller.paywall.undelivered()
    assert owed.state is EntryState.CHARGED
    headers = dict(payer.wire.seen[-1].headers)  # the same client sends the same headers again
    async with seller.http() as client:
        assert (await client.get("/thing", headers=headers)).status_code == 200
