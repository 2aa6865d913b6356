"""Redis, where it is installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import START_SECONDS, free_port, wait_until
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

    def wait(self) -> Self:
        """Waits until it answers."""
        with Redis(port=self.port) as redis:
            wait_until(partial(self._answers, redis), f"Redis answers\n{self.output}", START_SECONDS)
        return self

    def _answers(self, redis: Redis) -> bool:
        assert not self.ended, f"Redis has ended:\n{self.output}"
        try:
            return bool(redis.ping())
        except (RedisConnectionError, BusyLoadingError):
            return False


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Starts a server, yields it once it answers, and kills it.

    Raises:
        FileNotFoundError: There is none to start.
    """
    if REDIS is None:
        raise FileNotFoundError(NO_REDIS)
    with RedisServer(REDIS, folder, *options) as server:
        yield server.wait()
