"""Redis Streams: ``XADD`` by the writer, ``XREAD BLOCK`` by every subscriber, no server between."""

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
    """A Redis of its own, with its append-only file on, synced every second."""

    name = "Redis Streams"

    def __init__(self, port: int) -> None:
        self.port = port

    def skips(self, load: Load) -> str | None:
        """Nothing."""
        return None

    async def create(self, count: int) -> list[str]:
        """Names of new streams; Redis makes a stream when it is first written to."""
        return [uuid.uuid4().hex for _ in range(count)]

    def subscription(self, key: str) -> Subscription:
        """A subscriber that reads a stream from its beginning."""
        first = command("XREAD", "BLOCK", "0", "STREAMS", key, "0")
        return Subscription(self.port, first, producer.END, redis_key=key)

    async def write(self, keys: list[str], *, tokens: int = 0, words: list[str] | None = None) -> None:
        """Writes so many tokens at the usual rate, or the words at once, to each of the streams."""
        await producer.run(Plan("redis", self.port, keys, tokens, words))

    async def stream(self, load: Load) -> Readings:
        """Streams the load once."""
        keys = await self.create(load.streams)
        subscriptions = [self.subscription(key) for key in keys for _ in range(load.subscribers)]
        return await subscribed(subscriptions, load, lambda: self.write(keys, tokens=load.tokens))


def server(folder: Path, *options: str) -> AbstractContextManager[RedisServer]:
    """A Redis server for many clients; raises ``FileNotFoundError`` where there is none to start."""
    return running_redis(folder, "--maxclients", "10000", *options)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[RedisStreams]:
    """Starts it."""
    with server(folder, "--appendonly", "yes") as redis:
        yield RedisStreams(redis.port)
