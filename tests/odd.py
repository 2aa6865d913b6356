"""Odd JSON: values that nearly fit a model's schema, and values that don't fit at all."""

from typing import Any

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
