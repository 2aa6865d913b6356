"""Why a session's machine refuses an update; the workflow raises it as an ``ApplicationError``."""

from typing import NamedTuple


class Refused(NamedTuple):
    """A refusal's name, which callers match on, and what to do about it."""

    kind: str
    message: str
