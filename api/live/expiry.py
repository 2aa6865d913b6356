"""Looking at the right moment whether something has expired: a workflow's own clock tells nobody."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

SETTLED_WITHIN_SECONDS: Final = 0.5
"""So long after a deadline it is looked whether something has expired."""
OVERDUE_SECONDS: Final = 10.0
"""What is still there after this, whose worker is away perhaps, is left to the polls."""


def look_after(deadlines: Iterable[datetime], look: Callable[[], object]) -> asyncio.TimerHandle | None:
    """Calls ``look`` once, soon after the first of these deadlines; ``None`` if there is none to come."""
    now = datetime.now(UTC)
    left = [(deadline - now).total_seconds() for deadline in deadlines]
    if not (coming := [seconds for seconds in left if seconds > -OVERDUE_SECONDS]):
        return None
    return asyncio.get_running_loop().call_later(max(min(coming), 0.0) + SETTLED_WITHIN_SECONDS, look)
