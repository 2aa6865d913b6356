"""The one way in which JSON from outside is read: bounded in depth, strict, and safe for the process.

``json.loads`` recurses once for each level; a document of 70,000 brackets can end a process whose recursion
limit some library has raised. The parser used here stops by itself at 200 levels, whatever that limit is.
"""

import math
import re
from collections.abc import Sequence
from typing import Final, TypeVar

from pydantic import JsonValue
from pydantic_core import from_json

MAX_NESTING: Final = 32
"""Arrays and objects within one another. Envelopes add a few levels; parsers on the way stop at 200."""

Value = TypeVar("Value")


class ForeignJsonError(ValueError):
    """A text from outside is not JSON, or is nested too deeply."""


def read_json(raw: bytes | str, *, allow_nan: bool = False) -> JsonValue:
    """Returns a document as Python values. Refuses NaN and infinities, and half a surrogate pair.

    Infinite is also a number that no float can hold, as ``1e999``: to take it would be to change it.

    ``allow_nan`` takes NaN and infinities: to find the id of what is then refused.

    >>> read_json(b'{"a": [1, 2]}')
    {'a': [1, 2]}
    >>> read_json("[" * 70_000)
    Traceback (most recent call last):
    ...
    waystation.foreign_json.ForeignJsonError: nested more than 32 levels deep

    Raises:
        ForeignJsonError: It is not JSON, or is nested more than ``MAX_NESTING`` levels deep.
    """
    try:
        value: JsonValue = from_json(raw, allow_inf_nan=allow_nan)
    except ValueError as error:
        if "recursion" in str(error):
            raise ForeignJsonError(_TOO_DEEP) from None
        raise ForeignJsonError(f"not a JSON document: {error}") from None
    if not allow_nan and _may_overflow(raw) and _has_infinity(value):
        raise ForeignJsonError("not a JSON document: number out of range")
    openings = raw.count("[") + raw.count("{") if isinstance(raw, str) else raw.count(b"[") + raw.count(b"{")
    return check_nesting(value) if openings > MAX_NESTING else value


def _may_overflow(raw: bytes | str) -> bool:
    """Returns whether a number in it may be too large; only then is the document looked through."""
    return (_LARGE.search(raw) if isinstance(raw, str) else _LARGE_BYTES.search(raw)) is not None


def _has_infinity(value: JsonValue) -> bool:
    level: Sequence[object] = [value]
    while level:
        if any(isinstance(one, float) and math.isinf(one) for one in level):
            return True
        level = [inner for container in level for inner in _inside(container)]
    return False


def check_nesting(value: Value) -> Value:
    """Returns the value, if nothing in it is nested more than ``MAX_NESTING`` levels deep.

    Raises:
        ForeignJsonError: It is.
    """
    level: Sequence[object] = [value]
    for _ in range(MAX_NESTING + 1):
        level = [inner for container in level for inner in _inside(container)]
        if not level:
            return value
    raise ForeignJsonError(_TOO_DEEP)


def check_numbers(value: Value) -> Value:
    """Returns the value, if every number in it is one that JSON can say.

    Raises:
        ForeignJsonError: There is NaN, or an infinity.
    """
    level: Sequence[object] = [value]
    while level:
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise ForeignJsonError("NaN and infinities are no JSON; give null, or a text")
        level = [inner for container in level for inner in _inside(container)]
    return value


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return [*value.values()] or [None]
    if isinstance(value, list | tuple):
        return value or [None]
    return ()


_LARGE: Final = re.compile(r"[0-9][eE]\+?[0-9]{3}|[0-9]{200}")
"""An exponent of three digits, or two hundred digits in a row: without either a number is below 1e300."""
_LARGE_BYTES: Final = re.compile(_LARGE.pattern.encode())
_TOO_DEEP: Final = f"nested more than {MAX_NESTING} levels deep"
