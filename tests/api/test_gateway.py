"""Calls to Temporal end in time, whatever it does."""

import asyncio
import time

from temporalio.client import Client as TemporalClient

from api.errors import Problem
from api.gateway import Gateway

TIMEOUT_SECONDS = 1.0


async def ask(gateway: Gateway) -> str:
    try:
        await gateway.snapshot("s")
    except Problem as problem:
        return problem.code
    return "answered"


async def test_those_who_wait_for_one_session_wait_no_longer_together() -> None:
    """Their queries go one after another; each one's time is counted from when it was asked."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    # A Temporal that takes connections and never answers.
    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        gateway = Gateway(await TemporalClient.connect(f"127.0.0.1:{port}", lazy=True), TIMEOUT_SECONDS)
        begin = time.monotonic()
        codes = await asyncio.gather(*(ask(gateway) for _ in range(8)))
    assert set(codes) == {"temporal-unavailable"}
    assert time.monotonic() - begin < 3 * TIMEOUT_SECONDS


async def test_a_process_that_was_started_while_temporal_was_away_says_so() -> None:
    gateway = Gateway(await TemporalClient.connect("127.0.0.1:1", lazy=True), TIMEOUT_SECONDS)
    assert await ask(gateway) == "temporal-unavailable"
