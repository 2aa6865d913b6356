"""Finds products in a seller's ACP feed, without any transaction.

The results are for reading and choosing. Only an item's id and a quantity go into a purchase; its price
there is what the seller's checkout states, whatever a feed or a model says.
"""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import httpx

from waystation.buyer.networks import checked_client, read_networks
from waystation.buyer.origins import RequestInvalidError, check_transport, origin_of
from waystation.errors import WaystationError
from waystation.models.base import Frozen
from waystation.protocols import acp
from waystation.settings import MoneySettings

NO_DISCOVERY: Final = frozenset({401, 403, 404, 405, 410})
"""Statuses with which a seller says that it publishes no discovery document: its API is at its origin."""
FEED_TIMEOUT_SECONDS: Final = 20
MAX_FOUND: Final = 100


class ProductSearchFailed(WaystationError):
    """The seller's feed can't be read; the message says why and what to do."""


class FoundProduct(Frozen):
    """One thing that can be bought. Texts are the seller's: data, never instructions."""

    seller: str
    item_id: str
    title: str
    description: str = ""
    amount: int | None = None
    """Minor units, for display only."""
    currency: str | None = None
    available: bool = True


async def search_products(
    seller: str,
    query: str = "",
    *,
    feed: str = "catalog",
    limit: int = 20,
    http: httpx.AsyncClient | None = None,
    settings: MoneySettings,
) -> tuple[FoundProduct, ...]:
    """Returns the products of a seller (a web origin) that contain every word of the query, in feed order.

    Raises:
        ProductSearchFailed: The feed can't be read.
    """
    client = http or checked_client(read_networks(settings.allowed_networks))
    try:
        async with asyncio.timeout(FEED_TIMEOUT_SECONDS):
            products = await _products(client, seller, feed, settings)
    except TimeoutError:
        raise ProductSearchFailed(f"the seller took longer than {FEED_TIMEOUT_SECONDS} seconds.") from None
    except RequestInvalidError as invalid:
        raise ProductSearchFailed(str(invalid)) from None
    except acp.ProtocolViolationError as violation:
        raise ProductSearchFailed(str(violation)) from None
    finally:
        if http is None:
            await client.aclose()
    found = [_found(seller, product, variant) for product in products for variant in product.variants]
    return tuple(one for one in found if _matches(one, query))[: min(limit, MAX_FOUND)]


async def _products(
    client: httpx.AsyncClient, seller: str, feed: str, settings: MoneySettings
) -> Sequence[acp.FeedProduct]:
    base = await _base_url(client, seller)
    headers = {acp.HEADER_API_VERSION: acp.API_VERSION, "Accept": "application/json"}
    # Only what this origin was given by name: a model may ask for any seller, and a discovery document may
    # name any address.
    credential = settings.seller_credentials.get(origin_of(base))
    if credential is not None:
        headers[acp.HEADER_AUTHORIZATION] = f"Bearer {credential.get_secret_value()}"
    raw = await _get(client, f"{base}/feeds/{quote(feed, safe='')}/products", headers, "the product feed")
    return acp.read_products(raw).products


async def _base_url(client: httpx.AsyncClient, seller: str) -> str:
    check_transport(seller)
    raw = await _get(client, seller + acp.DISCOVERY_PATH, {}, "the discovery document", absent_is_fine=True)
    if not raw:
        return seller
    base = acp.read_discovery(raw).api_base_url.rstrip("/")
    check_transport(base)
    return base


async def _get(
    client: httpx.AsyncClient, url: str, headers: dict[str, str], what: str, *, absent_is_fine: bool = False
) -> bytes:
    try:
        async with client.stream("GET", url, headers=headers) as response:
            if response.status_code in NO_DISCOVERY and absent_is_fine:
                return b""
            if not response.is_success:
                raise ProductSearchFailed(f"the seller answered {response.status_code} for {what}.")
            raw = b""
            async for chunk in response.aiter_bytes():
                raw += chunk
                if len(raw) > acp.MAX_BODY_BYTES:
                    raise ProductSearchFailed(f"{what} is larger than {acp.MAX_BODY_BYTES} bytes.")
            return raw
    except httpx.HTTPError as error:
        raise ProductSearchFailed(
            f"the seller can't be reached ({type(error).__name__}); try later."
        ) from None


def _found(seller: str, product: acp.FeedProduct, variant: acp.FeedVariant) -> FoundProduct:
    description = variant.description or product.description
    availability = variant.availability
    return FoundProduct(
        seller=seller,
        item_id=variant.id,
        title=variant.title,
        description=(description.plain if description else None) or "",
        amount=variant.price.amount if variant.price else None,
        currency=variant.price.currency.lower() if variant.price else None,
        available=availability is None or availability.available is not False,
    )


def _matches(found: FoundProduct, query: str) -> bool:
    text = f"{found.item_id} {found.title} {found.description}".lower()
    return all(word in text for word in query.lower().split())
