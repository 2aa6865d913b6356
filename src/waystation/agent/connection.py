"""An agent process's one connection to the API: what its turns write goes up, controls come down.

The connection may be lost at any time. What was written but not acknowledged is kept and sent again; writers
number their items, so nothing counts twice. When too much is unacknowledged (Temporal or the API is down),
writing waits.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from pydantic import JsonValue, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from waystation.agent.writer import Control, Writer
from waystation.api_key import check_api_key
from waystation.backoff import Backoff
from waystation.models.ingest import (
    DescribeFrame,
    OpenFrame,
    ServerFrame,
)

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 16 * 1024 * 1024
MIN_RECONNECT_PAUSE_SECONDS = 0.1
MAX_RECONNECT_PAUSE_SECONDS = 3.0
OPEN_TIMEOUT_SECONDS = 5.0

_FRAMES: TypeAdapter[list[ServerFrame]] = TypeAdapter(list[ServerFrame])
_ANY_FRAMES: TypeAdapter[list[JsonValue]] = TypeAdapter(list[JsonValue])


class IngestConnection:
    """Connects, reconnects, and carries all writers of this process. Use as ``async with``."""

    def __init__(
        self,
        url: str,
        api_key: str,
        agents: Sequence[str] = (),
        starters: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """``agents``: those that this process runs, by name, for whoever lists agents; and their starters."""
        self._starters = dict(starters or {})
        scheme, _, rest = url.rstrip("/").partition("://")
        named = urlencode([("agent", agent) for agent in agents])
        self._shown_url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ingest"
        self._url = self._shown_url + (f"?{named}" if named else "")
        self._key = check_api_key(api_key)
        self._writers: dict[str, Writer] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connected, self._disconnected = asyncio.Event(), asyncio.Event()
        self._disconnected.set()
        self._trouble = ""
        """What was last logged about the connection: the same is not said again at every attempt."""
        self._background: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_connected(), name="ingest")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, *self._background, return_exceptions=True)

    def writer(self, frame: OpenFrame, control: Callable[[Control], None]) -> "Writer":
        """Returns a writer for one attempt of a turn; ``control`` is called with what the agent must know."""
        writer = Writer(self, frame, control)
        self._writers[writer.key] = writer
        self.wake()
        return writer

    def wake(self) -> None:
        self._wake.set()

    def drop(self, writer: "Writer") -> None:
        writer.closing = True
        self.wake()

    async def connected(self) -> None:
        """Waits until the API takes what is written."""
        await self._connected.wait()

    async def lost(self, *, for_seconds: float) -> None:
        """Waits until the API has been out of reach, or has refused the connection, for so long."""
        while True:
            await self._disconnected.wait()
            try:
                await asyncio.wait_for(self._connected.wait(), for_seconds)
            except TimeoutError:
                return

    async def _stay_connected(self) -> None:
        backoff = Backoff(MIN_RECONNECT_PAUSE_SECONDS, MAX_RECONNECT_PAUSE_SECONDS)
        while True:
            try:
                async with connect(
                    self._url,
                    additional_headers={"Authorization": f"Bearer {self._key}"},
                    compression=None,
                    max_size=MAX_FRAME_BYTES,
                    open_timeout=OPEN_TIMEOUT_SECONDS,
                ) as socket:
                    backoff.reset()
                    self._say("")
                    self._disconnected.clear()
                    self._connected.set()
                    await self._talk(socket)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as error:
                self._say(_why_not_connected(error))
            self._connected.clear()
            self._disconnected.set()
            for writer in self._writers.values():
                writer.disconnected()
            await backoff.wait()

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            logger.warning("Can't write to %s: %s Trying again.", self._shown_url, trouble)
        elif self._trouble and not trouble:
            logger.info("Connected to %s", self._shown_url)
        self._trouble = trouble

    async def _talk(self, socket: ClientConnection) -> None:
        if self._starters:
            await socket.send(DescribeFrame(starters=self._starters).model_dump_json())
        receiving = asyncio.create_task(self._receive(socket))
        sending = asyncio.create_task(self._send(socket))
        try:
            await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (receiving, sending):
                task.cancel()
            results = await asyncio.gather(receiving, sending, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _send(self, socket: ClientConnection) -> None:
        self.wake()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for writer in list(self._writers.values()):
                for frame in writer.due():
                    await socket.send(frame)
                if writer.closed:
                    del self._writers[writer.key]

    async def _receive(self, socket: ClientConnection) -> None:
        async for raw in socket:
            for frame in known_frames(raw):
                writer = self._writers.get(frame.writer or "")
                if writer:
                    writer.take(frame)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls ``call`` after a pause."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            call()

        task = asyncio.create_task(wait())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def known_frames(raw: str | bytes) -> Iterator[ServerFrame]:
    """Yields the frames of a message; what this version doesn't know or can't read costs only itself."""
    try:
        yield from _FRAMES.validate_json(raw)
    except ValidationError:
        try:
            frames = _ANY_FRAMES.validate_json(raw)
        except ValidationError:
            logger.warning("Ignored a message from the API that is no list of frames")
            return
        for frame in frames:
            try:
                yield from _FRAMES.validate_python([frame])
            except ValidationError:
                logger.warning("Ignored a frame from the API that this version doesn't know")


def _why_not_connected(error: Exception) -> str:
    """Says what keeps this process from writing, and what to do about it."""
    code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else 0
    status = error.response.status_code if isinstance(error, InvalidStatus) else 0
    if code in (4401, 4403) or status in (401, 403):
        return "the API refuses this agent's key; check WAYSTATION_API_KEY."
    if 0 < status < 500:
        return (
            f"the answer to the WebSocket handshake was {status}; "
            "if a proxy stands before the API, it must pass on the header 'Upgrade'."
        )
    return f"the API can't be reached ({type(error).__name__})."
