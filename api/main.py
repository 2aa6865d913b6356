"""The API process: puts the parts together. Run: ``waystation api``."""

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from api import errors
from api.answer_headers import AnswerHeaders
from api.auth import Authenticator, check_credentials
from api.dependencies import ApiParts
from api.gateways.attention import AttentionGateway
from api.gateways.index import SearchIndex
from api.gateways.money import MoneyGateway, MoneyParts
from api.gateways.push import PushGateway
from api.gateways.sessions import Gateway
from api.gateways.webhooks import WebhookGateway
from api.live.attention import AttentionBoard
from api.live.bus import LiveBus, MemoryBus, RedisBus
from api.live.channels import Channels
from api.live.connected import ConnectedAgents
from api.live.control import Control
from api.live.feeds import Feeds
from api.live.push import PushDesk
from api.routes import (
    agents,
    allowances,
    approvals,
    attention,
    codec,
    console,
    dev,
    ingest,
    mandates,
    operations,
    paid_requests,
    purchases,
    push,
    questions,
    sessions,
    streams,
    tokens,
    webhooks,
)
from waystation import __version__
from waystation.browser_guard import BrowserGuard
from waystation.errors import NotNowError, StartError
from waystation.proofs import signer_from
from waystation.settings import Settings, read_settings
from waystation.temporal.connect import connect
from waystation.temporal.search_attributes import keys_of

logger = logging.getLogger(__name__)

MIN_COMPRESSED_BYTES = 1_024
UNFINISHED_SECONDS = 2
"""What requests may still take when the process is told to end: it is to be gone within 3."""


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
            expose_headers=["Retry-After", "Date"],
        )
    app.add_middleware(BrowserGuard, hosts=settings.allowed_hosts or None, origins=settings.allowed_origins)
    for part in (
        sessions,
        agents,
        streams,
        ingest,
        tokens,
        questions,
        mandates,
        purchases,
        paid_requests,
        allowances,
        approvals,
        attention,
        push,
        webhooks,
        codec,
        operations,
    ):
        app.include_router(part.router)
    dev.install(app, settings)
    console.install(app)
    return app


async def serve(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM.

    What the application needs is opened here and not by the server, which would log why it can't start, and
    hide it from whoever started it.

    Raises:
        StartError: A setting is wrong, or something that it needs can't be had.
    """
    check_credentials(settings)
    await _check_address(settings.host, settings.port)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        log_level="warning",
        access_log=False,
        # Longer than clients and load balancers keep a connection, so that no request meets one being closed.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=UNFINISHED_SECONDS,
        ws_per_message_deflate=False,
        ws_max_size=16 * 1024 * 1024,
    )
    async with app.router.lifespan_context(app):
        await _Server(config).serve()


class _Server(uvicorn.Server):
    """Ends in order, and lets what it was given end in order too."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the server at a signal; uvicorn's own way raises the signal again before ``serve`` returns."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _check_address(host: str, port: int) -> None:
    """Raises ``StartError`` if the API can't listen there, before anything is opened for it."""
    where = f"{host}:{port} (WAYSTATION_HOST, WAYSTATION_PORT)"
    try:
        probe = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, host, port, start_serving=False
        )
    except socket.gaierror:
        raise StartError(f"the API can't listen on {where}: the host's name has no address.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NotNowError(
                f"the API can't listen on {where}: the port is in use. Choose another, or end what uses it."
            ) from None
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StartError(f"the API can't listen on {where}: {why}.") from None
    probe.close()
    await probe.wait_closed()


def main() -> None:
    """Entry point of ``waystation api``."""
    uvloop.run(serve(read_settings()))


async def _build(settings: Settings, resources: AsyncExitStack) -> ApiParts:
    bus: LiveBus = RedisBus(settings.redis_url.get_secret_value()) if settings.redis_url else MemoryBus()
    await bus.start()
    resources.push_async_callback(bus.stop)
    # Lazily: while Temporal is down, the API still starts, and answers 503.
    client = await connect(settings, resources, lazy=True)
    signer = signer_from([key.get_secret_value() for key in settings.decision_keys])
    if signer is None:
        logger.warning(
            "WAYSTATION_DECISION_KEYS is not set: approvals and mandates count only where workers take "
            "unsigned ones. 'waystation sign new-key' makes a pair of keys."
        )
    index = SearchIndex(client, keys_of([key.get_secret_value() for key in settings.encryption_keys]))
    gateway = Gateway(client, settings.temporal_timeout_seconds, signer=signer, index=index)
    money = MoneyGateway(client, settings.temporal_timeout_seconds, signer=signer, index=index)
    feeds = Feeds(gateway, bus, settings)
    await feeds.start()
    resources.push_async_callback(feeds.stop)
    board = AttentionBoard(AttentionGateway(gateway, money), bus, settings)
    resources.push_async_callback(board.stop)
    desk = PushDesk(board, PushGateway(client, settings.temporal_timeout_seconds), settings)
    desk.start()
    resources.push_async_callback(desk.stop)
    return ApiParts(
        settings=settings,
        gateway=gateway,
        money=MoneyParts(gateway=money, settings=settings.money),
        webhooks=WebhookGateway(client, settings.temporal_timeout_seconds),
        push=desk,
        bus=bus,
        feeds=feeds,
        channels=Channels(feeds, bus, gateway, settings),
        control=Control(feeds, bus, gateway, money),
        attention=board,
        connected_agents=ConnectedAgents(bus),
        auth=Authenticator(settings, bus),
    )
