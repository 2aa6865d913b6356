"""How long to wait between attempts at something that keeps failing."""

import asyncio
import random
from datetime import timedelta
from typing import Final

from waystation.whole_numbers import whole_number

MAX_RETRY_AFTER_SECONDS: Final = 300
"""No server makes anybody wait longer."""


def retry_after(header: str | None) -> timedelta | None:
    """Returns how long ``Retry-After`` asks to wait, bounded; dates and invalid values count as absent.

    >>> retry_after(" 2 "), retry_after("86400"), retry_after("²")
    (datetime.timedelta(seconds=2), datetime.timedelta(seconds=300), None)
    """
    seconds = None if header is None else whole_number(header.strip())
    return None if seconds is None else timedelta(seconds=min(seconds, MAX_RETRY_AFTER_SECONDS))


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
