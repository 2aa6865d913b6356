"""The wires do to connections what they are told to, and nothing otherwise."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.support import free_port
from tests.torture.proxy import PROXY_HEADER, Harm, Mishap, Proxy
from tests.world.listener import listening


@asynccontextmanager
async def echoing() -> AsyncIterator[Proxy]:
    """A wire to somebody who says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1_000):
            writer.write(chunk)
            await writer.drain()

    away = free_port()
    async with listening(echo) as there:
        proxy = await Proxy("wire", lambda: (away, there.port)).start()
        try:
            yield proxy
        finally:
            await proxy.stop()


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
        mishap = Mishap("tear", bytes=3)
        befalling = asyncio.create_task(proxy.befall(mishap, 5))
        await asyncio.sleep(0)
        assert await say(proxy, b"hello") in (b"", b"hel")
        assert await befalling
        assert await say(proxy, b"hello") == b"hello"


@pytest.mark.parametrize("harm", ["cut", "stall"])
async def test_one_connection_is_lost_and_no_other(harm: Harm) -> None:
    async with echoing() as proxy:
        befalling = asyncio.create_task(proxy.befall(Mishap(harm, seconds=0.05), 5))
        await asyncio.sleep(0)
        assert await say(proxy, b"hello") == b""
        assert await befalling
        assert await say(proxy, b"hello") == b"hello"


@pytest.mark.parametrize("harm", ["delay", "trickle"])
async def test_what_is_late_or_in_parts_is_whole(harm: Harm) -> None:
    async with echoing() as proxy:
        befalling = asyncio.create_task(proxy.befall(Mishap(harm, bytes=7, seconds=0.05), 5))
        await asyncio.sleep(0)
        words = bytes(range(250)) * 3
        assert await say(proxy, words) == words
        assert await befalling


async def test_a_mishap_that_finds_no_connection_strikes_none() -> None:
    async with echoing() as proxy:
        assert not await proxy.befall(Mishap("cut"), 0.01)
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


async def test_one_connection_is_answered_in_the_servers_place() -> None:
    async with echoing() as proxy, httpx.AsyncClient(trust_env=False) as http:
        befalling = asyncio.create_task(proxy.befall(Mishap("answer", status=502), 5))
        await asyncio.sleep(0)
        response = await http.get(proxy.url)
        assert (response.status_code, response.headers[PROXY_HEADER]) == (502, "1")
        assert await befalling
        assert await say(proxy, b"hello") == b"hello"
