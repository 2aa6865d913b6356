"""How models become Temporal payloads and back, in every process."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter

from waystation.models.sessions import LogReading, ReplayPage

INLINE_FIELD: Final = "waystation-inline"
"""Metadata of a payload that external storage leaves alone, whatever its size."""


@cache
def _made_once() -> PydanticPayloadConverter:
    return PydanticPayloadConverter()


class SharedPydanticPayloadConverter(PydanticPayloadConverter):
    """Converts pydantic payloads, with converters that are made once and keep the validators they built.

    With external storage, Temporal's SDK makes a payload converter for every call, each with an empty cache.

    Pages of a session's log are marked as inline. They are asked for as often as anybody reads and belong to
    no history; stored, they would fill the disk. The longest event fits into what Temporal itself accepts.
    """

    def __init__(self) -> None:
        self.converters = _made_once().converters

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        payloads = super().to_payloads(values)
        for value, payload in zip(values, payloads, strict=True):
            if isinstance(value, ReplayPage | LogReading):
                payload.metadata[INLINE_FIELD] = b"true"
        return payloads


def is_inline(payload: Payload) -> bool:
    """Whether the payload stays out of external storage."""
    return INLINE_FIELD in payload.metadata
