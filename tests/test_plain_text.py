"""No foreign text commands a terminal, hides from a reader or pretends to be a line of its own."""

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.plain_text import ascii_json, clean_line, clean_lines, escaped_json, indented_lines

ANY_TEXT = st.text(st.characters() | st.sampled_from("\x1b\x9b\r\n\t\u202e\u2066\u200d\u200c\u2028\ud83d"))
ALLOWED = {"\n", "\t"}
JOINERS = {"\u200c", "\u200d"}


def dangerous(text: str) -> list[str]:
    """Controls, surrogates and what formats without being seen; joiners have tests of their own."""
    found = []
    for character in text:
        unseen = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        if unseen and character not in ALLOWED | JOINERS and not is_prepended_mark(character):
            found.append(character)
    return found


def is_prepended_mark(character: str) -> bool:
    """Arabic and other signs around numbers, musical symbols, …: of category Cf, but drawn."""
    drawn = re.compile(
        "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
        "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
    )
    return drawn.match(character) is not None


@given(ANY_TEXT)
def test_lines_hold_nothing_that_a_terminal_obeys(text: str) -> None:
    assert dangerous(clean_lines(text)) == []
    assert clean_lines(clean_lines(text)) == clean_lines(text)


@given(ANY_TEXT)
def test_one_line_is_one_line(text: str) -> None:
    assert "\n" not in clean_line(text)
    assert "\t" not in clean_line(text)
    assert len(clean_line(text).splitlines()) <= 1


@given(ANY_TEXT)
def test_further_lines_are_indented(text: str) -> None:
    assert all(line.startswith("    ") for line in indented_lines(text).split("\n")[1:])


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, 東京",
        "שלום",
        "می\u200cخواهم",
        "क्\u200dष",
        "👩\u200d👩\u200d👧 and 🏳\ufe0f\u200d🌈",
        "two\n\tlines",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert clean_lines(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2K\x1b[1ATotal 1.00", "\ufffd[2K\ufffd[1ATotal 1.00"),
        ("\x9b2J", "\ufffd2J"),
        ("99\r1", "99\ufffd1"),
        ("\u202e00.1 latoT\u202c", "00.1 latoT"),
        ("a\u200dp\u200cp\u200ble\ufeff\u00ad", "apple"),
        ("a\u2028b\r\nc", "a\nb\nc"),
        ("👩\u200d", "👩"),
    ],
)
def test_what_would_mislead_is_shown_or_removed(text: str, shown: str) -> None:
    assert clean_lines(text) == shown


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_json_stays_the_same_and_is_safe(value: dict[str, str]) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=1)
    for escape in (escaped_json, ascii_json):
        assert json.loads(escape(document)) == json.loads(document)
        assert dangerous(escape(document)) == []
    assert ascii_json(document).isascii()
