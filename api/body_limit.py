"""Bounds what a request may carry: a body is read before anyone knows who sends it."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import TooLarge, response

MAX_BODY_BYTES = 16 * 1024 * 1024


class BodyLimit:
    """Answers 413 to a body above ``MAX_BODY_BYTES``, declared or not, and reads no further."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            await response(_problem())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                # Not a Problem: FastAPI turns exceptions it doesn't know into a 400.
                problem = _problem()
                raise HTTPException(problem.status, problem.detail)
            return message

        await self._app(scope, counted, send)


def _problem() -> TooLarge:
    return TooLarge(f"A request's body has at most {MAX_BODY_BYTES} bytes; send less at once.")
