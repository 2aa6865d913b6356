"""What Waystation raises in other people's programs. Everything descends from ``WaystationError``.

WaystationError
├── StartError          a process can't start; the message says what to set or to look at
│   └── NotNowError      something that it needs isn't there: the same may work later
├── ConnectionLost      the API can't be reached; retried automatically where that is safe
└── ApiError            the API has refused: status, code, detail
    ├── NotAllowed      401, 403
    ├── NotFound        404
    ├── ConflictError   409
    │   └── WriteRefused     the session did not record something that a turn has written
    ├── InvalidRequest  400, 422
    └── TryLater        429, 503: the same request may work after ``retry_after_seconds``

Errors of other areas (paying, selling, a model's provider) are defined where they are raised.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeGuard

from waystation.foreign_json import ForeignJsonError, read_json
from waystation.retry_after import retry_after

if TYPE_CHECKING:
    import httpx


MAX_QUOTED_BYTES: Final = 200
"""Of an answer that isn't ours."""


class WaystationError(Exception):
    """Anything that Waystation raises on purpose."""


class StartError(WaystationError, RuntimeError):
    """A process can't start: a setting or a library is missing or wrong. Quotes no setting's value."""


class NotNowError(StartError):
    """A process can't start now: what it needs can't be reached, or is in use."""


class ConnectionLost(WaystationError):
    """The API can't be reached at the moment."""


class ApiError(WaystationError):
    """The API's answer was a problem (RFC 9457)."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        retry_after_seconds: float | None = None,
        *,
        carried_out: str | None = None,
    ) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status, self.code, self.detail = status, code, detail
        self.retry_after_seconds = retry_after_seconds
        self.carried_out = carried_out
        """Of a 503: ``no`` if nothing was done, ``unknown`` if the request may have been carried out."""


class NotAllowed(ApiError):
    """The credential is missing, wrong, expired, or not for this."""


class NotFound(ApiError):
    """There is no such session, or this credential may not see it."""


class ConflictError(ApiError):
    """The session's state doesn't allow it: closed, busy, taken over."""


class WriteRefused(ConflictError):
    """The session did not record something that a turn has written; ``detail`` says what and why."""


class InvalidRequest(ApiError):
    """The request itself is wrong; ``detail`` says what to do."""


class TryLater(ApiError):
    """Too much at the same time, or nobody has answered properly; ``carried_out`` says what may be done."""


def seconds_before_retry(error: WaystationError) -> float:
    """Returns how long to wait at least before trying again.

    Raises:
        WaystationError: The error itself, if the same would fail again.

    >>> seconds_before_retry(TryLater(503, "temporal-unavailable", "try again", 2.0))
    2.0
    """
    if isinstance(error, TryLater):
        return error.retry_after_seconds or 0.0
    if isinstance(error, ConnectionLost) or (isinstance(error, ApiError) and error.status >= 500):
        return 0.0
    raise error


_BY_STATUS: dict[int, type[ApiError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: ConflictError,
    400: InvalidRequest,
    422: InvalidRequest,
    429: TryLater,
    503: TryLater,
}


def is_raised(value: object) -> TypeGuard[BaseException | type[BaseException]]:
    """Returns whether ``raise`` takes this: an exception, or a class of them."""
    return isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException))


def problem(status: int, body: Mapping[str, object], asked: str | None = None) -> ApiError:
    """Returns the error that a problem details object stands for; ``asked`` is its ``Retry-After``."""
    wait = retry_after(asked)
    kind = _BY_STATUS.get(status, ApiError)
    code, detail = str(body.get("code", "error")), str(body.get("detail", "no detail given"))
    said = body.get("carried_out")
    seconds = None if wait is None else wait.total_seconds()
    return kind(status, code, detail, seconds, carried_out=said if isinstance(said, str) else None)


def raise_for_problem(response: "httpx.Response") -> None:
    """Raises the error that an HTTP answer stands for, if any."""
    if response.is_success:
        return
    try:
        body = read_json(response.content)
    except ForeignJsonError:
        body = None
    if not isinstance(body, dict):
        raise not_from_waystation(response.status_code, response.content, response.headers.get("retry-after"))
    raise problem(response.status_code, body, response.headers.get("retry-after"))


def not_from_waystation(status: int, answer: bytes, asked: str | None = None) -> ApiError:
    """Returns the error for an answer that no API of ours gives: a proxy's page, for example."""
    shown = answer[:MAX_QUOTED_BYTES].decode(errors="replace")
    return problem(status, {"detail": f"the answer was not from Waystation: {shown}"}, asked)
