"""A place where one API is tested: a scripted agent on its socket, and its user on its HTTP routes."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from waystation.client import Client, Session
from waystation.conformance.played_api import until
from waystation.conformance.report import Report
from waystation.errors import ConnectionLost, StartError, TryLater
from waystation.models.events import Event

PATIENCE_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 10.0
START_ATTEMPTS: Final = 4
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
OPS: Final = frozenset(
    {"opened", "answered", "ack", "refused", "stop", "steer", "fenced", "spawned", "finished", "problem"}
)

Frame = dict[str, Any]
Written = tuple[str, str | None, Mapping[str, Any]]
"""What is written: its type, its message, its data."""
RECORDED: Final = "recorded"


class Line:
    """One connection of the scripted agent."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.messages: list[str | bytes] = []
        self.frames: list[Frame] = []
        self.closed_with: int | None = None
        self._listening = asyncio.create_task(self._listen())

    async def send(self, frame: Frame | str | bytes) -> None:
        """Sends a frame, or what is none."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    def hear(self, message: str | bytes) -> None:
        """Takes a message of the API."""
        self.messages.append(message)
        with contextlib.suppress(ValueError):
            frames = json.loads(message)
            self.frames += (
                [one for one in frames if isinstance(one, dict)] if isinstance(frames, list) else []
            )

    def heard(self, op: str, **fields: Any) -> list[Frame]:
        """Returns the frames of a kind that have these fields."""
        return [
            frame
            for frame in self.frames
            if frame.get("op") == op and all(frame.get(name) == value for name, value in fields.items())
        ]

    async def hears(self, op: str, *, within: float = PATIENCE_SECONDS, **fields: Any) -> Frame | None:
        """Waits for such a frame; ``None`` if it doesn't come."""
        await until(lambda: self.heard(op, **fields), within)
        return next(iter(self.heard(op, **fields)), None)

    async def close(self) -> None:
        """Ends the connection."""
        await self._socket.close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                self.hear(message)
        self.end(self._socket.close_code)

    def end(self, code: int | None) -> None:
        """Notes that the connection has ended."""
        self.closed_with = code


class Pen:
    """A writer on a line."""

    def __init__(self, bench: "ApiBench", line: Line, session: Session, frame: Frame) -> None:
        self._bench, self.line, self.session, self.frame = bench, line, session, frame
        self.writer: str = frame["writer"]
        self.n = 0

    async def open(self) -> None:
        """Opens the writer.

        Raises:
            Unmet: It was not opened.
        """
        before = len(self.line.heard("opened", writer=self.writer))
        await self.line.send(self.frame)
        opened = await until(
            lambda: len(self.line.heard("opened", writer=self.writer)) > before, PATIENCE_SECONDS
        )
        self._bench.report.demand("S-03", opened, f"open is answered with {self.line.frames[-1:]}")

    async def write(self, *written: Written, flush: bool = True) -> list[int]:
        """Writes items in one frame, and returns their numbers."""
        numbers = [self.n + 1 + at for at in range(len(written))]
        self.n += len(written)
        items = [
            {"n": n, "type": kind, "message_id": message_id, "data": data}
            for n, (kind, message_id, data) in zip(numbers, written, strict=True)
        ]
        await self.line.send({"op": "write", "writer": self.writer, "flush": flush, "items": items})
        return numbers

    def fate(self, n: int) -> str:
        """Returns what became of an item: recorded, the code of its refusal, or nothing yet."""
        for frame in self.line.heard("refused", writer=self.writer):
            if frame.get("first", 0) <= n <= frame.get("last", 0):
                return str(frame.get("code"))
        acks = [frame.get("n", 0) for frame in self.line.heard("ack", writer=self.writer)]
        return RECORDED if max(acks, default=0) >= n else ""

    async def settled(self, numbers: Sequence[int], within: float = FLUSH_SECONDS) -> list[str]:
        """Waits until items are settled, and returns what became of each.

        Raises:
            Unmet: They weren't in time.
        """
        await until(lambda: all(map(self.fate, numbers)), within)
        fates = [self.fate(n) for n in numbers]
        self._bench.report.demand("S-11", all(fates), f"{sum(map(bool, fates))} of {len(fates)} were settled")
        return fates


Dial = Callable[[str, Mapping[str, str]], Coroutine[Any, Any, Line]]


async def dial(url: str, headers: Mapping[str, str], kind: type[Line] = Line) -> Line:
    """Connects to an API as an agent does."""
    socket = await connect(
        url.replace("http", "ws", 1) + "/ingest",
        additional_headers=headers,
        max_size=MAX_MESSAGE_BYTES,
        compression=None,
    )
    return kind(socket)


class ApiBench:
    """Starts sessions and connections, and ends them with the scenario."""

    def __init__(self, client: Client, report: Report, *, dial: Dial = dial) -> None:
        self.client, self.report, self._dial = client, report, dial
        self.agent = f"conformance-{uuid4().hex[:12]}"
        """Nobody runs it: its turns are running as soon as they have begun, and wait for a process."""
        self._lines: list[Line] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._sessions: list[Session] = []

    async def line(self, headers: Mapping[str, str] | None = None) -> Line:
        """Opens a connection, by default with the key.

        Raises:
            InvalidStatus: Others are refused.
            StartError: The key is refused.
            ConnectionLost: The API has gone.
        """
        try:
            line = await self._dial(self.client.url, self.client.headers if headers is None else headers)
        except InvalidStatus as error:
            if headers is not None:
                raise
            raise StartError(f"/ingest answers the key with {error.response.status_code}.") from error
        except (OSError, InvalidHandshake) as error:
            raise ConnectionLost(f"/ingest can't be reached ({type(error).__name__}).") from error
        self._lines.append(line)
        return line

    async def is_refused(self, headers: Mapping[str, str]) -> str:
        """Returns how a connection is refused; empty if it isn't."""
        try:
            line = await self.line(headers)
        except InvalidStatus as error:
            return f"the handshake is answered with {error.response.status_code}"
        if await until(lambda: line.closed_with is not None, 1.0):
            return f"closed with {line.closed_with}"
        return ""

    async def session(self, message: str | None = None) -> Session:
        """Starts a session; with a message, the turn ``t1`` runs in it."""
        session = self.client.attach(f"{self.agent}-{uuid4().hex[:12]}")
        self._sessions.append(session)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                await self.client.start(self.agent, session_id=session.id, message=message)
            except TryLater as error:
                if attempt == START_ATTEMPTS:
                    raise
                await asyncio.sleep(error.retry_after_seconds or 1.0)
            else:
                break
        return session

    async def pen(
        self,
        *,
        message: str | None = None,
        session: Session | None = None,
        line: Line | None = None,
        **more: Any,
    ) -> Pen:
        """Opens a writer: with a message, of the turn that answers it, else of none."""
        session = session or await self.session(message)
        turn = {"turn_id": "t1", "attempt": 1, "after": 0} if message else {}
        frame = {
            "op": "open", "session_id": session.id, "writer": f"w-{uuid4().hex[:8]}",
            "actor": {"id": self.agent, "role": "agent"}, **turn, **more,
        }  # fmt: skip
        pen = Pen(self, line or await self.line(), session, frame)
        await pen.open()
        return pen

    async def events(self, session: Session) -> list[Event]:
        """Returns everything in a session's log."""
        return list((await session.replay()).events)

    def aside(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Does something that is answered only later."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def clear(self) -> None:
        """Looks at what was heard, and ends the scenario's sessions and connections."""
        for line in self._lines:
            for message in line.messages:
                self.report.check(
                    "S-02", not (wrong := _what_is_wrong_with(message)), wrong or "lists of frames"
                )
            await line.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self._sessions:
            with contextlib.suppress(Exception):
                await session.close()
        self._lines.clear()
        self._tasks.clear()
        self._sessions.clear()


def _what_is_wrong_with(message: str | bytes) -> str:
    if not isinstance(message, str):
        return "a binary message"
    try:
        frames = json.loads(message)
    except ValueError:
        return f"no JSON: {message[:80]}"
    if not isinstance(frames, list) or not all(
        isinstance(one, dict) and one.get("op") in OPS for one in frames
    ):
        return f"no list of frames: {message[:80]}"
    return ""
