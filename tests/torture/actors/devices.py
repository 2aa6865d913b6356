"""Devices on which people follow a session, each by a way of its own, until it is closed and read."""

import asyncio
import contextlib
import json
from typing import Any, ClassVar, Final

import httpx
import websockets
from websockets.asyncio.client import connect

from tests.torture.actors.base import Acting, read_json
from tests.torture.proxy import PROXY_HEADER
from tests.torture.screen import Screen
from waystation.client import Client
from waystation.errors import WaystationError
from waystation.models.events import Event

SILENCE_SECONDS: Final = 45.0
"""After this long without a byte a connection is dead (docs/browsers.md)."""
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 2.0
NOTED_BLOCKS: Final = 200
OVER_CODE: Final = 4204
"""How a socket is closed when the session is over and has been read."""
WRONG_CURSOR_CODE: Final = 4400


class SessionOver(Exception):
    """The session is closed and has been read to its end."""


class Device(Acting):
    """Connects, reads, loses the connection, and connects again at its cursor."""

    stays = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.screen = Screen()
        self._blocks: list[list[Any]] = []
        self._pause = MIN_PAUSE_SECONDS

    async def run(self) -> None:
        if not await self.arrive():
            return
        try:
            while True:
                try:
                    await self.connect_once()
                except SessionOver:
                    self.show(over=True)
                    return
                except (
                    httpx.HTTPError,
                    OSError,
                    TimeoutError,
                    websockets.WebSocketException,
                    WaystationError,
                ):
                    pass
                self.note_blocks()
                await asyncio.sleep(self._pause * self.chance.uniform(1, 1.3))
                self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
        finally:
            self.note_blocks()

    async def connect_once(self) -> None:
        """Reads from one connection until it is lost; raises ``SessionOver`` at the session's end."""
        raise NotImplementedError

    def show(self, *, over: bool) -> None:
        """Notes what is on the screen at the end."""
        self.note_blocks()
        screen = self.screen
        self.note("screen", over=over, cursor=screen.cursor, messages=screen.messages, events=screen.events)

    # What arrives

    def took(self, block: dict[str, Any]) -> None:
        """Takes in one object from the stream, as it arrived."""
        self._pause = MIN_PAUSE_SECONDS
        if "seq" in block and block["type"] != "cursor":
            self.saw("event", block["seq"], block["type"], block.get("turn_id"), block.get("message_id"))
            self.screen.event(block)
        elif block["type"] == "message.delta":
            data = block["data"]
            self.saw("live", block.get("turn_id"), block["message_id"], data["offset"], data["text"])
            self.screen.live(block)
        elif block["type"] == "cursor":
            self.took_cursor(block["seq"])
        else:
            self.saw("other", block["type"])

    def took_cursor(self, seq: int) -> None:
        self.saw("cursor", seq)
        self.screen.advance(seq)

    def saw(self, *block: Any) -> None:
        self._blocks.append(list(block))
        if len(self._blocks) >= NOTED_BLOCKS:
            self.note_blocks()

    def begin_anew(self) -> None:
        """Forgets everything, as when a page is loaded anew."""
        self.note_blocks()
        self.saw("anew")
        self.screen = Screen()

    def note_blocks(self) -> None:
        if self._blocks:
            self.note("read", blocks=self._blocks)
            self._blocks = []


class Sse(Device):
    """Reads the event stream as docs/browsers.md does."""

    pause_between_reads_seconds: ClassVar[float] = 0.0

    async def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self.token()}"}

    async def connect_once(self) -> None:
        headers, cursor = (
            {**await self.headers(), "Last-Event-ID": str(self.screen.cursor)},
            self.screen.cursor,
        )
        timeout = httpx.Timeout(10.0, read=SILENCE_SECONDS)
        async with self.http.stream(
            "GET", self.url() + self.of_session("events"), headers=headers, timeout=timeout
        ) as response:
            proxied = PROXY_HEADER in response.headers
            self.note("stream", status=response.status_code, cursor=cursor, proxied=proxied)
            if response.status_code == 204 and not proxied:
                raise SessionOver
            if response.status_code != 200:
                await response.aread()
                self.refused(response, proxied)
                return
            self.saw("open", cursor)
            await self.read(response)

    def refused(self, response: httpx.Response, proxied: bool) -> None:
        """The stream was refused; the API's own 401 asks for another token."""
        if response.status_code == 401 and not proxied:
            self._token = None
        elif response.status_code == 400 and not proxied:  # of a session that was reset
            self.begin_anew()

    async def read(self, response: httpx.Response) -> None:
        rest = b""
        async for piece in response.aiter_raw():
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                self.take_block(block.decode())
            if self.pause_between_reads_seconds:
                await asyncio.sleep(self.pause_between_reads_seconds)

    def take_block(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            self.took(json.loads(fields["data"]))
        elif "id" in fields:
            self.took_cursor(int(fields["id"]))


class Slow(Sse):
    """Reads a little, and rests."""

    pause_between_reads_seconds = 0.7


class Vanishing(Sse):
    """Is gone for a while in the middle of anything, and comes back with its cursor."""

    async def read(self, response: httpx.Response) -> None:
        if self.calm.is_set():
            await super().read(response)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.chance.uniform(0.05, 4)):
                await super().read(response)
        self.note_blocks()
        await asyncio.sleep(self.chance.uniform(0, 3))


class WebPage(Sse):
    """``EventSource`` with a cookie: it comes back, but not after a refusal; then the page is loaded anew."""

    _cookie: str | None = None

    async def headers(self) -> dict[str, str]:
        if self._cookie is None:
            response = await self.http.post(
                self.url() + "/cookie",
                headers={"Authorization": f"Bearer {await self.token()}"},
                timeout=10.0,
            )
            self.note("cookie", status=response.status_code)
            self._cookie = response.headers.get("set-cookie", "none=none").split(";")[0]
        return {"Cookie": self._cookie}

    def refused(self, response: httpx.Response, proxied: bool) -> None:
        self._cookie = None
        self.begin_anew()


class Transcripts(Sse):
    """Fetches the transcript first, and again from time to time; events follow."""

    async def connect_once(self) -> None:
        if self.screen.cursor == 0 or self.chance.random() < 0.3:
            answer = await self.http.get(
                self.url() + self.of_session("transcript"), headers=await self.headers(), timeout=20.0
            )
            if answer.status_code == 200:
                view = read_json(answer)
                self.saw("transcript", view["cursor"])
                self.screen.transcript(view)
        await super().connect_once()


class Socket(Device):
    """A WebSocket with a ticket for each connection."""

    async def connect_once(self) -> None:
        answer = await self.ask("ticket", "POST", self.of_session("tickets"), key=await self.token())
        if not answer.ok:
            return
        cursor = self.screen.cursor
        where = f"{self.of_session('socket')}?after={cursor}&ticket={answer.body['token']}"
        url = self.url().replace("http", "ws", 1) + where
        try:
            async with connect(url, open_timeout=10, max_size=None, ping_timeout=None) as socket:
                self.saw("open", cursor)
                while True:
                    block = json.loads(await asyncio.wait_for(socket.recv(), SILENCE_SECONDS))
                    if block["type"] == "problem":
                        self.note("socket", problem=block["problem"])
                    elif block["type"] == "cursor":
                        self.took_cursor(block["seq"])
                    else:
                        self.took(block)
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            self.note("socket", code=code, reason=closed.rcvd.reason if closed.rcvd else None)
            if code == OVER_CODE:
                raise SessionOver from None
            if code == WRONG_CURSOR_CODE:
                self.begin_anew()


class Sdk(Device):
    """Our own client, which comes back by itself."""

    async def run(self) -> None:
        if not await self.arrive():
            return
        client = Client(self.url(), await self.token(), http=self.http)
        session = client.attach(self.session)
        while True:
            try:
                if self.chance.random() < 0.3:
                    await session.load()
                    self.saw("transcript", session.transcript.cursor)
                async for event in session.events():
                    if isinstance(event, Event):
                        self.saw("event", event.seq, event.type, event.turn_id, event.message_id)
                    else:
                        data = event.data
                        self.saw("live", event.turn_id, event.message_id, data["offset"], data["text"])
                break
            except WaystationError as error:
                self.note("sdk", error=str(error)[:300])
                if getattr(error, "code", None) == "wrong-cursor":
                    session = client.attach(self.session)
                    self.saw("anew")
                self.saw("open", session.transcript.cursor)
                await asyncio.sleep(0.5)
        self.note_blocks()
        transcript = session.transcript
        self.note(
            "screen",
            over=True,
            cursor=transcript.cursor,
            messages=[[m.id, m.actor.id, m.text] for m in transcript.messages if m.status != "superseded"],
            events=[(event.seq, event.type) for event in transcript.events],
        )


__all__ = ["Device", "Sdk", "Slow", "Socket", "Sse", "Transcripts", "Vanishing", "WebPage"]
