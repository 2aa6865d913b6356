"""Odd JSON: values that nearly fit a model's schema or are nearly a document, and some that aren't at all."""

import copy
from collections.abc import Iterator
from typing import Any, Literal

from hypothesis import strategies as st
from pydantic import TypeAdapter

TEXTS = st.sampled_from(
    [
        "", " ", "p", "0", "*", "null", "\x00", "data.x\n", "a" * 5_000, "\u202e\U0001f9d9", "..", "auth0|1",
        "https://xn--/", "https://[::1", "https://shop.example", "http://a:99999/", "usd", "EUR",
        "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "sha256:" + "0" * 64, "purchase.updated",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2**31, 2**63, 10**15, 10**15 + 1, 10**40, 0.5, 1e308, -0.0])
SCALARS: st.SearchStrategy[Any] = st.none() | st.booleans() | NUMBERS | TEXTS
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def odd(model: Any) -> st.SearchStrategy[Any]:
    """Returns values shaped by the model's JSON schema, most of which it takes, and others."""
    schema = TypeAdapter(model).json_schema()
    return shaped(schema, schema.get("$defs", {})) | ANYTHING


def shaped(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Returns values shaped by a JSON schema; ``defs`` are what it may refer to."""
    if "$ref" in schema:
        return shaped(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of([shaped(one, defs) for one in schema[several]])
    match schema.get("type"):
        case "object" if "properties" in schema:
            return _object(schema, defs)
        case "object":
            return st.dictionaries(TEXTS, ANYTHING, max_size=3)
        case "array" if "prefixItems" in schema:
            return st.tuples(*(shaped(one, defs) for one in schema["prefixItems"])).map(list)
        case "array":
            return st.lists(shaped(schema.get("items", {}), defs), max_size=3)
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True) | TEXTS
        case "string":
            return TEXTS
        case "integer":
            lowest = schema.get("minimum", schema.get("exclusiveMinimum", -1))
            return st.integers(lowest, lowest + 5) | st.just(schema.get("maximum", 10**30))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case _:
            return ANYTHING


def _object(schema: dict[str, Any], defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    required = set(schema.get("required", ()))
    fields = {name: shaped(one, defs) for name, one in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: one for name, one in fields.items() if name in required},
        optional={name: one for name, one in fields.items() if name not in required},
    )


# Documents

Place = tuple[str | int, ...]
How = Literal["remove", "replace", "add"]
HOW: st.SearchStrategy[How] = st.sampled_from(["remove", "replace", "add"])
BROKEN_JSON = st.sampled_from(
    [
        b"", b"{", b"[]", b"7", b"null", b"NaN", b'{"a":NaN}', b'{"a":"\\ud83d"}', b"\xff\xfe{\x00", b"\xff",
        b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 11_000, b'{"a":' + b"9" * 5_000 + b"}", b'{"a":1e400}',
    ]
)  # fmt: skip
"""What a parser may stumble over, beside whatever bytes."""


def altered(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Returns the document with up to three values that are odd, missing or added, anywhere in it."""
    changes = st.lists(st.tuples(st.sampled_from(list(places(document))), ANYTHING, HOW), max_size=3)

    def alter(these: list[tuple[Place, Any, How]]) -> dict[str, Any]:
        made = document
        for at, odd_value, how in these:
            made = changed(made, at, odd_value, how)
        return made

    return changes.map(alter)


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yields every place in a document, containers first."""
    if at:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))


def changed(document: dict[str, Any], at: Place, value: Any, how: How) -> dict[str, Any]:
    """Returns the document with one place changed, or as it is if an earlier change took the place away."""
    made = copy.deepcopy(document)
    container: Any = made
    try:
        for key in at[:-1]:
            container = container[key]
        if how == "remove":
            del container[at[-1]]
        elif how == "add" and isinstance(container[at[-1]], dict):
            container[at[-1]]["brand_new"] = value
        elif how == "add" and isinstance(container[at[-1]], list):
            container[at[-1]].append(value)
        else:
            container[at[-1]] = value
    except (KeyError, IndexError, TypeError):
        return document
    return made
