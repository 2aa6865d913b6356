"""The sandbox's paid API: an ordinary use of the paywall, with every kind of price.

====================================  ===========================================================
``GET /v1/free``                      nothing
``GET /v1/reports/{topic}``           50 cents, by shared payment token
``POST /v1/summaries``                75 cents, by shared payment token, for a body
``GET /v1/quotes/{symbol}``           1,000 base units of test USDC (a tenth of a cent), by MPP or x402
``GET /v1/facts/{number}``            60 cents or 0.60 test USDC, as the payer chooses
``GET /v1/words?count=N``             N cents with a minimum of 50; nothing for ``count=0``
``GET /v1/archive?kilobytes=N``       50 cents, for an answer of that size
====================================  ===========================================================

It also serves the sandbox's x402 facilitator under ``/facilitator`` unless another
one is named, ``GET /sandbox/deliveries`` (how often each paid handler ran) and
``/sandbox/troubles`` (see ``waystation.sandbox.troubles``).

    python -m waystation.sandbox.paid_api --port 8791 --data .waystation/paid \\
        --processor http://127.0.0.1:8490
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final

import httpx
import stripe
from fastapi import FastAPI, Query, Request
from fastapi.responses import PlainTextResponse
from pydantic import Field

from waystation.models.base import Frozen
from waystation.models.money import Money
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.sandbox.facilitator import Chain, create_facilitator_app
from waystation.sandbox.serving import serve
from waystation.sandbox.troubles import TroubleMiddleware, Troubles
from waystation.seller.paywall import EvmRail, Paywall, StripeRail
from waystation.seller.paywall.journal import Journal, SqliteJournal
from waystation.seller.paywall.redis_journal import RedisJournal
from waystation.stripe_http import open_stripe

REALM: Final = "paid-api.sandbox"
SELLER_KEY: Final = "sk_test_paid_api"
NETWORK_ID: Final = "profile_test_paid_api"
"""The profile that shared payment tokens for this API are issued to."""
RECIPIENT: Final = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
RECONCILE_SECONDS: Final = 10
MIN_CENTS: Final = 50
MAX_SUMMARY_CHARACTERS: Final = 100_000
MAX_ARCHIVE_KILOBYTES: Final = 8_000


def cents(amount: int) -> Money:
    """US cents."""
    return Money(amount=amount, currency="usd")


def usdc(base_units: int) -> Money:
    """Test USDC on Base Sepolia, six decimals."""
    return Money(amount=base_units, currency=USDC_BASE_SEPOLIA.currency)


class SummaryRequest(Frozen):
    """A text to shorten."""

    text: str = Field(min_length=1, max_length=MAX_SUMMARY_CHARACTERS)


class Answer(Frozen):
    """What every priced route returns: its name, and which run of the handler this was."""

    subject: str
    content: str
    run: int


def _price_of_words(request: Request) -> Money | None:
    count = int(request.query_params.get("count", "0"))
    return cents(max(count, MIN_CENTS)) if count > 0 else None


def create_app(
    data: Path,
    *,
    processor: stripe.StripeClient,
    facilitator_url: str | None = None,
    rpc_url: str | None = None,
    redis_url: str | None = None,
    lease_seconds: float = 15,
) -> FastAPI:
    """Returns the paid API with its journal in ``data``, charging through ``processor``."""
    data.mkdir(parents=True, exist_ok=True)
    chain = Chain(data / "chain.sqlite3")
    facilitator = create_facilitator_app(chain)
    journal: Journal = RedisJournal(redis_url) if redis_url else SqliteJournal(data / "paywall.sqlite3")
    paywall = Paywall(
        realm=REALM,
        secret_key=_secret(data / "paywall.key"),
        journal=journal,
        rails=[
            StripeRail(processor, network_id=NETWORK_ID),
            EvmRail(
                USDC_BASE_SEPOLIA,
                recipient=RECIPIENT,
                facilitator_url=facilitator_url or "http://facilitator.internal",
                client=None if facilitator_url else _inside(facilitator),
                rpc_url=rpc_url if facilitator_url else "http://facilitator.internal/rpc",
            ),
        ],
        lease_seconds=lease_seconds,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        reconciling = asyncio.create_task(_reconcile(paywall))
        try:
            yield
        finally:
            reconciling.cancel()
            await paywall.close()
            await chain.close()

    app = FastAPI(title="Waystation sandbox paid API", lifespan=lifespan)
    troubles = Troubles()
    app.state.paywall, app.state.chain, app.state.runs = paywall, chain, Counter[str]()
    _add_routes(app, paywall)
    app.include_router(troubles.router())
    app.mount("/facilitator", facilitator)
    app.add_middleware(TroubleMiddleware, troubles=troubles)
    return app


def _add_routes(app: FastAPI, paywall: Paywall) -> None:
    runs: Counter[str] = app.state.runs

    def answer(subject: str, content: str) -> Answer:
        runs[subject] += 1
        return Answer(subject=subject, content=content, run=runs[subject])

    @app.get("/v1/free")
    async def free() -> Answer:
        return answer("free", "This costs nothing.")

    @app.get("/v1/reports/{topic}")
    @paywall.charge(cents(50))
    async def report(topic: str) -> Answer:
        return answer(f"reports/{topic}", f"All there is to know about {topic}.")

    @app.post("/v1/summaries")
    @paywall.charge(cents(75))
    async def summary(wanted: SummaryRequest) -> Answer:
        digest = hashlib.sha256(wanted.text.encode()).hexdigest()[:12]
        return answer(f"summaries/{digest}", wanted.text[:80])

    @app.get("/v1/quotes/{symbol}")
    @paywall.charge(usdc(1_000))
    async def quote(symbol: str) -> Answer:
        return answer(f"quotes/{symbol}", f"{symbol} stands at 42.")

    @app.get("/v1/facts/{number}")
    @paywall.charge([cents(60), usdc(600_000)])
    async def fact(number: int) -> Answer:
        return answer(f"facts/{number}", f"{number} is a number.")

    @app.get("/v1/words")
    @paywall.charge(_price_of_words)
    async def words(count: Annotated[int, Query(ge=0, le=10_000)] = 0) -> Answer:
        return answer(f"words/{count}", " ".join(["word"] * count))

    @app.get("/v1/archive")
    @paywall.charge(cents(50))
    async def archive(
        kilobytes: Annotated[int, Query(ge=1, le=MAX_ARCHIVE_KILOBYTES)] = 1,
    ) -> PlainTextResponse:
        runs[f"archive/{kilobytes}"] += 1
        return PlainTextResponse("x" * (kilobytes * 1024))

    @app.get("/sandbox/deliveries", tags=["sandbox"])
    async def deliveries() -> dict[str, int]:
        return dict(runs)

    @app.get("/sandbox/health", tags=["sandbox"])
    async def health() -> dict[str, str]:
        return {"status": "ok"}


async def _reconcile(paywall: Paywall) -> None:
    while True:
        await asyncio.sleep(RECONCILE_SECONDS)
        await paywall.reconcile()


def _inside(facilitator: FastAPI) -> httpx.AsyncClient:
    """Returns a client of the facilitator in this process, which needs no socket."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(facilitator))


def _secret(path: Path) -> str:
    """Returns the paywall's key. It is stored, so that challenges stay valid after a restart."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    key = secrets.token_hex(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return key


def main() -> None:
    """Serves the paid API."""
    parser = argparse.ArgumentParser(description="Waystation's sandbox paid API")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the journal and the chain")
    parser.add_argument("--processor", required=True, help="URL of the sandbox processor (or Stripe)")
    parser.add_argument("--facilitator", help="URL of an x402 facilitator; the sandbox's own without it")
    parser.add_argument("--rpc", help="JSON-RPC endpoint of that facilitator's chain, to look payments up")
    parser.add_argument("--redis", help="Redis URL for the journal, to run several processes")
    parser.add_argument("--lease-seconds", type=int, default=15)
    options = parser.parse_args()
    processor, _ = open_stripe(SELLER_KEY, api_base=options.processor)
    app = create_app(
        options.data,
        processor=processor,
        facilitator_url=options.facilitator,
        rpc_url=options.rpc,
        redis_url=options.redis,
        lease_seconds=options.lease_seconds,
    )
    serve(app, options.port)


if __name__ == "__main__":
    main()
