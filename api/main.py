"""The API process: puts the parts together. Run: ``waystation api``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from api import errors
from api.auth import Authenticator
from api.body_limit import BodyLimit
from api.dependencies import ApiParts, Parts
from api.gateways.sessions import Gateway
from api.live import channels as ingest
from api.live.bus import LiveBus, MemoryBus, RedisBus
from api.live.channels import Channels
from api.live.feeds import Feeds
from api.routes import (
    allowances,
    codec,
    console,
    mandates,
    paid_requests,
    purchases,
    sessions,
    streams,
    tokens,
)
from waystation import __version__
from waystation.settings import Settings
from waystation.temporal.connect import connect

READY_TIMEOUT_SECONDS = 2.0
MIN_COMPRESSED_BYTES = 1_024


def create_app(settings: Settings | None = None) -> FastAPI:
    """The ASGI application, with ``settings`` or those of the environment."""
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
    )
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(GZipMiddleware, minimum_size=MIN_COMPRESSED_BYTES)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
        )
    for part in (sessions, streams, ingest, tokens, mandates, purchases, paid_requests, allowances, codec):
        app.include_router(part.router)
    app.include_router(_operations())
    console.install(app)
    return app


async def _build(settings: Settings, resources: AsyncExitStack) -> ApiParts:
    bus: LiveBus = RedisBus(settings.redis_url.get_secret_value()) if settings.redis_url else MemoryBus()
    await bus.start()
    resources.push_async_callback(bus.stop)
    # Lazily: the API answers 503 while Temporal is down, and starts while it is.
    client = await connect(settings, resources, lazy=True)
    gateway = Gateway(client, settings.temporal_timeout_seconds)
    feeds = Feeds(gateway, bus, settings)
    await feeds.start()
    resources.push_async_callback(feeds.stop)
    return ApiParts(
        settings=settings,
        gateway=gateway,
        bus=bus,
        feeds=feeds,
        channels=Channels(feeds, bus, gateway, settings),
        auth=Authenticator(settings, bus),
    )


def _operations() -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/health", summary="Is the process alive")
    async def health() -> dict[str, str]:
        """Answers as long as the process does."""
        return {"status": "ok"}

    @router.get(
        "/ready", summary="Can it serve", responses={503: {"description": "Temporal can't be reached"}}
    )
    async def ready(parts: Parts, response: Response) -> dict[str, bool]:
        """Whether Temporal answers; the live bus is told too, but its loss only costs latency."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                temporal = await parts.gateway.client.service_client.check_health()
        except Exception:
            temporal = False
        response.status_code = 200 if temporal else 503
        return {"temporal": temporal, "live_bus": parts.bus.healthy}

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def prometheus() -> Response:
        """Counters and gauges of this process in Prometheus' text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
