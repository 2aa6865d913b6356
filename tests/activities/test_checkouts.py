"""Where calls to sellers may go, and what they may carry."""

from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.checkouts import CheckoutActivities, SellerCredentials, segment
from activities.contract import OpenCheckout
from activities.failures import SELLER_REFUSED
from tests.world.keys import VAULT
from waystation.buyer.networks import checked_client
from waystation.models.purchases import PurchaseRequest

CREDENTIALS = SellerCredentials({}, default=SecretStr("key"))


def opening(seller: str) -> OpenCheckout:
    request = PurchaseRequest.model_validate(
        {
            "mandate_id": "mandate-1",
            "seller": seller,
            "currency": "usd",
            "items": [{"id": "mug", "quantity": 1}],
            "agent": {"id": "shopper"},
        }
    )
    return OpenCheckout(request=request, purchase_id="p", idempotency_key="k")


@pytest.mark.parametrize("seller", ["http://127.0.0.1:1", "https://localhost:1", "https://169.254.169.254"])
async def test_a_seller_in_a_private_network_is_refused_for_good(seller: str) -> None:
    async with checked_client() as http:
        activities = CheckoutActivities(http, CREDENTIALS, VAULT)
        with pytest.raises(ApplicationError) as refused:
            await ActivityEnvironment().run(activities.open_checkout, opening(seller))
    assert refused.value.type == SELLER_REFUSED
    assert refused.value.non_retryable
    assert refused.value.details[0] == "private_address"


async def test_what_a_seller_remembers_of_one_buyer_is_not_sent_for_another() -> None:
    app, cookies = FastAPI(), list[str | None]()

    @app.get("/.well-known/acp.json")
    async def discovery(request: Request) -> Response:
        cookies.append(request.headers.get("cookie"))
        return Response(status_code=503, headers={"set-cookie": "cart=alice; Path=/"})

    async with checked_client(transport=httpx.ASGITransport(app)) as http:
        activities = CheckoutActivities(http, CREDENTIALS, VAULT)
        for _ in range(2):
            with pytest.raises(ApplicationError):
                await ActivityEnvironment().run(activities.open_checkout, opening("https://shop.test"))
    assert cookies == [None, None]


@pytest.mark.parametrize(
    ("status", "asked_at_the_origin"),
    [
        (401, True),
        (403, True),
        (404, True),
        (405, True),
        (410, True),
        (400, False),
        (429, False),
        (500, False),
    ],
)
async def test_a_seller_without_a_discovery_document_is_asked_at_its_origin(
    status: int, asked_at_the_origin: bool
) -> None:
    app, created = FastAPI(), list[str]()

    @app.get("/.well-known/acp.json")
    async def discovery() -> Response:
        return Response(status_code=status)

    @app.post("/checkout_sessions")
    async def create(request: Request) -> Response:
        created.append(str(request.url))
        return Response(status_code=503)

    async with checked_client(transport=httpx.ASGITransport(app)) as http:
        activities = CheckoutActivities(http, CREDENTIALS, VAULT)
        with pytest.raises(ApplicationError):
            await ActivityEnvironment().run(activities.open_checkout, opening("https://shop.test"))
    assert created == (["https://shop.test/checkout_sessions"] if asked_at_the_origin else [])


@given(st.text(min_size=1, max_size=255, alphabet=st.characters(exclude_categories=["Cs"])))
@example("a\nb")
@example("../../admin?x=#")
@example("..")
@example("a/../b")
@example("%2F")
def test_a_sellers_id_is_one_segment_of_the_path_whatever_it_holds(checkout_id: str) -> None:
    path = httpx.URL(f"https://shop.test/checkout_sessions/{segment(checkout_id)}/complete").raw_path.decode()
    assert [unquote(part) for part in path.split("/")] == ["", "checkout_sessions", checkout_id, "complete"]
