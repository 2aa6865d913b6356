"""How the API reads from a WebSocket and closes it: with a code and a reason that docs/http-api.md lists."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Final

from fastapi import WebSocket, WebSocketDisconnect

from api.errors import Problem

logger = logging.getLogger(__name__)

APPLICATION_CODES: Final = 4000
"""What is added to an HTTP status to say the same by closing a socket."""


class SocketClosing(Exception):
    """Ends the service of a socket, and says how it is closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def read_to_its_end() -> SocketClosing:
    """The session is closed and has been read to its end, as a stream says with 204."""
    return SocketClosing(APPLICATION_CODES + 204, "session-closed")


def connect_again() -> SocketClosing:
    """The connection has lasted as long as one may, or this process stops."""
    return SocketClosing(1001, "connect-again")


def too_slow() -> SocketClosing:
    """The other side doesn't read what it is sent."""
    return SocketClosing(1008, "too-slow")


def as_problem(problem: Problem) -> SocketClosing:
    """What the problem says over HTTP."""
    return SocketClosing(APPLICATION_CODES + problem.status, problem.code)


async def receive_text(socket: WebSocket) -> str:
    """Returns the next message.

    Raises:
        WebSocketDisconnect: The other side has gone.
        SocketClosing: The message is binary.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    if not isinstance(text, str):
        raise SocketClosing(1003, "binary-message")
    return text


def why_ended(tasks: Iterable["asyncio.Future[None]"]) -> SocketClosing | None:
    """Returns how to close a socket that one of these finished tasks has ended; ``None`` if it is gone."""
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        match error:
            case None:
                return too_slow() if task.cancelled() else connect_again()
            case SocketClosing():
                return error
            case Problem():
                return as_problem(error)
            case WebSocketDisconnect():
                continue
            case _:
                logger.error("A socket failed", exc_info=error)
                return SocketClosing(1011, "internal-error")
    return None


async def close(socket: WebSocket, closing: SocketClosing) -> None:
    """Closes a socket, unless the other side has gone."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(closing.code, closing.reason)
