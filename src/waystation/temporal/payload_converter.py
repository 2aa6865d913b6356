"""How models become Temporal payloads and back, in every process.

While one version replaces another, processes of both talk to each other, so what is new in a message is left
out by a version that doesn't know it. Only what starts a workflow is read as a whole or not at all: an
unknown term of a mandate may be a limit. (HTTP is stricter: ``Frozen`` refuses unknown fields there.)
"""

from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter, PydanticPayloadConverter
from temporalio.exceptions import ApplicationError

from waystation.errors import WaystationError
from waystation.malformed import what_is_wrong
from waystation.models.base import WorkflowStart
from waystation.models.sessions import LogReading, ReplayPage
from waystation.models.steps import StepsPage
from waystation.temporal.names import INVALID_ARGUMENT

INLINE_FIELD: Final = "waystation-inline"
"""Metadata of a payload that external storage leaves alone, whatever its size."""

MAX_INLINE_PAGE_BYTES: Final = 1_500_000
"""Temporal accepts 2 MB, and encryption adds to it."""

UNREADABLE_FIELD: Final = "waystation-unreadable"
"""Metadata of a payload that couldn't be decrypted: why not."""

MAX_REASON_CHARACTERS: Final = 2_000


class PayloadDecryptionError(WaystationError, RuntimeError):
    """A payload cannot be decrypted: its key is not known here, or its bytes were changed."""


_adapter = cache(TypeAdapter)


class _ForgivingJson(PydanticJSONPlainPayloadConverter):
    """Reads JSON without the fields that this version doesn't know, at any depth."""

    def from_payload(self, payload: Payload, type_hint: Any = None) -> Any:
        if type_hint is None or _is_start(type_hint):
            return super().from_payload(payload, type_hint)
        try:
            adapter = _adapter(type_hint)
        except TypeError:  # no key of a cache
            adapter = TypeAdapter(type_hint)
        return adapter.validate_json(payload.data, extra="ignore")


@cache
def _made_once() -> PydanticPayloadConverter:
    made = PydanticPayloadConverter()
    forgiving = _ForgivingJson()
    made.converters = {**made.converters, forgiving.encoding.encode(): forgiving}
    return made


def _is_start(type_hint: object) -> bool:
    return isinstance(type_hint, type) and issubclass(type_hint, WorkflowStart)


class SharedPydanticPayloadConverter(PydanticPayloadConverter):
    """Converts pydantic payloads, with converters that are made once and keep the validators they built.

    With external storage, Temporal's SDK makes a payload converter for every call, each with an empty cache.
    """

    def __init__(self) -> None:
        self.converters = _made_once().converters

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Reads payloads.

        Raises:
            PayloadDecryptionError: One couldn't be decrypted. The SDK drops a signal then, and refuses an
                update; a workflow's input and its own calls' results are read again, until a worker can.
            ApplicationError: A workflow was started with something else than its input. It ends the workflow;
                any other error would make Temporal repeat the task forever.
        """
        for payload, hint in zip_longest(payloads, type_hints or ()):
            if payload and UNREADABLE_FIELD in payload.metadata and hint is not RawValue:
                raise PayloadDecryptionError(payload.metadata[UNREADABLE_FIELD].decode(errors="replace"))
        try:
            return super().from_payloads(payloads, type_hints)
        except ValidationError as error:
            if (refused := _refused_start(payloads, type_hints, error)) is None:
                raise
            raise refused from None


class StoringPydanticPayloadConverter(SharedPydanticPayloadConverter):
    """For installations with external storage: marks pages of a session's log, or of steps, as inline.

    They are asked for as often as anybody reads and belong to no history; stored, they would fill the disk.
    The longest event fits into what Temporal itself accepts, and so do all but the largest results of steps.
    Temporal's command line prints what is marked in base64, so nothing is marked where nothing is stored.
    """

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        payloads = super().to_payloads(values)
        for value, payload in zip(values, payloads, strict=True):
            if isinstance(value, ReplayPage | LogReading) or (
                isinstance(value, StepsPage) and len(payload.data) <= MAX_INLINE_PAGE_BYTES
            ):
                payload.metadata[INLINE_FIELD] = b"true"
        return payloads


def _refused_start(
    payloads: Sequence[Payload], type_hints: list[type] | None, error: ValidationError
) -> ApplicationError | None:
    """Returns what ends a workflow that was started with this; ``None`` if it is no input of a workflow, or
    that of a run that goes on from an earlier one: another version of this code can read it.
    """
    [model] = type_hints if type_hints and len(type_hints) == 1 else [None]
    if model is None or not _is_start(model):
        return None
    if _carries_on(payloads, model):
        return None
    message = f"This is no {model.__name__} object. {'; '.join(what_is_wrong(error))}"[:MAX_REASON_CHARACTERS]
    return ApplicationError(message, type=INVALID_ARGUMENT, non_retryable=True)


def _carries_on(payloads: Sequence[Payload], model: type[WorkflowStart]) -> bool:
    try:
        given = from_json(payloads[0].data)
    except (ValueError, IndexError):
        return False
    return isinstance(given, dict) and any(given.get(name) is not None for name in model.CARRIED)


def is_inline(payload: Payload) -> bool:
    """Whether the payload stays out of external storage."""
    return INLINE_FIELD in payload.metadata
