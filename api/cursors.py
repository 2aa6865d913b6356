"""Cursors as callers give them: the ``seq`` of the last event that they have seen."""

from api.errors import Invalid
from waystation.whole_numbers import whole_number


def read_cursor(given: str) -> int:
    """Returns the cursor that a text stands for: ASCII digits, nothing else.

    >>> read_cursor("17")
    17

    Raises:
        Invalid: It stands for none (``wrong-cursor``).
    """
    cursor = whole_number(given)
    if cursor is None:
        raise Invalid(
            f"The cursor '{given[:40]}' is not a number; use the seq of the last event.", code="wrong-cursor"
        )
    return cursor
