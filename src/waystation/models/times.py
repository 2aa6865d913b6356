"""Points in time that come from outside, within bounds that no arithmetic of ours leaves."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""To Python's own last year, 9999, not even an hour can be added; Temporal counts 292 years at most."""


def check_instant(moment: datetime) -> datetime:
    """Returns a time that has an offset from UTC, if it is one that we can reckon with.

    Raises:
        ValueError: It is before ``EARLIEST`` or not before ``LATEST``.
    """
    if not EARLIEST <= moment < LATEST:
        raise ValueError(f"give a time from the year {EARLIEST.year} to the year {LATEST.year - 1}")
    return moment


def clamped(moment: datetime) -> datetime:
    """Returns a time that somebody else promised, moved to the nearest one that we can reckon with."""
    return max(EARLIEST, min(moment, LATEST - timedelta(seconds=1)))


Instant = Annotated[AwareDatetime, AfterValidator(check_instant)]
"""A time with its offset from UTC, in the years 2000 to 2199."""
