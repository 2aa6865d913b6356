"""What a web page of somebody else's could send is refused by every server here that acts."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import ROOT
from tests.world.sandbox import SandboxServer, running_sandbox
from tests.world.stack import KEYS, Stack
from waystation.browser_guard import FORM, JSON, BrowserGuard

PAGE = "https://evil.example"
BY_A_PAGE: list[tuple[str, dict[str, str], int]] = [
    ("DNS rebinding", {"Host": "evil.example"}, 421),
    ("DNS rebinding with our port", {"Host": "evil.example:8470"}, 421),
    ("a name that begins like ours", {"Host": "localhost.evil.example"}, 421),
    ("no name at all", {"Host": ""}, 421),
    ("another origin", {"Origin": PAGE}, 403),
    ("a sandboxed frame", {"Origin": "null"}, 403),
    ("an origin that is no URL", {"Origin": "http://["}, 403),
    ("an origin of nothing", {"Origin": ""}, 403),
    ("a host that is no name", {"Host": "["}, 421),
    ("our origin, and another", {"Origin": "http://localhost:1, https://evil.example"}, 403),
    ("another port of this machine", {"Origin": "http://localhost:9999"}, 403),
    ("another site", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("a neighbour's site", {"Sec-Fetch-Site": "same-site"}, 403),
    ("a form", {"Content-Type": FORM}, 415),
    ("plain text", {"Content-Type": "text/plain"}, 415),
    ("a form with files", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ("no type", {"Content-Type": ""}, 415),
]


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def client(**options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(BrowserGuard(served, **options))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:1")


@pytest.mark.parametrize(("what", "headers", "status"), BY_A_PAGE, ids=[row[0] for row in BY_A_PAGE])
async def test_a_page_can_do_nothing(what: str, headers: dict[str, str], status: int) -> None:
    async with client() as http:
        answer = await http.post("/", content=b"{}", headers={"Content-Type": JSON, **headers})
    assert answer.status_code == status, what


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "127.0.0.1:8470"},
        {"Host": "[::1]:8470"},
        {"Host": "LOCALHOST."},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "application/cloudevents+json; charset=utf-8"},
    ],
)
async def test_a_program_and_our_own_pages_can(headers: dict[str, str]) -> None:
    async with client(origins=["https://friend.example"]) as http:
        answer = await http.post("/", content=b"{}", headers={"Content-Type": JSON, **headers})
    assert answer.status_code == 200


async def test_what_only_reads_needs_no_origin_and_a_body_that_is_empty_no_type() -> None:
    async with client() as http:
        assert (await http.get("/", headers={"Origin": PAGE})).status_code == 200
        assert (await http.post("/")).status_code == 200
        assert (await http.get("/", headers={"Host": "evil.example"})).status_code == 421


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, SandboxServer]]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as servers:
        yield servers


@pytest.mark.parametrize("part", ["processor", "shop", "paid_api", "facilitator"])
@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": PAGE}, {"Content-Type": "text/plain"}]
)
async def test_every_server_of_the_sandbox_is_guarded(
    sandbox: dict[str, SandboxServer], part: str, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{sandbox[part].url}/settle", content=b"{}", headers={"Content-Type": JSON, **headers}
        )
    assert answer.json()["code"] in ("wrong-host", "wrong-origin", "wrong-content-type")


def test_the_sandbox_runs_its_servers_in_one_way() -> None:
    for path in (ROOT / "src/waystation/sandbox").glob("*.py"):
        assert path.name == "serving.py" or "uvicorn" not in path.read_text()


async def test_the_api_is_guarded_and_its_sockets_too(stack: Stack) -> None:
    key = {"Authorization": f"Bearer {KEYS['service']}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=key) as http:
        for headers, code in (
            ({"Origin": PAGE, "Content-Type": JSON}, "wrong-origin"),
            ({"Content-Type": "text/plain"}, "wrong-content-type"),
        ):
            answer = await http.post("/sessions", content=b'{"agent": "demo"}', headers=headers)
            assert answer.json()["code"] == code
            assert answer.headers["content-type"] == "application/problem+json"
    with pytest.raises(InvalidStatus):
        await connect(
            f"{stack.url.replace('http', 'ws', 1)}/ingest", additional_headers=key | {"Origin": PAGE}
        )
