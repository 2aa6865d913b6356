"""The door of every HTTP route: callers are known before bodies are read, and bodies are bounded.

In this order: authenticate, where the route has a ``Caller``; read the body, up to the route's limit and
within a time; parse it as JSON from outside. Large bodies are parsed beside the event loop, which serves
everybody.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.dependencies import authenticate
from api.errors import SlowRequest, TooLarge
from waystation.foreign_json import ForeignJsonError, read_json
from waystation.whole_numbers import whole_number

MAX_BODY_BYTES: Final = 256 * 1024
"""Of a route that says nothing else."""
MAX_TEXT_BODY_BYTES: Final = 4 * 1024 * 1024
"""Of a route that takes a message: its longest text, should every character be escaped."""
MAX_BATCH_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of a route that takes many things at once."""
MAX_PARSED_ON_LOOP_BYTES: Final = 64 * 1024
BODY_TIMEOUT_SECONDS: Final = 30.0

Endpoint = TypeVar("Endpoint", bound=Callable[..., object])


def takes_body_of(max_bytes: int) -> Callable[[Endpoint], Endpoint]:
    """Lets a route take a body of up to ``max_bytes``; stands below ``@router.post``."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__[_LIMIT] = max_bytes
        return endpoint

    return mark


class DoorRoute(APIRoute):
    """A route behind the door; the ``route_class`` of every router here."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Returns FastAPI's handler, with the door before it."""
        handle = super().get_route_handler()
        max_bytes: int = getattr(self.endpoint, _LIMIT, MAX_BODY_BYTES)
        knows_caller = _depends_on(self.dependant, authenticate)

        async def pass_door(request: Request) -> Response:
            if knows_caller:
                await authenticate(request)
            return await handle(_BoundedRequest(request, max_bytes))

        return pass_door


class _BoundedRequest(Request):
    """A request whose body is read once, within its bounds."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        super().__init__(request.scope, request.receive)
        self._max_bytes = max_bytes
        self._read: bytes | None = None

    async def body(self) -> bytes:
        """Returns the body.

        Raises:
            HTTPException: It is larger than the route takes, or didn't arrive in time.
        """
        if self._read is None:
            self._read = await self._read_bounded()
        return self._read

    async def json(self) -> Any:
        """Returns the body as Python values; what can't be read FastAPI answers with a validation problem."""
        raw = await self.body()
        try:
            if len(raw) > MAX_PARSED_ON_LOOP_BYTES:
                return await asyncio.to_thread(read_json, raw)
            return read_json(raw)
        except ForeignJsonError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None

    async def _read_bounded(self) -> bytes:
        declared = whole_number(self.headers.get("content-length", ""))
        if declared is not None and declared > self._max_bytes:
            raise self._too_large()
        read = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                async for chunk in self.stream():
                    read += chunk
                    if len(read) > self._max_bytes:
                        raise self._too_large()
        except ClientDisconnect:
            # Nobody reads this; as it is, it would be an error in our log.
            raise HTTPException(400, "The request didn't arrive whole.") from None
        except TimeoutError:
            late = f"The body didn't arrive within {BODY_TIMEOUT_SECONDS:.0f} seconds; send it again."
            raise HTTPException(SlowRequest.status, late) from None
        return bytes(read)

    def _too_large(self) -> HTTPException:
        # Not a Problem: while it reads a body, FastAPI makes a 400 of what it doesn't know.
        most = f"This route takes a body of at most {self._max_bytes} bytes; send less at once."
        return HTTPException(TooLarge.status, most)


_LIMIT: Final = "__max_body_bytes__"


def _depends_on(dependant: Dependant, call: Callable[..., object]) -> bool:
    return dependant.call is call or any(_depends_on(inner, call) for inner in dependant.dependencies)
