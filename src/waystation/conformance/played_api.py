"""The API as a conformance run plays it: ``/ingest`` and an empty transcript, with any trouble."""

import asyncio
import http
import json
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import JsonValue
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from waystation.errors import StartError

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""What is read at all: a frame over the limit should be seen, not be a lost connection."""
LOOK_EVERY_SECONDS: Final = 0.01


async def until(holds: Callable[[], Any], within: float) -> bool:
    """Waits until something holds; returns whether it did in time.

    Where this process itself comes late to look, the machine is busy, and others are late too: of a pause no
    more counts than twice what it should take.
    """
    while not (held := bool(holds())):
        if within <= 0:
            break
        began = time.monotonic()
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        within -= min(time.monotonic() - began, 2 * LOOK_EVERY_SECONDS)
    return held


class Handshake(NamedTuple):
    """An attempt to connect."""

    at: float
    path: str
    authorization: str
    status: int


class Heard(NamedTuple):
    """A frame that came up."""

    at: float
    connection: int
    raw: str | bytes
    frame: dict[str, Any]

    @property
    def op(self) -> str:
        """What it asks for."""
        return str(self.frame.get("op"))

    @property
    def writer(self) -> str:
        """The writer it names."""
        return str(self.frame.get("writer"))

    @property
    def items(self) -> list[dict[str, Any]]:
        """Its items, as far as they are any."""
        items = self.frame.get("items")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


class Play:
    """One session as it is played: what it does with what comes, and what has come."""

    def __init__(self, api: "PlayedApi", session_id: str) -> None:
        self._api, self.session_id = api, session_id
        self.heard: list[Heard] = []
        self.acks = True
        self.ack_up_to: int | None = None
        self.refuse: range = range(0)
        self.open_after_seconds = 0.0
        self.instead_of_opened: list[dict[str, Any]] = []
        """Answered to ``open``, each once, before ``opened`` is."""
        self.spawns = True
        self.acked = 0
        self.connection = 0
        """The one on which the writer was opened last."""
        self.opened: dict[tuple[int, str], float] = {}
        """When ``opened`` was sent first, by connection and writer."""

    def of(self, op: str) -> list[Heard]:
        """Returns the frames of a kind."""
        return [heard for heard in self.heard if heard.op == op]

    @property
    def writer(self) -> str:
        """The id of the writer that was opened last."""
        opens = self.of("open")
        return opens[-1].writer if opens else ""

    def items(self, kind: str = "", *, writer: str = "") -> list[dict[str, Any]]:
        """Returns all items that came, repeats too."""
        return [
            item
            for heard in self.of("write")
            if not writer or heard.writer == writer
            for item in heard.items
            if not kind or item.get("type") == kind
        ]

    def numbers_on(self, connection: int) -> list[Any]:
        """Returns the numbers of the items that came on a connection, in the order of their coming."""
        return [
            item.get("n") for heard in self.heard if heard.connection == connection for item in heard.items
        ]

    def numbers_after(self, connection: int) -> list[Any]:
        """Returns the same of all later connections."""
        later = sorted({heard.connection for heard in self.heard if heard.connection > connection})
        return [n for one in later for n in self.numbers_on(one)]

    def unsettled_bytes(self) -> int:
        """Returns how much came that was neither acknowledged nor refused."""
        kept = {item.get("n"): item for item in self.items()}
        return sum(
            len(json.dumps(item, ensure_ascii=False).encode())
            for n, item in kept.items()
            if isinstance(n, int) and n > self.acked
        )

    async def tell(self, *frames: dict[str, Any]) -> None:
        """Sends frames to the writer, in one message."""
        await self._api.send(self.connection, [{"writer": self.writer, **frame} for frame in frames])

    async def settle(self) -> None:
        """Refuses and acknowledges what is due."""
        numbers = [item["n"] for item in self.items(writer=self.writer) if isinstance(item.get("n"), int)]
        last = min(max(numbers, default=0), 2**62 if self.ack_up_to is None else self.ack_up_to)
        due = range(self.acked + 1, last + 1)
        if not due or not self.acks:
            return
        frames: list[dict[str, Any]] = []
        if refused := [n for n in due if n in self.refuse]:
            frames.append(
                {
                    "op": "refused",
                    "first": refused[0],
                    "last": refused[-1],
                    "code": "gap",
                    "detail": "As played.",
                }
            )
        recorded = [n for n in due if n not in self.refuse]
        if recorded:
            frames.append({"op": "ack", "n": recorded[-1]})
        self.acked = last
        await self.tell(*frames)

    async def take(self, heard: Heard) -> None:
        """Notes a frame of the session, and answers it."""
        self.heard.append(heard)
        match heard.op:
            case "open":
                self.connection = heard.connection
                await asyncio.sleep(self.open_after_seconds)
                if self.instead_of_opened:
                    await self.tell(self.instead_of_opened.pop(0))
                    return
                self.opened.setdefault((heard.connection, heard.writer), time.monotonic())
                await self.tell({"op": "opened"})
            case "write":
                await self.settle()
            case "spawn" if self.spawns:
                request = heard.frame.get("request")
                await self.tell({"op": "spawned", "request": request, "turn_id": "t1.1"})


class PlayedApi:
    """A server on 127.0.0.1 that an agent takes for the API. Use as ``async with``."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host, self._port = host, port
        self._server: Server | None = None
        self._sockets: dict[int, ServerConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: dict[str, Play] = {}
        self.plays: dict[str, Play] = {}
        self.handshakes: list[Handshake] = []
        self.heard: list[Heard] = []
        self.strays: list[Heard] = []
        """Frames that named no session and no writer that was opened on their connection."""
        self.refusals: list[int] = []
        """The status with which the next handshakes are refused, one each."""
        self.most_connections = 0

    @property
    def url(self) -> str:
        """What the agent needs as ``WAYSTATION_URL``."""
        assert self._server is not None, "it serves"
        return f"http://{self._host}:{next(iter(self._server.sockets)).getsockname()[1]}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._sockets)

    def play(self, session_id: str) -> Play:
        """Returns a session, which is new."""
        play = self.plays[session_id] = Play(self, session_id)
        return play

    async def send(self, connection: int, frames: list[dict[str, Any]]) -> None:
        """Sends a list of frames down a connection, if it is still there."""
        if socket := self._sockets.get(connection):
            with suppress(ConnectionClosed):
                await socket.send(json.dumps(frames))

    def cut(self) -> None:
        """Cuts all connections off, as a network does: without a word."""
        for socket in self._sockets.values():
            socket.transport.abort()

    async def __aenter__(self) -> Self:
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                process_request=self._process,
                max_size=MAX_MESSAGE_BYTES,
                compression=None,
            )
        except OSError as error:
            raise StartError(f"nobody can listen on {self._host}:{self._port} ({error.strerror}).") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        assert self._server is not None, "it was entered"
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if "websocket" not in request.headers.get("Upgrade", "").lower():
            return _transcript(path)
        status = self.refusals.pop(0) if self.refusals else 101
        authorization = request.headers.get("Authorization", "")
        self.handshakes.append(Handshake(time.monotonic(), path, authorization, status))
        return None if status == 101 else _answer(status, {"code": "refused", "detail": "As played."})

    async def _serve(self, socket: ServerConnection) -> None:
        number = len(self.handshakes)
        self._sockets[number] = socket
        self.most_connections = max(self.most_connections, len(self._sockets))
        with suppress(ConnectionClosed):
            try:
                async for raw in socket:
                    self._hear(number, raw)
            finally:
                del self._sockets[number]

    def _hear(self, number: int, raw: str | bytes) -> None:
        try:
            frame = json.loads(raw)
        except ValueError:
            frame = {}
        heard = Heard(time.monotonic(), number, raw, frame if isinstance(frame, dict) else {})
        self.heard.append(heard)
        play = self.plays.get(str(heard.frame.get("session_id"))) or self._writers.get(heard.writer)
        if play is None:
            self.strays.append(heard)
            return
        self._writers[heard.writer] = play
        task = asyncio.create_task(play.take(heard))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _answer(status: int, body: JsonValue) -> Response:
    content = json.dumps(body).encode()
    headers = Headers(
        {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    )
    return Response(status, http.HTTPStatus(status).phrase, headers, content)


def _transcript(path: str) -> Response:
    """Answers the only other question that agents ask: what was said so far."""
    _, _, rest = path.partition("/sessions/")
    session_id, _, what = rest.partition("/")
    if what != "transcript":
        return _answer(404, {"code": "not-found", "detail": "There is no such route here."})
    return _answer(
        200, {"session_id": session_id, "cursor": 3, "closed": False, "messages": [], "events": []}
    )
