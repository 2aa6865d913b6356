"""Keeps one odd message, or one mistake of ours, from blocking a workflow.

An exception that nobody expected fails the workflow task, and Temporal repeats the task forever, with all
that the workflow holds stuck behind it. So each way into a workflow has its guard here, and a test sees that
no handler is without:

- ``drop_unless`` drops a signal that is malformed or can't be handled, and logs that;
- ``answering`` fails the one update that can't be handled;
- ``starting`` begins nothing where a workflow was started with anything but its one input;
- ``ending`` ends a workflow whose ``run`` can't go on, with a reason. What moves money first undoes what it
  holds: that is the business of its ``run``, and this guard is behind it.
"""

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from waystation.models.base import WorkflowStart
from waystation.temporal.names import INVALID_ARGUMENT, UNEXPECTED
from workflows.refusals import refusal

SignalHandler = TypeVar("SignalHandler", bound=Callable[..., object])
UpdateHandler = TypeVar("UpdateHandler", bound=Callable[..., object])
Init = TypeVar("Init", bound=Callable[..., None])
Run = TypeVar("Run", bound=Callable[..., Awaitable[object]])


def drop_unless(model: type, *, optional: bool = False) -> Callable[[SignalHandler], SignalHandler]:
    """Calls the signal handler only with one argument of ``model`` (or none, where it is optional).

    The SDK drops a signal whose argument doesn't parse, but hands ``null`` or a wrong number of arguments to
    the handler untouched.
    """

    def decorate(handler: SignalHandler) -> SignalHandler:
        def given(arguments: tuple[Any, ...]) -> list[Any] | None:
            """Returns what to call the handler with; ``None``, with a warning, where it is malformed."""
            found = [argument for argument in arguments if argument is not None]
            well_formed = len(found) == 1 and len(arguments) == 1 and isinstance(found[0], model)
            if well_formed or (optional and not found):
                return found
            workflow.logger.warning("Dropped a malformed '%s' signal", handler.__name__)
            return None

        def drop() -> None:
            workflow.logger.exception("Dropped a '%s' signal that can't be handled", handler.__name__)

        if inspect.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def checked(self: Any, *arguments: Any) -> None:
                if (found := given(arguments)) is not None:
                    try:
                        await handler(self, *found)
                    except Exception:
                        drop()

            return checked  # type: ignore[return-value]

        @functools.wraps(handler)
        def checked_now(self: Any, *arguments: Any) -> None:
            if (found := given(arguments)) is not None:
                try:
                    handler(self, *found)
                except Exception:
                    drop()

        return checked_now  # type: ignore[return-value]

    return decorate


def answering(handler: UpdateHandler) -> UpdateHandler:
    """Lets an update that can't be handled fail, and the workflow go on."""

    def failed() -> ApplicationError:
        workflow.logger.exception("The update '%s' can't be handled", handler.__name__)
        return refusal(
            UNEXPECTED, f"'{handler.__name__}' failed on this request, of which a part may have been done."
        )

    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def answered(*arguments: Any) -> object:
            try:
                return await handler(*arguments)
            except FailureError:
                raise
            except Exception:
                raise failed() from None

        return answered  # type: ignore[return-value]

    @functools.wraps(handler)
    def answered_now(*arguments: Any) -> object:
        try:
            return handler(*arguments)
        except FailureError:
            raise
        except Exception:
            raise failed() from None

    return answered_now  # type: ignore[return-value]


def _is_start(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], WorkflowStart)


def starting(init: Init) -> Init:
    """Leaves a workflow that was started with no input, ``null``, or several, to ``ending``.

    One input of another form is refused where it is read (``SharedPydanticPayloadConverter``); the SDK hands
    these through.
    """

    @functools.wraps(init)
    def started(self: Any, *arguments: Any) -> None:
        if _is_start(arguments):
            init(self, *arguments)

    return started  # type: ignore[return-value]


def _log_unexpected(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs what the loop complains of, except the failure of an activity that nobody waits for any more.

    It has failed in the task in which whoever waited for it was cancelled, or later; the history has it.
    """
    if not isinstance(context.get("exception"), ActivityError):
        loop.default_exception_handler(context)


def ending(run: Run) -> Run:
    """Ends the workflow with a reason: it has no input, or its ``run`` fails on what nobody expected."""

    @functools.wraps(run)
    async def ended(self: Any, *arguments: Any) -> object:
        if not _is_start(arguments):
            raise refusal(INVALID_ARGUMENT, "Start it with one argument: its input, as an object.")
        asyncio.get_running_loop().set_exception_handler(_log_unexpected)
        try:
            return await run(self, *arguments)
        except FailureError:
            raise
        except Exception as error:
            workflow.logger.exception("The workflow can't go on")
            raise ApplicationError(
                f"ended by an error that nobody expected ({type(error).__name__}); the worker's log has it",
                type=UNEXPECTED,
                non_retryable=True,
            ) from None

    return ended  # type: ignore[return-value]
