"""Form bodies behind a paywall: keeps what was sent, so that a payment is bound to it.

FastAPI reads a form before the route runs, and it can be read only once. This middleware reads it
first, keeps its bytes for the paywall, and passes them on::

    app.add_middleware(KeepForms)
"""

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_FORM_BYTES: Final = 10 * 1024 * 1024
"""A form is held in memory while it is paid for."""
KEPT: Final = "waystation.form"
"""The key of the bytes in the request's scope."""

_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")


class KeepForms:
    """ASGI middleware. Requests without a form pass through unchanged; too large a form gets a 413."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_FORM_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        kind = Headers(scope=scope).get("content-type", "") if scope["type"] == "http" else ""
        if not kind.lower().startswith(_FORMS):
            await self._app(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            await PlainTextResponse(f"the form must have at most {self._max_bytes} bytes", 413)(
                scope, receive, send
            )
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app({**scope, KEPT: body}, again, send)

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return bytes(body)
