"""What clients and agents send who mean no good, or know no better."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support import eventually
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.models.sessions import Snapshot
from waystation.settings import ApiKey

CHUNK = b"x" * 65_536
DEADLINE_SECONDS = 10


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as http:
        yield http


async def answer_to(stack: Stack, head: str, body: Iterable[bytes] = ()) -> tuple[int, Any]:
    """The status and the JSON with which the API answers, perhaps before it has all of the request."""
    where = urlsplit(stack.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            writer.write(f"{head}\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n\r\n".encode())
            for part in body:
                if reader.at_eof() or writer.is_closing():
                    break
                writer.write(part)
                await writer.drain()
            status = (await reader.readline()).split()[1]
            while (await reader.readline()).strip():
                pass
            return int(status), json.JSONDecoder().raw_decode((await reader.read(4_096)).decode())[0]
    finally:
        writer.close()


async def test_a_body_that_is_declared_too_large_is_not_read(stack: Stack) -> None:
    status, problem = await answer_to(stack, f"POST /sessions HTTP/1.1\r\nContent-Length: {10**12}")
    assert (status, problem["code"]) == (413, "body-too-large")


async def test_a_body_without_a_declared_length_is_read_up_to_the_bound(stack: Stack) -> None:
    endless = (b"10000\r\n" + CHUNK + b"\r\n" for _ in range(16 * 16 + 1))
    status, problem = await answer_to(stack, "POST /sessions HTTP/1.1\r\nTransfer-Encoding: chunked", endless)
    assert (status, problem["code"]) == (413, "body-too-large")


async def test_a_stream_ends_with_the_token_that_opened_it(client: Client, http: httpx.AsyncClient) -> None:
    session = await client.start("demo")
    token = await short_lived(http, session.id, "client")
    headers = {"Authorization": f"Bearer {token}"}
    ticket = (await http.post(f"/sessions/{session.id}/tickets", headers=headers)).json()["token"]
    url = f"/sessions/{session.id}/events"
    async with asyncio.timeout(DEADLINE_SECONDS):
        by_token, by_ticket = await asyncio.gather(
            http.get(url, headers=headers), client.http.get(f"{client.url}{url}?ticket={ticket}")
        )
    assert "session.started" in by_token.text
    assert "session.started" in by_ticket.text
    assert (await http.get(url, headers=headers)).status_code == 401


@pytest.mark.parametrize(("role", "path"), [("client", "/sessions/{}/socket"), ("agent", "/ingest")])
async def test_a_socket_ends_with_the_token_that_opened_it(
    client: Client, http: httpx.AsyncClient, stack: Stack, role: str, path: str
) -> None:
    session = await client.start("demo")
    token = await short_lived(http, session.id, role)
    url = stack.url.replace("http", "ws") + path.format(session.id)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as socket,
    ):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()


async def test_a_token_for_one_agent_does_not_write_as_another(
    client: Client, http: httpx.AsyncClient, stack: Stack
) -> None:
    session = await client.start("demo")
    headers = {"Authorization": f"Bearer {await short_lived(http, session.id, 'agent')}"}
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        connect(stack.url.replace("http", "ws") + "/ingest", additional_headers=headers) as socket,
    ):
        for name, answer in (("demo", "problem"), ("ada", "opened")):
            actor = {"id": name, "role": "agent"}
            frame = {"op": "open", "session_id": session.id, "writer": name, "actor": actor}
            await socket.send(json.dumps(frame))
            (answered,) = json.loads(await socket.recv())
            assert (answered["op"], answered["writer"]) == (answer, name)


async def short_lived(http: httpx.AsyncClient, session_id: str, role: str) -> str:
    body = {"role": role, "sessions": [session_id], "subject": "ada", "ttl_seconds": 3}
    return str((await http.post("/tokens", json=body)).json()["token"])


def test_a_key_whose_id_can_be_no_actors_is_refused_at_the_start() -> None:
    """Every request with it would fail."""
    with pytest.raises(ValidationError, match="String should match pattern"):
        ApiKey(id="my key", role="service", sha256="0" * 64)


@pytest.mark.parametrize("path", ["events", "socket"])
async def test_streams_that_are_dropped_at_once_leave_nothing_behind(
    client: Client, http: httpx.AsyncClient, stack: Stack, path: str
) -> None:
    session = await client.start("demo")
    before = await subscribers(http)
    where = urlsplit(stack.url)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for _ in range(60):
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(
            f"GET /sessions/{session.id}/{path} HTTP/1.1\r\nHost: {where.netloc}\r\n"
            f"Authorization: Bearer {KEYS['service']}\r\n{upgrade if path == 'socket' else ''}\r\n".encode()
        )
        await writer.drain()
        writer.transport.abort()

    async def back() -> bool:
        return await subscribers(http) <= before

    await client.request("GET", f"/sessions/{session.id}", Snapshot)
    await eventually(back)


async def subscribers(http: httpx.AsyncClient) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("waystation_subscribers "))
