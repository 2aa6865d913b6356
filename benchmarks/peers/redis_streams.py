"""Redis Streams: ``XADD`` by the writer, ``XREAD BLOCK`` by every subscriber, without a server in between."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from benchmarks.peers import producer
from benchmarks.peers.producer import Plan
from benchmarks.readers import Readings, Subscription
from benchmarks.resp import command
from benchmarks.streaming import Load, subscribed
from tests.world.redis import RedisServer, running_redis


class RedisStreams:
    """A Redis server with its append-only file on, synced every second."""

    name = "Redis Streams"

    def __init__(self, port: int) -> None:
        self.port = port

    def skips(self, load: Load) -> str | None:
        """Returns ``None``: every load is measured."""
        return None

    async def create(self, count: int) -> list[str]:
        """Returns names for new streams; Redis creates a stream at the first write."""
        return [uuid.uuid4().hex for _ in range(count)]

    def subscription(self, key: str) -> Subscription:
        """Returns a subscription that reads a stream from its beginning."""
        first = command("XREAD", "BLOCK", "0", "STREAMS", key, "0")
        return Subscription(self.port, first, producer.END, redis_key=key)

    async def write(self, keys: list[str], *, tokens: int = 0, words: list[str] | None = None) -> None:
        """Writes tokens at the usual rate, or all the words immediately, to each of the streams."""
        await producer.run(Plan("redis", self.port, keys, tokens, words))

    async def stream(self, load: Load) -> Readings:
        """Streams the load once."""
        keys = await self.create(load.streams)
        subscriptions = [self.subscription(key) for key in keys for _ in range(load.subscribers)]
        return await subscribed(subscriptions, load, lambda: self.write(keys, tokens=load.tokens))


def server(folder: Path, *options: str) -> AbstractContextManager[RedisServer]:
    """Starts a Redis server for many clients. Raises ``FileNotFoundError`` if Redis is not installed."""
    return running_redis(folder, "--maxclients", "10000", *options)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RedisStreams]:
    """Starts the server."""
    with server(folder, "--appendonly", "yes") as redis:
        yield RedisStreams(redis.port)
