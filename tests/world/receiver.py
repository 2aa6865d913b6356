"""A receiver of webhooks: keeps what it hears, checked by the reference library; misbehaves when told."""

import asyncio
import re
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from standardwebhooks.webhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.support import eventually
from tests.world.uvicorn import served


@dataclass(frozen=True)
class Heard:
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def checked(self, secret: str) -> Any:
        """What it says; raises unless it is signed with the secret, as the reference library checks it."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """One server with any number of paths, each a receiver of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: dict[str, list[Heard]] = defaultdict(list)
        self.answers: dict[str, list[Response]] = defaultdict(list)
        """What a path answers, in this order; then 204."""
        self.hanging: dict[str, asyncio.Event] = {}
        """A path here answers once its event is set."""

    async def take(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.heard[path].append(Heard(dict(request.headers), await request.body()))
        if path in self.hanging:
            await self.hanging[path].wait()
        return self.answers[path].pop(0) if self.answers[path] else Response(status_code=204)

    async def hears(self, path: str, count: int = 1, *, kind: str | None = None) -> list[Heard]:
        """Waits until a path has heard so many, of a type."""

        def enough() -> list[Heard] | None:
            quoted = None if kind is None else f'"type":"{kind}"'.encode()
            found = [one for one in self.heard[path] if quoted is None or quoted in one.body]
            return found if len(found) >= count else None

        found: list[Heard] = await eventually(enough, within=60, what=f"{path} has heard {count} {kind}")
        return found


class Breaking:
    """A receiver that is killed amid requests: it has read the whole of one, and its connection ends."""

    def __init__(self) -> None:
        self.url = ""
        self.breaks: list[str] = []
        """How the next requests end: ``reset``, ``closed``, ``cut`` in the answer; then it answers 204."""
        self.heard: list[bytes] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        [length] = re.findall(rb"content-length: (\d+)", head.lower())
        self.heard.append(await reader.readexactly(int(length)))
        how = self.breaks.pop(0) if self.breaks else None
        if how is None:
            writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        elif how == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
        elif how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()


@asynccontextmanager
async def running_breaking() -> AsyncIterator[Breaking]:
    """Serves one in this process."""
    breaking = Breaking()
    async with await asyncio.start_server(breaking.take, "127.0.0.1", 0) as server:
        breaking.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield breaking


def endless() -> Response:
    """An answer that never ends."""

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0)  # nothing else would ever run, once nobody reads this any more

    return StreamingResponse(body())


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    """Serves one in this process."""
    receiver = Receiver("")
    app = Starlette(routes=[Route("/{path:path}", receiver.take, methods=["POST", "GET"])])
    async with served(app) as url:
        receiver.url = url
        yield receiver
        for event in receiver.hanging.values():
            event.set()
