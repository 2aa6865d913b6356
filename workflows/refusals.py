"""One way for the validators and handlers of updates to refuse.

A refusal is an ``ApplicationError`` with a named type: callers match on the name, and the workflow task
goes on. A bare ``ValueError`` in a handler would block the workflow task forever.
"""

from temporalio.exceptions import ApplicationError

from waystation.temporal.names import INVALID_ARGUMENT

ENDED_IN_TEMPORAL = "ended_in_temporal"
"""The rule by which something ends whose workflow was ended in Temporal (terminated, say)."""
INTERNAL_ERROR = "an error of ours ended it, which nobody expected; the worker's log has it: please report it"


def refusal(kind: str, message: str) -> ApplicationError:
    """Returns the error to raise where an update is refused; ``kind`` is the name that callers match on."""
    return ApplicationError(message, type=kind, non_retryable=True)


def require(argument: object, model: type) -> None:
    """Refuses an argument that is not a ``model``.

    Raises:
        ApplicationError: ``InvalidArgument`` for ``null`` and untyped arguments, which the SDK hands through.
    """
    if not isinstance(argument, model):
        raise refusal(INVALID_ARGUMENT, f"Give one argument: a {model.__name__} object.")
