"""A seller in a FastAPI app: its routes, and its background work for as long as the app lives."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI

from waystation.seller.shop.kit import Kit
from waystation.seller.shop.routes import acp_router, discovery_router


class Seller(Kit):
    """A shop that agents can buy from.

    ``seller.mount(app)`` adds its routes to a FastAPI app and ties its background work (webhooks, recovery of
    interrupted payments, expiry) to the app's lifespan. Without an app: ``async with seller:``.
    """

    def mount(self, app: FastAPI, prefix: str = "") -> None:
        """Adds the routes. ``settings.base_url`` must be the public URL that ``prefix`` is reached under."""
        app.include_router(APIRouter(lifespan=self._lifespan))
        app.include_router(discovery_router(self))
        app.include_router(acp_router(self), prefix=prefix)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        async with self:
            yield
