"""One open response of server-sent events: of a session's, or of what waits for a person.

A session may have a thousand streams, and every delta goes to each of them: a stream writes bytes that all
streams share, and has a single timer.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from api.auth import Principal
from api.errors import Problem
from api.live.delivery import Frame
from waystation.settings import Settings

logger = logging.getLogger(__name__)

RETRY_MS = 1_000
SEND_TIMEOUT_SECONDS = 60.0
"""A client that accepts nothing for this long is disconnected; it resumes from its cursor."""
SHUTDOWN_GRACE_SECONDS = 1.0
"""What a stream may take to end when the process is told to; then it is cut off."""
_BEGINNING = f"retry: {RETRY_MS}\n\n".encode()
_STILL_HERE = Frame.comment("still here")


class Streamed(Protocol):
    """One client's place in what is streamed."""

    def frames(self) -> AsyncIterator[list[Frame]]:
        """Yields frames as they come, all that are ready together."""
        ...

    def push(self, frame: Frame) -> None:
        """Sends a frame besides."""

    def end(self) -> None:
        """Ends the stream."""


def lifetime_seconds(settings: Settings, caller: Principal) -> float:
    """Returns how long a stream of the caller's may last: never beyond their token."""
    left, bound = caller.seconds_left(), settings.stream_lifetime_seconds
    return bound if left is None else min(left, bound)


class _EndOf:
    """What is set when the process is told to exit: ends one stream, so that its response is complete."""

    def __init__(self, subscription: Streamed) -> None:
        self.set = subscription.end


class EventStream(EventSourceResponse):
    """Sends what a subscription brings until it or the client ends, then releases ``resources``.

    The base class's own ping and timeout would cost a task for each stream, and another for each chunk.
    """

    def __init__(
        self, subscription: Streamed, resources: contextlib.AsyncExitStack, *, heartbeat_seconds: float
    ) -> None:
        super().__init__(
            self._blocks(subscription),
            ping=0,
            sep="\n",
            shutdown_event=_EndOf(subscription),  # type: ignore[arg-type]  # only its `set` is called
            shutdown_grace_period=SHUTDOWN_GRACE_SECONDS,
        )
        self._subscription, self._resources = subscription, resources
        self._heartbeat_seconds = heartbeat_seconds
        self._quiet = True
        self._sending_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            try:
                async with asyncio.timeout(None) as patience:
                    self._watch(patience)
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                logger.info("A client has taken nothing for %g s; it may resume", SEND_TIMEOUT_SECONDS)
            finally:
                self._timer.cancel()

    async def _blocks(self, subscription: Streamed) -> AsyncIterator[bytes]:
        yield _BEGINNING
        time = asyncio.get_running_loop().time
        try:
            async for frames in subscription.frames():
                # The next block is asked for once this one is sent.
                self._sending_since = time()
                yield frames[0].sse if len(frames) == 1 else b"".join([frame.sse for frame in frames])
                self._sending_since = None
                self._quiet = False
        except Problem as problem:
            # The answer has begun, so it can't become a refusal: it ends, and the client resumes.
            logger.info("A stream ends early (%s); its client may resume", problem.code)

    def _watch(self, patience: asyncio.Timeout) -> None:
        """Sends a sign of life when all is quiet; ends the stream when the client accepts nothing."""
        loop = asyncio.get_running_loop()
        since = self._sending_since
        if since is not None and loop.time() - since >= SEND_TIMEOUT_SECONDS:
            patience.reschedule(loop.time())
            return
        self._timer = loop.call_later(self._heartbeat_seconds, self._watch, patience)
        if self._quiet and since is None:
            self._subscription.push(_STILL_HERE)
        self._quiet = True
