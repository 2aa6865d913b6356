"""A step's result, from Python to JSON and back: by the function's return type, so that it looks the same
in the attempt that has run the step and in those that only remember it.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import JsonValue, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from waystation.errors import WaystationError
from waystation.foreign_json import check_nesting
from waystation.malformed import what_is_wrong
from waystation.surrogates import mend_json

_ANYTHING = (Any, object, inspect.Signature.empty)


class StepResultError(WaystationError, ValueError):
    """A step's result can't be recorded, or what was recorded can't be read as what is asked for now."""


class ResultType:
    """What a step returns: a type that pydantic can read from JSON, or any JSON."""

    def __init__(self, key: str, wanted: Any) -> None:
        """``wanted``: the type; ``Any`` for plain JSON.

        Raises:
            StepResultError: Nothing of this type can be read from JSON.
        """
        self._key = key
        self._adapter: TypeAdapter[Any] | None = None
        if wanted in _ANYTHING:
            return
        try:
            self._adapter = TypeAdapter(NoneType if wanted is None else wanted)
        except (PydanticUserError, PydanticUndefinedAnnotation):
            raise StepResultError(
                f"The step '{key}' returns {wanted!r}, which can't be read from JSON. Let its function "
                "return JSON, a dataclass or a pydantic model, or name one with returns=."
            ) from None

    @classmethod
    def of(cls, key: str, function: Callable[..., object], returns: Any = None) -> "ResultType":
        """Returns what a function returns: ``returns``, or what it is annotated with, or any JSON.

        Raises:
            StepResultError: Its annotation can't be resolved, or nothing of that type be read from JSON.
        """
        return cls(key, _annotated(key, function) if returns is None else returns)

    def to_json(self, result: object) -> tuple[JsonValue, int]:
        """Returns a result as it is recorded, and its size in bytes. NaN and infinities become null.

        Raises:
            StepResultError: It is no JSON, is nested too deeply, or can't be read back.
        """
        try:
            written = to_json(mend_json(self._dumped(result)), inf_nan_mode="null")
            recorded: JsonValue = check_nesting(from_json(written))
        except RecursionError:
            raise StepResultError(
                f"The step '{self._key}' has run, but its result can't be recorded: it is nested too deeply"
            ) from None
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise StepResultError(
                f"The step '{self._key}' has run, but its result can't be recorded: {error}"
            ) from error
        self.read(recorded)
        return recorded, len(written)

    def _dumped(self, result: object) -> Any:
        if self._adapter is None:
            return result
        try:
            return self._adapter.dump_python(result, mode="json", warnings="error")
        except PydanticSerializationError:
            # Its words would quote the result, which may be private.
            raise ValueError(
                f"it is a {type(result).__name__}, and not what the function says it returns"
            ) from None

    def read(self, recorded: JsonValue) -> Any:
        """Returns a recorded result as the step's caller gets it: a new object each time.

        Raises:
            StepResultError: It doesn't fit the type.
        """
        if self._adapter is None:
            return from_json(to_json(recorded))
        try:
            return self._adapter.validate_json(to_json(recorded))
        except ValidationError as error:
            raise StepResultError(
                f"What the step '{self._key}' has recorded isn't what it should return: "
                f"{'; '.join(what_is_wrong(error))}. Give the step another key if its function has changed."
            ) from None


def _annotated(key: str, function: Callable[..., object]) -> Any:
    """Returns what a function is annotated to return, of a coroutine what it returns in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__ if not inspect.isclass(function) else function
    if inspect.isclass(function):
        return function
    try:
        wanted = get_type_hints(function).get("return", Any)
    except NameError as error:
        raise StepResultError(
            f"What the function of the step '{key}' returns can't be told ({error}): import the name where "
            "the module is run, or pass returns=."
        ) from None
    if get_origin(wanted) in (Awaitable, Coroutine):
        wanted = get_args(wanted)[-1]
    return wanted
