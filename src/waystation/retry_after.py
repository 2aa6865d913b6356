"""``Retry-After``: how long a server asks everybody to wait."""

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
