"""Foreign text made safe to show in a terminal or a log. Pure.

What agents, sellers and people write may hold characters that a terminal obeys: escape sequences that move
the cursor and paint over a total, controls that reverse the order of what follows, characters that take no
space and hide a difference. Nothing of this reaches a terminal; see ``waystation.terminal``.
"""

import re
from typing import Final

_LINE_ENDS: Final = re.compile("\r\n|[\n\u2028\u2029]")
# C0 and C1 controls but tab and line feed, and surrogates, which no encoding can write.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Controls of the writing direction, and characters without width.
_HIDDEN: Final = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Joiners shape Arabic and Indic letters and join emoji. Between others they only hide.
_JOINED: Final = "[\u0600-\u1cff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]"
_JOINERS: Final = re.compile(f"(?<!{_JOINED})[\u200c\u200d]|[\u200c\u200d](?!{_JOINED})")


def clean_lines(text: str) -> str:
    r"""Returns the text with its lines and tabs, and nothing that a terminal obeys or can't show.

    Controls become U+FFFD, so that they can be seen; what has no width is removed. Lines end with ``\n``.
    """
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
    return _JOINERS.sub("", _HIDDEN.sub("", text))


def clean_line(text: str) -> str:
    """Returns the text as ``clean_lines`` does, in one line: line ends and tabs become spaces."""
    return clean_lines(text).replace("\n", " ").replace("\t", " ")


def indented_lines(text: str) -> str:
    """Returns the text as ``clean_lines`` does, with every line but the first indented by four spaces.

    So no part of a foreign text can be taken for a line of its own.
    """
    return clean_lines(text).replace("\n", "\n    ")


def escaped_json(document: str) -> str:
    r"""Returns the same JSON document, with what a terminal obeys or hides written as ``\uXXXX``."""
    for pattern in (_CONTROLS, _HIDDEN, _JOINERS, re.compile("[\u2028\u2029]")):
        document = pattern.sub(_escape, document)
    return document


def ascii_json(document: str) -> str:
    r"""Returns the same JSON document in ASCII, other characters written as ``\uXXXX``."""
    return re.sub(r"[^\n\x20-\x7e]", _escape, document)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
