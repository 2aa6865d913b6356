"""The dev server's HTTP API: closed to everybody, whatever a web page says of itself."""

import http.client
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import eventually, free_port
from tests.world.temporal import TemporalServer, running_temporal

SIGNAL = "/api/v1/namespaces/default/workflows/purchase-1/signal/approve"


@pytest.fixture(scope="module")
async def server_and_port(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[TemporalServer, int]]:
    port = free_port()
    folder: Path = tmp_path_factory.mktemp("temporal-http")
    async with running_temporal(folder, options=("--http-port", str(port))) as server:
        yield server, port


def post(port: int, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest("POST", SIGNAL, skip_host=True)
        for name, value in {**headers, "Content-Length": "2"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"{}")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "evil.example", "no%20host", "no host", "", "*"])
@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost:8470"])
async def test_no_page_signals_a_workflow(
    server_and_port: tuple[TemporalServer, int], host: str, origin: str | None
) -> None:
    _, port = server_and_port
    headers = {"Host": host, "Content-Type": "text/plain"} | ({"Origin": origin} if origin else {})

    def refused() -> bool:
        return post(port, headers) in (400, 403)

    await eventually(refused, what=f"a request to '{host}' is refused")


async def test_its_own_port_takes_no_http_request(server_and_port: tuple[TemporalServer, int]) -> None:
    server, _ = server_and_port
    with pytest.raises((http.client.HTTPException, OSError)):
        post(server.port, {"Host": "localhost", "Content-Type": "text/plain"})
