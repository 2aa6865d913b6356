"""What clients and agents send who mean no good, or know no better."""

import asyncio
import contextlib
import functools
import importlib
import json
import pkgutil
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIWebSocketRoute
from pydantic import ValidationError
from starlette.middleware.cors import CORSMiddleware
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api import errors, routes
from api.door import DoorRoute
from tests.support import eventually, goes_away_while_sending
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


AS_SERVICE = f"Authorization: Bearer {KEYS['service']}"
LIMITS = {"/tokens": 256 * 1024, "/sessions": 4 * 1024 * 1024, "/sessions/s/events": 16 * 1024 * 1024}


@pytest.mark.parametrize(("path", "limit"), LIMITS.items())
async def test_a_body_that_is_declared_too_large_is_not_read(stack: Stack, path: str, limit: int) -> None:
    head = f"POST {path} HTTP/1.1\r\n{AS_SERVICE}\r\nContent-Length: {limit + 1}"
    status, problem = await answer_to(stack, head)
    assert (status, problem["code"]) == (413, "body-too-large")


@pytest.mark.parametrize(("path", "limit"), LIMITS.items())
async def test_a_body_without_a_declared_length_is_read_up_to_the_bound(
    stack: Stack, path: str, limit: int
) -> None:
    head = f"POST {path} HTTP/1.1\r\n{AS_SERVICE}\r\nTransfer-Encoding: chunked"
    endless = (b"10000\r\n" + CHUNK + b"\r\n" for _ in range(limit // len(CHUNK) + 1))
    status, problem = await answer_to(stack, head, endless)
    assert (status, problem["code"]) == (413, "body-too-large")


@pytest.mark.parametrize("head", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_who_calls_is_known_before_a_body_is_read(stack: Stack, head: str) -> None:
    status, problem = await answer_to(stack, f"POST /sessions HTTP/1.1\r\n{head}")
    assert (status, problem["code"]) == (401, "unauthenticated")


def test_every_route_is_behind_the_door() -> None:
    modules = [
        importlib.import_module(f"api.routes.{one.name}") for one in pkgutil.iter_modules(routes.__path__)
    ]
    found = [route for module in modules if hasattr(module, "router") for route in module.router.routes]
    assert len(found) > 40
    assert {type(route) for route in found} <= {DoorRoute, APIWebSocketRoute}


@pytest.mark.parametrize("path", ["/", "/health", "/openapi.json", "/sessions", "/console/main.js", "/docs"])
async def test_every_answer_says_that_it_is_no_page_of_others(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert (answer.status_code == 404) == (path == "/docs")


async def test_a_body_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.door.BODY_TIMEOUT_SECONDS", 0.1)
    app = FastAPI()
    errors.install(app)
    router = APIRouter(route_class=DoorRoute)

    @router.post("/")
    async def take(body: dict[str, Any]) -> dict[str, Any]:
        return body

    app.include_router(router)

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        answer = await client.post("/", content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (408, "body-too-slow")


@pytest.mark.parametrize("path", ["/read", "/parsed"])
async def test_a_client_that_goes_away_while_it_sends_is_no_error_of_ours(path: str) -> None:
    app = FastAPI()
    errors.install(app)
    router = APIRouter(route_class=DoorRoute)

    @router.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @router.post("/parsed")
    async def parsed(body: dict[str, Any]) -> dict[str, Any]:
        return body

    app.include_router(router)
    sent = await goes_away_while_sending(app, "POST", path, {"Content-Type": "application/json"})
    assert sent[0]["status"] == 400


DEEP_TEXT = "[" * 70_000
NESTED = json.dumps(functools.reduce(lambda inner, _: {"a": inner}, range(40), cast(Any, 1)))


@pytest.mark.parametrize("body", [DEEP_TEXT, NESTED, '{"a": "\\ud83d"}', '{"a": NaN}', "{", "\xff"])
@pytest.mark.parametrize(
    "path",
    [
        "/sessions",
        "/sessions/s/messages",
        "/sessions/s/events",
        "/sessions/s/steer",
        "/tokens",
        "/mandates",
        "/purchases",
        "/payments",
        "/purchases/p/revise",
        "/codec/decode",
        "/agentic_checkout/webhooks/order_events",
    ],
)
async def test_json_that_cannot_be_read_is_refused_at_every_door(stack: Stack, path: str, body: str) -> None:
    for key in ("service", "operator"):
        headers = {"Authorization": f"Bearer {KEYS[key]}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=stack.url, timeout=20) as client:
            answer = await client.post(path, content=body.encode("latin-1"), headers=headers)
            assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
            if answer.json()["code"] == "invalid":
                assert re.search("nested more than|not a JSON document", answer.json()["detail"])
            assert (await client.get("/health")).status_code == 200


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


async def closing_of(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Reads to the end, and returns with which code and reason the API closed the socket."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code, socket.close_reason


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
        assert await closing_of(socket) == (4401, "unauthenticated")


@pytest.mark.parametrize(("role", "path"), [("client", "/sessions/{}/socket"), ("agent", "/ingest")])
async def test_a_socket_that_is_sent_bytes_says_so(
    client: Client, stack: Stack, role: str, path: str
) -> None:
    session = await client.start("demo")
    url = stack.url.replace("http", "ws") + path.format(session.id)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        connect(url, additional_headers={"Authorization": f"Bearer {KEYS[role]}"}) as socket,
    ):
        await socket.send(b"\x00")
        assert await closing_of(socket) == (1003, "binary-message")


async def test_a_socket_says_that_its_session_is_closed(client: Client, stack: Stack) -> None:
    session = await client.start("demo")
    url = f"{stack.url.replace('http', 'ws')}/sessions/{session.id}/socket"
    headers = {"Authorization": f"Bearer {KEYS['client']}"}
    async with asyncio.timeout(DEADLINE_SECONDS), connect(url, additional_headers=headers) as socket:
        await session.close()
        assert await closing_of(socket) == (4204, "session-closed")


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


def a_payment(url: str) -> dict[str, Any]:
    price = {"amount": 5, "currency": "usd"}
    return {"request": {"request": {"url": url}, "max_price": price, "mandate_id": "m", "agent": "shopper"}}


def a_mandate(valid_until: str) -> dict[str, Any]:
    cap = {"amount": 5, "currency": "usd"}
    terms = {"owner": "alice", "agent": "shopper", "cap": cap, "valid_until": valid_until, "sellers": ["*"]}
    return {"terms": terms}


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("/payments", a_payment("https://xn--/"), a_payment("https://shop.example/")),
        ("/mandates", a_mandate("9999-12-31T23:59:59Z"), a_mandate("2199-12-31T23:59:59Z")),
    ],
)
async def test_one_bad_value_takes_no_list_down(
    http: httpx.AsyncClient, path: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    refused = await http.post(path, json=bad)
    assert refused.status_code == 422, refused.text
    started = await http.post(path, json=good)
    assert started.status_code == 201, started.text
    listed = await http.get(path)
    assert listed.status_code == 200, listed.text


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_a_load_balancer_may_ask_by_head(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.head(path)).status_code == 200


async def test_what_nobody_expected_is_answered_within_the_middlewares() -> None:
    app = FastAPI()
    errors.install(app)
    app.add_middleware(CORSMiddleware, allow_origins=["https://console.test"])

    @app.get("/")
    async def fail() -> None:
        raise ZeroDivisionError

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        answer = await client.get("/", headers={"Origin": "https://console.test"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert answer.headers["access-control-allow-origin"] == "https://console.test"


@pytest.mark.parametrize("subject", ["auth0|5f7c8ec7c33c6c004bbafe82", "ada+home@shop.example", "a/b"])
async def test_ids_of_identity_providers_take_part(client: Client, stack: Stack, subject: str) -> None:
    session = await client.start("demo")
    body = {"actor": {"id": subject, "role": "user"}}
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=20) as http:
        joined = await http.post(f"/sessions/{session.id}/participants", json=body)
        assert joined.status_code == 200, joined.text
        people = (await http.get(f"/sessions/{session.id}/participants")).json()
    assert subject in [one["id"] for one in people["participants"]]
