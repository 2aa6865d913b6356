"""One of several processes of a paid API that share a Redis journal, for tests.

python -m tests.seller.paywall.replica_process --port 8000 --redis redis://… --facilitator http://…
"""

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from tests.seller.paywall.support import REALM, RECIPIENT, SECRET, usdc
from tests.world.uvicorn import serve
from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA
from waystation.seller.paywall import EvmRail, Paywall
from waystation.seller.paywall.redis_journal import RedisJournal

WORK_SECONDS = 1.5
"""Longer than the lease: a worker that doesn't renew it loses its payment to the other process."""
LEASE_SECONDS = 0.6


def create_app(options: argparse.Namespace) -> FastAPI:
    rail = EvmRail(USDC_BASE_SEPOLIA, recipient=RECIPIENT, facilitator_url=options.facilitator)
    paywall = Paywall(
        realm=REALM,
        secret_key=SECRET,
        journal=RedisJournal(options.redis, prefix=options.prefix),
        rails=[rail],
        lease_seconds=LEASE_SECONDS,
    )
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {}

    @app.get("/report")
    @paywall.charge(usdc(1_000))
    async def report() -> dict[str, Any]:
        with options.runs.open("a") as file:
            file.write(f"{os.getpid()}\n")
        await asyncio.sleep(WORK_SECONDS)
        return {"by": os.getpid()}

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    for name in ("redis", "prefix", "facilitator"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    serve(create_app(options), options.port)


if __name__ == "__main__":
    main()
