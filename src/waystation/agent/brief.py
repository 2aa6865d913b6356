"""An error as a session's log may hold it."""

import asyncio
from typing import Final

from pydantic import ValidationError

from waystation.malformed import what_is_wrong
from waystation.redaction import redact
from waystation.surrogates import mend

MAX_ERROR_CHARACTERS: Final = 2_000


def brief(error: BaseException) -> str:
    """Returns an error as a session's log may hold it: without secrets, bounded."""
    if isinstance(error, asyncio.CancelledError):
        return "canceled"
    if isinstance(error, BaseExceptionGroup):
        # "unhandled errors in a TaskGroup" says nothing of what went wrong.
        return "; ".join(map(brief, error.exceptions))[:MAX_ERROR_CHARACTERS]
    said = str(error)
    if isinstance(error, ValidationError):
        said = "; ".join(what_is_wrong(error))
    return mend(redact(f"{type(error).__name__}: {said}")[:MAX_ERROR_CHARACTERS])
