"""Cursors as callers give them: the ``seq`` of the last event that they have seen."""

from api.errors import Invalid

MAX_CURSOR_DIGITS = 18


def read_cursor(given: str) -> int:
    """Returns the cursor that a text stands for: ASCII digits, nothing else.

    >>> read_cursor("17")
    17

    Raises:
        Invalid: It stands for none (``wrong-cursor``).
    """
    if not given.isascii() or not given.isdigit() or len(given) > MAX_CURSOR_DIGITS:
        raise Invalid(
            f"The cursor '{given[:40]}' is not a number; use the seq of the last event.", code="wrong-cursor"
        )
    return int(given)
