"""Redis, where it is installed."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import START_SECONDS, eventually, free_port
from tests.world.process import Process

REDIS = shutil.which("redis-server")
NO_REDIS = "redis-server is not installed (Debian: apt-get install redis-server)"


class RedisServer(Process):
    """Keeps what its options say; nothing by default."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__(
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            *options, log=folder / "redis.log",
        )  # fmt: skip

    async def ready(self) -> None:
        async with Redis(port=self.port) as redis:

            async def answers() -> bool:
                try:
                    return bool(await redis.ping())
                except (RedisConnectionError, BusyLoadingError):
                    return False

            await eventually(answers, within=START_SECONDS, what=f"Redis answers\n{self.output}")


@asynccontextmanager
async def running_redis(folder: Path, *options: str) -> AsyncIterator[RedisServer]:
    """A server that answers.

    Raises:
        FileNotFoundError: There is none to start.
    """
    if REDIS is None:
        raise FileNotFoundError(NO_REDIS)
    with RedisServer(REDIS, folder, *options) as server:
        await server.ready()
        yield server
