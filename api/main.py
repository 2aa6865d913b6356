"""The API process: puts the parts together. Run: ``waystation api``."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from api import errors
from api.answer_headers import AnswerHeaders
from api.auth import Authenticator
from api.dependencies import ApiParts
from api.gateways.money import MoneyGateway, MoneyParts
from api.gateways.sessions import Gateway
from api.live.bus import LiveBus, MemoryBus, RedisBus
from api.live.channels import Channels
from api.live.control import Control
from api.live.feeds import Feeds
from api.routes import (
    allowances,
    codec,
    console,
    ingest,
    mandates,
    operations,
    paid_requests,
    purchases,
    sessions,
    streams,
    tokens,
)
from waystation import __version__
from waystation.browser_guard import BrowserGuard
from waystation.proofs import signer_from
from waystation.settings import Settings
from waystation.temporal.connect import connect

logger = logging.getLogger(__name__)

MIN_COMPRESSED_BYTES = 1_024


def create_app(settings: Settings | None = None) -> FastAPI:
    """Returns the ASGI application, with ``settings`` or those of the environment."""
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as resources:
            app.state.parts = await _build(settings, resources)
            yield

    app = FastAPI(
        title="Waystation",
        version=__version__,
        summary="Durable sessions for AI agents, and agents that can pay.",
        lifespan=lifespan,
        # Their pages run scripts of a CDN, on the origin of the console's sign-in. The document itself stays.
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    app.add_middleware(AnswerHeaders)
    app.add_middleware(GZipMiddleware, minimum_size=MIN_COMPRESSED_BYTES)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(BrowserGuard, hosts=settings.allowed_hosts or None, origins=settings.allowed_origins)
    for part in (
        sessions,
        streams,
        ingest,
        tokens,
        mandates,
        purchases,
        paid_requests,
        allowances,
        codec,
        operations,
    ):
        app.include_router(part.router)
    console.install(app)
    return app


async def _build(settings: Settings, resources: AsyncExitStack) -> ApiParts:
    bus: LiveBus = RedisBus(settings.redis_url.get_secret_value()) if settings.redis_url else MemoryBus()
    await bus.start()
    resources.push_async_callback(bus.stop)
    # Lazily: while Temporal is down, the API still starts, and answers 503.
    client = await connect(settings, resources, lazy=True)
    gateway = Gateway(client, settings.temporal_timeout_seconds)
    signer = signer_from([key.get_secret_value() for key in settings.decision_keys])
    if signer is None:
        logger.warning(
            "WAYSTATION_DECISION_KEYS is not set: approvals and mandates count only where workers take "
            "unsigned ones. 'waystation sign new-key' makes a pair of keys."
        )
    money = MoneyGateway(client, settings.temporal_timeout_seconds, signer=signer)
    feeds = Feeds(gateway, bus, settings)
    await feeds.start()
    resources.push_async_callback(feeds.stop)
    return ApiParts(
        settings=settings,
        gateway=gateway,
        money=MoneyParts(gateway=money, settings=settings.money),
        bus=bus,
        feeds=feeds,
        channels=Channels(feeds, bus, gateway, settings),
        control=Control(feeds, bus, gateway, money),
        auth=Authenticator(settings, bus),
    )
