"""Redis Streams: ``XADD`` by the writer, ``XREAD BLOCK`` by every subscriber, no server between."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.peers import producer
from benchmarks.readers import Readings, Subscription
from benchmarks.resp import command
from benchmarks.streaming import RATE_PER_SECOND, Load, subscribed
from tests.support import Process, eventually, free_port, redis_server


class RedisStreams:
    """A Redis of its own, with its append-only file on, synced every second."""

    name = "Redis Streams"

    def __init__(self, port: int) -> None:
        self.port = port

    def skips(self, load: Load) -> str | None:
        """Nothing."""
        return None

    def subscription(self, key: str) -> Subscription:
        """A subscriber that reads a stream from its beginning."""
        first = command("XREAD", "BLOCK", "0", "STREAMS", key, "0")
        return Subscription(self.port, first, producer.END, redis_key=key)

    async def write(self, keys: list[str], tokens: int, rate_per_second: int = RATE_PER_SECOND) -> None:
        """Writes tokens to each of the streams."""
        await producer.run("redis", self.port, keys, tokens, rate_per_second)

    async def stream(self, load: Load) -> Readings:
        """Streams the load once."""
        keys = [uuid.uuid4().hex for _ in range(load.streams)]
        subscriptions = [self.subscription(key) for key in keys for _ in range(load.subscribers)]
        return await subscribed(subscriptions, load, lambda: self.write(keys, load.tokens))


@asynccontextmanager
async def server(folder: Path, *options: str) -> AsyncIterator[tuple[Process, int]]:
    """A Redis server; raises ``FileNotFoundError`` where there is none to start."""
    binary = redis_server()
    if binary is None:
        raise FileNotFoundError("redis-server is not installed")
    port = free_port()
    process = Process(
        binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder),
        "--maxclients", "10000", *options, log=folder / f"redis-{port}.log",
    )  # fmt: skip
    redis = Redis(port=port)

    async def answers() -> bool:
        try:
            return bool(await redis.ping())
        except OSError:
            return False
        except Exception as error:
            return not type(error).__module__.startswith("redis")

    try:
        await eventually(answers, within=10)
        yield process, port
    finally:
        await redis.aclose()
        process.kill()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RedisStreams]:
    """Starts it."""
    async with server(folder, "--appendonly", "yes") as (_, port):
        yield RedisStreams(port)
