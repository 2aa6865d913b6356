"""Stripe's form encoding: ``usage_limits[max_amount]=2500&expand[0]=latest_charge``."""

import re
from typing import Final
from urllib.parse import parse_qsl

from waystation.models.base import JsonObject

MAX_FORM_FIELDS: Final = 1_000
MAX_FORM_DEPTH: Final = 8
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


class MalformedFormError(ValueError):
    """The text is not a form in Stripe's encoding."""


def decode_form(text: str) -> JsonObject:
    """Returns nested dictionaries of strings; lists (``[]``, ``[0]``) become dictionaries by position."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict")
    except ValueError:
        raise MalformedFormError("The body is not a form.") from None
    decoded: JsonObject = {}
    for name, value in pairs:
        match = _NAME.fullmatch(name)
        path = [] if match is None else [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
        if not path or len(path) > MAX_FORM_DEPTH:
            raise MalformedFormError(f"Invalid parameter name: {name[:100]}")
        _put(decoded, path, value)
    return decoded


def _put(into: JsonObject, path: list[str], value: str) -> None:
    for part in path[:-1]:
        step = into.setdefault(part, {})
        if not isinstance(step, dict):
            raise MalformedFormError(f"{part} is given both as a value and as an object.")
        into = step
    last = path[-1] or str(len(into))
    into[last] = value


def values(found: object) -> list[str]:
    """Returns the strings of a list parameter."""
    return [one for one in found.values() if isinstance(one, str)] if isinstance(found, dict) else []
