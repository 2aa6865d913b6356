"""Records what an ASGI application sends, so that a paid answer can be delivered again.

What is larger than the recorder holds is passed on as it comes, to the one client that waits for it.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Message

from waystation.models.payments import HeaderPair
from waystation.seller.paywall.entries import StoredAnswer

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A larger answer is delivered, but not kept for a second delivery."""
MAX_WAITING_CHUNKS: Final = 4
"""Of a large answer: how far the handler may be ahead of its client."""
STALLED_CLIENT_SECONDS: Final = 120.0
"""A client that takes nothing of a large answer for so long counts as gone."""
RETRYABLE_STATUSES: Final = frozenset({402, 408, 425, 429})
"""Answers of a paid handler that, like those from 500 on, say "not now": it runs again. (A 402 would ask a
client that has paid to pay.)"""

# Headers that belong to one hop or one client are not recorded.
_UNRECORDED_HEADERS: Final = frozenset(
    {"content-length", "date", "server", "connection", "transfer-encoding", "set-cookie"}
)


def is_retryable(status: int) -> bool:
    """Returns whether a paid handler that answers so must run again."""
    return status >= 500 or status in RETRYABLE_STATUSES


class Recorder:
    """The ``send`` of one run of a paid handler.

    At any time the run is ``settled``: the answer is complete, is one to retry, or has become too large.
    """

    def __init__(self, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self.settled = asyncio.Event()
        self.status: int | None = None
        self.headers: tuple[HeaderPair, ...] = ()
        self.large: LargeAnswer | None = None
        self._body = bytearray()
        self._complete = False
        self._max_bytes = max_bytes

    @property
    def retry(self) -> bool:
        """Whether the handler answered that it can't answer now."""
        return self.status is not None and is_retryable(self.status)

    @property
    def retry_after(self) -> str | None:
        """The handler's own ``Retry-After``."""
        return next((value for name, value in self.headers if name.lower() == "retry-after"), None)

    @property
    def answer(self) -> StoredAnswer | None:
        """The whole answer, if it is complete, worth keeping and small enough."""
        if self.status is None or not self._complete or self.retry or self.large is not None:
            return None
        body = base64.b64encode(bytes(self._body)).decode()
        return StoredAnswer(status=self.status, headers=self.headers, body_base64=body)

    async def send(self, message: Message) -> None:
        """Takes one ASGI message. Those that are neither start nor body have no place in a record.

        Raises:
            OSError: The client of a large answer is gone.
        """
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            self.headers = tuple(_kept_headers(message))
            if self.retry:
                self.settled.set()
        elif message["type"] == "http.response.body" and not self.retry:
            await self._take(bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))

    async def _take(self, chunk: bytes, *, more: bool) -> None:
        if self.large is not None:
            await self.large.put(chunk)
        else:
            self._body += chunk
            if len(self._body) > self._max_bytes:
                await self._overflow()
        if not more:
            self._complete = True
            if self.large is not None:
                await self.large.put(None)
            self.settled.set()

    async def _overflow(self) -> None:
        if self.status is None:
            raise RuntimeError("a response has a start before its body")
        self.large = LargeAnswer(self.status, self.headers)
        self.settled.set()
        await self.large.put(bytes(self._body))
        self._body.clear()


def _kept_headers(message: Message) -> list[HeaderPair]:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
    return [(name, value) for name, value in pairs if name.lower() not in _UNRECORDED_HEADERS]


class LargeAnswer:
    """An answer on its way from the handler to one client, a few chunks at a time."""

    def __init__(self, status: int, headers: tuple[HeaderPair, ...]) -> None:
        self.status, self.headers = status, headers
        self._received: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING_CHUNKS)
        self._taken = 0
        self._broken = False

    # The handler's end

    async def put(self, chunk: bytes | None) -> None:
        """Waits for room; None ends the answer.

        Raises:
            OSError: The client is gone, or takes nothing any more.
        """
        if not self._received.done():
            try:
                async with asyncio.timeout(STALLED_CLIENT_SECONDS):
                    await self._chunks.put(chunk)
            except TimeoutError:
                self.abandon()
        if self._received.done() and not self._received.result():
            raise OSError("the client of a large paid answer is gone")

    async def break_off(self) -> None:
        """Says that the handler failed midway: its client must not take this for the whole answer."""
        self._broken = True
        with contextlib.suppress(OSError):
            await self.put(None)

    async def received(self) -> bool:
        """Waits until it is known whether the client took all of it."""
        before = -1
        while not self._received.done() and before != self._taken:
            before = self._taken
            await asyncio.wait({self._received}, timeout=STALLED_CLIENT_SECONDS)
        self.abandon()
        return self._received.result()

    # The client's end

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the answer to its one client."""
        try:
            while (chunk := await self._chunks.get()) is not None:
                self._taken += 1
                yield chunk
            if self._broken:
                raise ConnectionAbortedError("the paid handler failed midway")
            if not self._received.done():
                self._received.set_result(True)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Says that the client is gone, unless it took everything. The handler's next chunk stops it."""
        if self._received.done():
            return
        self._received.set_result(False)
        while not self._chunks.empty():
            self._chunks.get_nowait()
