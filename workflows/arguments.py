"""Keeps malformed signals from blocking a workflow.

The SDK drops a signal whose argument doesn't parse, but hands ``null`` or a wrong number of
arguments to the handler untouched; the exception that follows would be retried forever, with
the workflow stuck behind it.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow

Handler = TypeVar("Handler", bound=Callable[..., None])
WaitingHandler = TypeVar("WaitingHandler", bound=Callable[..., Awaitable[None]])


def drop_unless(model: type, *, optional: bool = False) -> Callable[[Handler], Handler]:
    """Calls the signal handler only with one argument of ``model`` (or none, where it is optional)."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def checked(self: Any, *arguments: Any) -> None:
            if (given := _well_formed(handler.__name__, model, arguments, optional=optional)) is not None:
                handler(self, *given)

        return checked  # type: ignore[return-value]

    return decorate


def drop_unless_waiting(model: type) -> Callable[[WaitingHandler], WaitingHandler]:
    """The same for a handler that waits: calls it only with one argument of ``model``."""

    def decorate(handler: WaitingHandler) -> WaitingHandler:
        @functools.wraps(handler)
        async def checked(self: Any, *arguments: Any) -> None:
            if (given := _well_formed(handler.__name__, model, arguments)) is not None:
                await handler(self, *given)

        return checked  # type: ignore[return-value]

    return decorate


def _well_formed(
    name: str, model: type, arguments: tuple[Any, ...], *, optional: bool = False
) -> list[Any] | None:
    """Returns the arguments to call a handler with; ``None``, and a warning, where they are malformed."""
    given = [argument for argument in arguments if argument is not None]
    if len(given) == 1 and len(arguments) == 1 and isinstance(given[0], model):
        return given
    if optional and not given:
        return given
    workflow.logger.warning("Dropped a malformed '%s' signal", name)
    return None
