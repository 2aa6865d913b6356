"""How long to wait before trying again what has failed for a while."""

import asyncio
import random


class Backoff:
    """Pauses that double up to a limit, with jitter: after an outage everybody comes back, but not at once.

    >>> pauses = Backoff(0.1, 5.0)
    >>> await pauses.wait()  # doctest: +SKIP
    """

    def __init__(self, first_seconds: float, max_seconds: float) -> None:
        self._first, self._max = first_seconds, max_seconds
        self._next = first_seconds

    def reset(self) -> None:
        """It has worked: the next pause is the first again."""
        self._next = self._first

    async def wait(self, *, at_least_seconds: float = 0.0) -> None:
        """Waits half of the pause up to all of it, after what the server has asked for (``Retry-After``)."""
        pause, self._next = self._next, min(self._next * 2, self._max)
        await asyncio.sleep(at_least_seconds + pause * (0.5 + random.random() / 2))  # noqa: S311
