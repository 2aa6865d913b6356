"""Whole numbers in other people's text: the one way in which they are read.

``str.isdigit`` also takes digits such as ``²``, of which ``int`` makes nothing, and ``int`` refuses more than
4,300 digits: a check with the one before the other lets through what then raises.
"""

import re
from typing import Final

MAX_DIGITS: Final = 18
"""What fits into 64 bits, whatever the digits."""

_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)


def whole_number(text: str) -> int | None:
    """Returns the number that a text of 1 to ``MAX_DIGITS`` ASCII digits stands for, None for any other text.

    >>> whole_number("17"), whole_number("-1"), whole_number("²"), whole_number("9" * 19)
    (17, None, None, None)
    """
    return int(text) if len(text) <= MAX_DIGITS and _DIGITS.fullmatch(text) else None
