"""How models become Temporal payloads and back, in every process."""

from functools import cache

from temporalio.contrib.pydantic import PydanticPayloadConverter


@cache
def _made_once() -> PydanticPayloadConverter:
    return PydanticPayloadConverter()


class SharedPydanticPayloadConverter(PydanticPayloadConverter):
    """Converts pydantic payloads, with converters that are made once and keep the validators they built.

    With external storage, Temporal's SDK makes a payload converter for every call, each with an empty cache.
    """

    def __init__(self) -> None:
        self.converters = _made_once().converters
