"""Paths of the API, with ids that anybody may have chosen."""

from urllib.parse import quote

from waystation.errors import InvalidRequest
from waystation.surrogates import mend


def path(*segments: str) -> str:
    """Returns a path of these segments; whatever an id contains, it stays within its own.

    >>> path("sessions", "../me", "replay")
    '/sessions/..%2Fme/replay'

    Raises:
        InvalidRequest: A segment is empty or made of dots, which would mean another path, or isn't text.
    """
    for segment in segments:
        if not segment.strip(".") or mend(segment) != segment:
            raise InvalidRequest(422, "invalid", f"{segment!r} is no id.")
    return "/" + "/".join(quote(segment, safe="") for segment in segments)
