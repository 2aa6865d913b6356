"""How long to wait between attempts at something that keeps failing."""

import asyncio
import random


class Backoff:
    """Pauses that double up to a limit, with jitter, so that callers do not all come back together.

    >>> pauses = Backoff(0.1, 5.0)
    >>> await pauses.wait()  # doctest: +SKIP
    """

    def __init__(self, first_seconds: float, max_seconds: float) -> None:
        self._first, self._max = first_seconds, max_seconds
        self._next = first_seconds

    def reset(self) -> None:
        """Starts again with the first pause, after a success."""
        self._next = self._first

    async def wait(self, *, at_least_seconds: float = 0.0) -> None:
        """Waits for half the pause up to all of it, on top of what the server asked for (``Retry-After``)."""
        pause, self._next = self._next, min(self._next * 2, self._max)
        await asyncio.sleep(at_least_seconds + pause * (0.5 + random.random() / 2))  # noqa: S311
