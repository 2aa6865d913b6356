"""Half a surrogate pair is not a character, but Python's strings can hold one, and models do emit them.

A token may end in the middle of an emoji: the first half comes with one piece of text, the second with the
next. Joined they are a character again; alone they can't be encoded as UTF-8.
"""

import re

from pydantic import JsonValue

_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\.",
)
"""In a JSON text: pairs, halves, and any other escape, which may end in what looks like the begin of one."""


def mend(text: str) -> str:
    r"""Returns a text with its surrogate pairs joined; a half without its other half becomes U+FFFD.

    >>> mend("\ud83d\ude00") == "\N{GRINNING FACE}", mend("a\ud83d") == "a\N{REPLACEMENT CHARACTER}"
    (True, True)
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def hold_back_half(text: str) -> tuple[str, str]:
    """Returns a text without the half pair that it ends with, and that half: what follows may complete it."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""


def mend_escapes(text: str) -> str:
    r"""Returns a JSON text in which halves of surrogate pairs, which parsers refuse, are ``\ufffd``.

    >>> mend_escapes(r'["\ud83d\ude00", "a\ud83d", "\\ud83d"]')
    '["\\ud83d\\ude00", "a\\ufffd", "\\\\ud83d"]'
    """
    return _ESCAPES.sub(lambda found: r"\ufffd" if found["half"] else found[0], text)


def mend_json(value: JsonValue) -> JsonValue:
    """Returns a JSON value with every string in it mended, keys too."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, list):
        return [mend_json(inner) for inner in value]
    if isinstance(value, dict):
        return {mend(key) if isinstance(key, str) else key: mend_json(inner) for key, inner in value.items()}
    return value
