"""The wires do to connections what they are told to, and nothing otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.support import free_port
from tests.torture.proxy import PROXY_HEADER, Proxy


@asynccontextmanager
async def echoing() -> AsyncIterator[Proxy]:
    """A wire to somebody who says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1_000):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    away = free_port()
    proxy = await Proxy("wire", lambda: (away, port)).start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        server.close()


async def say(proxy: Proxy, words: bytes) -> bytes:
    """Returns what came back until the connection ended, or as much as was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(words)
        return await asyncio.wait_for(reader.readexactly(len(words)), 5)
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def test_everything_passes_to_the_first_that_is_there() -> None:
    async with echoing() as proxy:
        words = b"hello" * 100_000
        assert await say(proxy, words) == words


async def test_a_torn_connection_ends_at_the_byte() -> None:
    async with echoing() as proxy:
        proxy.tear_after_bytes = 3
        assert await say(proxy, b"hello") in (b"", b"hel")
        assert proxy.torn == 1
        assert await say(proxy, b"hello") == b"hello"


async def test_a_cut_wire_ends_its_connections_and_takes_none() -> None:
    async with echoing() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        proxy.closed = True
        proxy.cut()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.transport.abort()
        assert await say(proxy, b"hello") == b""
        proxy.closed = False
        assert await say(proxy, b"hello") == b"hello"


@pytest.mark.parametrize("status", [401, 502])
async def test_a_wire_answers_in_the_servers_place_and_says_so(status: int) -> None:
    async with echoing() as proxy, httpx.AsyncClient(trust_env=False) as http:
        proxy.answer_status = status
        response = await http.post(proxy.url, content=b"x" * 10)
        assert (response.status_code, response.headers[PROXY_HEADER]) == (status, "1")
