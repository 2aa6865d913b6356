"""What is read from outside is bounded at its root, so what passes a door survives every envelope."""

import json
import subprocess
import sys
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from waystation.foreign_json import MAX_NESTING, ForeignJsonError, check_nesting, read_json
from waystation.models.base import BoundedObject

PARSERS_STOP_AT = 200
ENVELOPES = PARSERS_STOP_AT // 4
"""More levels than any envelope here adds."""


def nested(levels: int, *, kind: str = "both") -> Any:
    def wrap(inner: Any, number: int) -> Any:
        as_list = kind == "list" or (kind == "both" and number % 2)
        return [inner] if as_list else {"a": inner}

    return reduce(wrap, range(levels), 1)


@pytest.mark.parametrize("kind", ["list", "dict", "both"])
@pytest.mark.parametrize("levels", [0, 1, MAX_NESTING, MAX_NESTING + 1, 150, 250])
def test_nesting_is_bounded_for_text_and_for_values(kind: str, levels: int) -> None:
    value = nested(levels, kind=kind)
    raw = json.dumps(value)
    if levels <= MAX_NESTING:
        assert read_json(raw) == read_json(raw.encode()) == check_nesting(value) == value
        return
    for refused in (lambda: read_json(raw), lambda: read_json(raw.encode()), lambda: check_nesting(value)):
        with pytest.raises(ForeignJsonError, match="nested more than 32"):
            refused()


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("count", [1_000, 70_000, 2_000_000])
def test_openings_without_end_are_refused_in_bounded_time(opening: str, count: int) -> None:
    with pytest.raises(ForeignJsonError):
        read_json(opening * count)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"NaN", b"[Infinity]", b'"\\ud83d"', b"\xff", b"\xff\xfe1\x00", b"9" * 5_000]
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ForeignJsonError, match="not a JSON document"):
        read_json(raw)


@pytest.mark.parametrize("number", ["1e999", "-1E+0400", "9" * 310 + ".0", "0.1e310"])
@pytest.mark.parametrize("around", ["{}", '{{"price": [{}]}}'])
def test_a_number_that_no_float_can_hold_is_refused_and_not_changed(number: str, around: str) -> None:
    raw = around.format(number)
    for given_as in (raw, raw.encode()):
        with pytest.raises(ForeignJsonError, match="out of range"):
            read_json(given_as)
    assert read_json(json.dumps(raw)) == raw, "a text may say anything"
    assert read_json("[1e308, 1e-999]") == [1e308, 0.0]


TEXT = st.text(st.characters(codec="utf-8"))
NUMBER = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


@given(JSON)
def test_what_passes_survives_envelopes_unchanged(value: Any) -> None:
    raw = json.dumps(value)
    taken = read_json(raw)
    assert taken == json.loads(raw)
    enveloped = reduce(lambda inner, _: {"data": [inner]}, range(ENVELOPES // 2), taken)
    assert from_json(to_json(enveloped)) == enveloped


def test_models_hold_to_the_same_bound() -> None:
    adapter = TypeAdapter[dict[str, Any]](BoundedObject)
    assert adapter.validate_python({"a": nested(MAX_NESTING - 1)})
    with pytest.raises(ValueError, match="nested more than 32"):
        adapter.validate_python({"a": nested(MAX_NESTING)})


@pytest.mark.parametrize(
    "module",
    [
        "worker",
        "api.main",
        "waystation.buyer.wallet",
        "waystation.protocols.http402",
        "waystation.sandbox.facilitator",
        "waystation.seller.paywall",
        "waystation.seller",
        "waystation.cli.main",
    ],
)
def test_no_library_raises_the_recursion_limit(module: str) -> None:
    code = f"import sys, {module}; assert sys.getrecursionlimit() == 1000, sys.getrecursionlimit()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
