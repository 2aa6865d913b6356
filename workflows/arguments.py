"""Keeps malformed signals from blocking a workflow.

The SDK drops a signal whose argument doesn't parse, but hands ``null`` or a wrong number of
arguments to the handler untouched; the exception that follows would be retried forever, with
the workflow stuck behind it.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow

Handler = TypeVar("Handler", bound=Callable[..., None])


def drop_unless(model: type, *, optional: bool = False) -> Callable[[Handler], Handler]:
    """Calls the signal handler only with one argument of ``model`` (or none, where it is optional)."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def checked(self: Any, *arguments: Any) -> None:
            given = [argument for argument in arguments if argument is not None]
            well_formed = len(given) == 1 and len(arguments) == 1 and isinstance(given[0], model)
            if well_formed or (optional and not given):
                handler(self, *given)
            else:
                workflow.logger.warning("Dropped a malformed '%s' signal", handler.__name__)

        return checked  # type: ignore[return-value]

    return decorate
