"""Refusals as RFC 9457 problem details, made by one handler.

    Problem
    ├── Unauthenticated        401
    ├── Forbidden              403
    ├── UnknownSession         404  also for a session that the caller may not see
    ├── Conflict               409
    ├── TooLarge               413
    ├── Invalid                422
    ├── TooMany                429
    ├── SearchUnavailable      501
    └── Unavailable            503  with Retry-After

Every answer carries a stable ``code``; docs/errors.md says what to do about each.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from temporalio.exceptions import ApplicationError

from waystation.models.base import JsonObject
from waystation.temporal import names

RETRY_AFTER_SECONDS = 2
MAX_VALIDATION_ERRORS = 20

logger = logging.getLogger(__name__)


class Problem(Exception):
    """A refusal with its status, a stable code and a sentence that says what to do."""

    status: ClassVar[int] = 500
    code: str = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, code: str | None = None, **extra: JsonValue) -> None:
        super().__init__(detail)
        self.detail, self.extra = detail, extra
        self.code = code or type(self).code

    def body(self) -> JsonObject:
        """Returns the problem details object; sockets answer with it too."""
        return {
            "type": f"/problems/{self.code}",
            "code": self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }

    def headers(self) -> dict[str, str]:
        """Returns the additional headers of the answer."""
        return {}


class Unauthenticated(Problem):
    status, code, title = 401, "unauthenticated", "Not authenticated"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    status, code, title = 403, "forbidden", "Not allowed"


class UnknownSession(Problem):
    status, code, title = 404, "unknown-session", "No such session"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no session '{session_id}', or this token may not see it.")


class UnknownQuestion(Problem):
    status, code, title = 404, "unknown-question", "No such question"


class UnknownDelivery(Problem):
    status, code, title = 404, "unknown-delivery", "No such delivery"


class Conflict(Problem):
    status, code, title = 409, "conflict", "Conflicts with the session's state"


class SlowRequest(Problem):
    status, code, title = 408, "body-too-slow", "The request took too long"


class TooLarge(Problem):
    status, code, title = 413, "body-too-large", "The request is too large"


class InvalidEvent(Problem):
    """A seller's webhook that can't be read: 400, as ACP says, not the 422 of our own routes."""

    status, code, title = 400, "invalid-event", "Not an event of the protocol"


class Invalid(Problem):
    status, code, title = 422, "invalid", "The request is not valid"


class TooMany(Problem):
    status, code, title = 429, "too-many", "Too many"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}


class CarriedOut(Enum):
    """What is known of a request without a proper answer; the value is what callers are told to do."""

    NOTHING_TO = "Try again."
    """It only looks."""
    NO = "Nothing was carried out; try again."
    """Temporal has refused it, or it was never sent."""
    UNKNOWN = "It may have been carried out all the same: send it again under the same id, or look first."
    """It was sent, and may have been taken, now or later."""


class Unavailable(Problem):
    """There is no proper answer now. What may have been done says the problem, and nothing else does."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"

    def __init__(self, why: str, known: CarriedOut, *, code: str | None = None) -> None:
        """``why`` is a sentence."""
        carried_out = "unknown" if known is CarriedOut.UNKNOWN else "no"
        super().__init__(f"{why} {known.value}", code=code, carried_out=carried_out)

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}


class SearchUnavailable(Problem):
    """The visibility store can't answer, and trying again is no use: somebody must register attributes."""

    status, code, title = 501, "search-unavailable", "Sessions can't be searched here"


_REFUSALS: dict[str, tuple[type[Problem], str]] = {
    names.SESSION_CLOSED: (Conflict, "session-closed"),
    names.SESSION_BUSY: (Conflict, "session-busy"),
    names.SESSION_FULL: (Conflict, "session-full"),
    names.NOT_QUEUED: (Conflict, "not-queued"),
    names.TAKEN_OVER: (Conflict, "taken-over"),
    names.NOT_TAKEN_OVER: (Conflict, "not-taken-over"),
    names.PURCHASE_ID_TAKEN: (Conflict, "id-taken"),
    names.MESSAGE_ID_TAKEN: (Conflict, "message-id-taken"),
    names.UNKNOWN_TURN: (Conflict, "unknown-turn"),
    names.SPAWN_REFUSED: (Conflict, "spawn-refused"),
    names.UNKNOWN_QUESTION: (UnknownQuestion, "unknown-question"),
    names.QUESTION_SETTLED: (Conflict, "question-settled"),
    names.NOT_ASKED: (Forbidden, "not-asked"),
    names.INVALID_ANSWER: (Invalid, "invalid-answer"),
    names.ALREADY_DECIDED: (Conflict, "already-decided"),
    names.NOT_AN_APPROVER: (Forbidden, "not-an-approver"),
    names.NOT_PROVEN: (Forbidden, "not-proven"),
    names.NOT_AWAITING_APPROVAL: (Conflict, "not-awaiting-approval"),
    names.STALE_DIGEST: (Conflict, "stale-digest"),
    names.QUEUE_FULL: (TooMany, "queue-full"),
    names.TOO_MANY_PARTICIPANTS: (TooMany, "too-many-participants"),
    names.UNKNOWN_DELIVERY: (UnknownDelivery, "unknown-delivery"),
    names.DELIVERY_WAITS: (Conflict, "delivery-waits"),
    names.TOO_MANY_WEBHOOKS: (Conflict, "too-many-webhooks"),
    names.TOO_MANY_BROWSERS: (Conflict, "too-many-subscriptions"),
    names.WEBHOOK_DISABLED: (Conflict, "webhook-disabled"),
    names.WEBHOOKS_NEED_KEYS: (Conflict, "webhooks-need-keys"),
    names.INVALID_ROLE: (Invalid, "invalid"),
    names.INVALID_DECISION: (Invalid, "invalid"),
    names.INVALID_ARGUMENT: (Invalid, "invalid"),
    names.UNEXPECTED: (Problem, "internal-error"),
}


def refusal(error: ApplicationError) -> Problem | None:
    """Returns a workflow's refusal as a problem; ``None`` for words of Temporal's own."""
    known = _REFUSALS.get(error.type or "")
    if known is None:
        return None
    problem, code = known
    return problem(error.message, code=code)


def response(problem: Problem) -> Response:
    """Returns the HTTP answer to a problem."""
    return Response(
        json.dumps(problem.body()),
        status_code=problem.status,
        headers={**problem.headers(), "Cache-Control": "no-store"},
        media_type="application/problem+json",
    )


_PLAIN_CODES = {
    404: "not-found",
    405: "method-not-allowed",
    SlowRequest.status: SlowRequest.code,
    TooLarge.status: TooLarge.code,
}


class _Plain(Problem):
    """Starlette's own errors (unknown route, wrong method) in the same form."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(str(error.detail), code=_PLAIN_CODES.get(error.status_code))
        self.status = error.status_code  # type: ignore[misc]
        self.title = str(error.detail)  # type: ignore[misc]


def malformed(what: str, errors: Sequence[Mapping[str, Any]], *, code: str | None = None) -> Invalid:
    """Returns what to answer to input that doesn't fit its model: every place and what is wrong there.

    ``what`` names the whole, for errors that have no place in it.
    """
    found = [
        (".".join(str(part) for part in item["loc"]) or what, _what_is_wrong(item))
        for item in errors[:MAX_VALIDATION_ERRORS]
    ]
    at, problem = found[0] if found else (what, "invalid")
    return Invalid(
        f"{at}: {problem}", code=code, errors=[{"at": at, "problem": problem} for at, problem in found]
    )


def _what_is_wrong(item: Mapping[str, object]) -> str:
    # FastAPI says only "JSON decode error" of a body that isn't JSON, and keeps what our reader says aside.
    match item:
        case {"type": "json_invalid", "ctx": {"error": str(problem)}}:
            return problem
    return str(item["msg"])


def install(app: FastAPI) -> None:
    """Makes ``app`` answer every error with problem details."""

    async def handle(request: Request, error: Exception) -> Response:
        match error:
            case Problem():
                return response(error)
            case RequestValidationError():
                return response(malformed("body", error.errors()))
            case HTTPException():
                return response(_Plain(error))
            case _:
                raise error

    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    app.add_middleware(_Unexpected)


class _Unexpected:
    """Answers what nobody expected: a middleware, so that others around it (CORS) see an ordinary answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # The process is told to end, and the server has waited for this request long enough.
            if scope["type"] != "http" or begun:
                raise
            ending = Unavailable("This process is ending.", CarriedOut.UNKNOWN)
            await response(ending)(scope, receive, send)
        except Exception:
            if scope["type"] != "http" or begun:
                raise
            logger.exception("Unexpected error at %s %s", scope["method"], scope["path"])
            problem = response(Problem("Something went wrong here; it has been logged."))
            await problem(scope, receive, send)


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    kind.status: {
        "description": kind.title,
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "code", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string", "format": "uri-reference"},
                        "code": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                }
            }
        },
    }
    for kind in (
        Unauthenticated,
        Forbidden,
        UnknownSession,
        Conflict,
        Invalid,
        TooMany,
        SearchUnavailable,
        Unavailable,
    )
}
