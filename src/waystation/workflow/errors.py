"""What a workflow is told when a session doesn't take what it wants to write or say."""

from typing import Final

from temporalio.exceptions import ActivityError, ApplicationError

from waystation.models.refusals import REASONS, RefusalCode
from waystation.temporal.names import WRITE_REFUSED

UNKNOWN_SESSION: Final = "unknown-session"
SESSION_ID_TAKEN: Final = "session-id-taken"


class SessionError(ApplicationError):
    """A session refuses something; a workflow that doesn't catch it fails.

    ``code`` is a code of docs/errors.md, ``session-closed`` for example, or ``unknown-session`` or
    ``session-id-taken``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code, type=WRITE_REFUSED, non_retryable=True)
        self.code = code


def refused(code: RefusalCode) -> SessionError:
    """Returns the error for what can't be recorded."""
    return SessionError(code, REASONS[code])


def no_session(session_id: str) -> SessionError:
    """Returns the error for a session that can't be told anything."""
    return SessionError(UNKNOWN_SESSION, f"There is no session '{session_id}', or it is closed.")


def as_refusal(error: ActivityError) -> SessionError | None:
    """Returns why a session has refused what an activity wrote; ``None`` if the activity failed otherwise."""
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type != WRITE_REFUSED or not cause.details:
        return None
    return SessionError(str(cause.details[0]), cause.message)
