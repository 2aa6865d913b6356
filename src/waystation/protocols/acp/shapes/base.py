"""The basis of every ACP shape: version, headers, limits, scalars and the base model.

*Writing is strict*: every model refuses unknown fields and is dumped with ``AcpModel.wire``, whose result
validates against the specification's JSON Schemas. *Reading* (``reading``) ignores unknown fields. It is
strict with requests: every known field is checked against its type, its enumeration and its limits, and
``ProtocolViolationError`` names places and rules, never values. With what sellers state it is strict only
where money depends on it, and leaves out what it can't read of the rest (``StatedModel``).

Amounts are whole minor units. The few fractional numbers of the protocol (weights, tax rates, exchange
rates) are carried as they came and never calculated with.
"""

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from numbers import Real
from typing import Annotated, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from waystation.models.base import Frozen, JsonObject
from waystation.models.money import MAX_AMOUNT_MINOR_UNITS

API_VERSION: Final = "2026-04-17"
SUPPORTED_VERSIONS: Final = (API_VERSION,)

# Header names (openapi.agentic_checkout.yaml, components/parameters).
HEADER_AUTHORIZATION: Final = "Authorization"
HEADER_API_VERSION: Final = "API-Version"
HEADER_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
HEADER_IDEMPOTENT_REPLAYED: Final = "Idempotent-Replayed"
HEADER_REQUEST_ID: Final = "Request-Id"
HEADER_RETRY_AFTER: Final = "Retry-After"
HEADER_TIMESTAMP: Final = "Timestamp"
HEADER_MERCHANT_SIGNATURE: Final = "Merchant-Signature"

DISCOVERY_PATH: Final = "/.well-known/acp.json"
WEBHOOK_PATH: Final = "/agentic_checkout/webhooks/order_events"

MAX_BODY_BYTES: Final = 1_048_576
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255
MAX_ID_CHARS: Final = 255
MAX_URL_CHARS: Final = 2_048
MAX_QUANTITY: Final = 1_000_000
MAX_ORDER_NOTES_CHARS: Final = 5_000
MAX_PROBLEMS_SHOWN: Final = 8


class ProtocolViolationError(ValueError):
    """A document does not follow the protocol.

    ``problems`` holds pairs of a JSONPath (``$.line_items[0].quantity``) and the rule that it breaks.
    """

    def __init__(self, what: str, problems: Sequence[tuple[str, str]]) -> None:
        self.what = what
        self.problems = tuple(problems)
        shown = "; ".join(f"{path}: {rule}" for path, rule in self.problems[:MAX_PROBLEMS_SHOWN])
        more = len(self.problems) - MAX_PROBLEMS_SHOWN
        super().__init__(
            f"{what} does not follow ACP {API_VERSION}: {shown}" + (f"; and {more} more" if more > 0 else "")
        )


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("must be an absolute http(s) URL")
    return value


def _number(value: JsonValue) -> JsonValue:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
WebUrl = Annotated[str, StringConstraints(max_length=MAX_URL_CHARS), AfterValidator(_web_url)]
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")]
"""ISO 4217 in lower case, as checkout writes it (feeds write it in upper case)."""

Amount = Annotated[StrictInt, Field(ge=-MAX_AMOUNT_MINOR_UNITS, le=MAX_AMOUNT_MINOR_UNITS)]
"""Minor units. The schema allows negative ones, which some sellers use for discounts."""

Quantity = Annotated[StrictInt, Field(ge=1, le=MAX_QUANTITY)]
Count = Annotated[StrictInt, Field(ge=0, le=MAX_QUANTITY)]
Number = Annotated[JsonValue, AfterValidator(_number)]
"""A JSON number that is not money: kept as it came, never calculated with."""


class AcpModel(Frozen):
    """A shape of the protocol."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    def wire(self) -> JsonObject:
        """Returns the JSON object to send: absent fields left out, credentials in clear."""
        return self.model_dump(mode="json", exclude_none=True, context={"reveal_credentials": True})


LENIENT: Final = {"only_what_decides": True}
"""The validation context in which a ``StatedModel`` leaves out what it can't read and doesn't need."""


def is_lenient(info: ValidationInfo) -> bool:
    """Whether a seller's statement is being read, and not a request, or a shape of our own."""
    return isinstance(info.context, Mapping) and info.context.get("only_what_decides") is True


class StatedModel(AcpModel):
    """A shape that sellers state. Read leniently, only the fields in ``DECIDES`` must be readable.

    Of any other field that can't be read, the smallest part is left out: an element of a list, else the
    field. ``UNREAD`` has what then stands for a field that the protocol requires.
    """

    DECIDES: ClassVar[frozenset[str]]
    """The fields on which it depends what is paid, to whom, and for what."""
    UNREAD: ClassVar[Mapping[str, JsonValue]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _without_the_unreadable(
        cls, value: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not is_lenient(info) or not isinstance(value, Mapping):
            return handler(value)
        try:
            return handler(value)
        except ValidationError as error:
            places = [one["loc"] for one in error.errors(include_url=False, include_input=False)]
            if any(not place or place[0] in cls.DECIDES for place in places):
                raise
            return handler(_without(value, places, cls.UNREAD))


def _without(
    value: Mapping[str, object], places: Sequence[tuple[int | str, ...]], unread: Mapping[str, JsonValue]
) -> dict[str, object]:
    """Returns an object without what can't be read at these places."""
    kept = dict(value)
    for name in {str(place[0]) for place in places}:
        inside = [place[1] for place in places if place[0] == name and len(place) > 1]
        whole, listed = any(place == (name,) for place in places), kept.pop(name, None)
        if isinstance(listed, list | tuple) and not whole:
            kept[name] = [one for index, one in enumerate(listed) if index not in inside]
        elif name in unread:
            kept[name] = unread[name]
    return kept


def known_or_stated(*kinds: type[StrEnum]) -> AfterValidator:
    """Holds a code to its enumerations; of a seller, also a code that only a later version knows."""

    def check(value: str, info: ValidationInfo) -> str:
        for kind in kinds:
            if value in kind.__members__.values():
                return kind(value)
        if is_lenient(info):
            return value
        raise ValueError(f"must be one of {', '.join(one.value for kind in kinds for one in kind)}")

    return AfterValidator(check)
