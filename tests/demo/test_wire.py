"""The network of the demo's phone: what is cut is cut, at whatever moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support import eventually, free_port
from tests.world.listener import listening
from waystation.demo.wire import Wire

WORDS = b"hello" * 100_000


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65_536):
        writer.write(chunk)
        await writer.drain()


@asynccontextmanager
async def wired(target_port: int) -> AsyncIterator[Wire]:
    wire = Wire(target_port)
    await wire.mend()
    try:
        yield wire
    finally:
        await wire.close()


async def dial(wire: Wire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(wire.url.rpartition(":")[2]))


async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Waits for the connection's end."""
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_what_was_said_comes_whole_before_the_end() -> None:
    async with listening(echo) as there, wired(there.port) as wire:
        reader, writer = await dial(wire)
        writer.write(WORDS)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == WORDS
        writer.close()


@pytest.mark.parametrize("turns", range(12))
async def test_a_cut_ends_a_connection_however_new_it_is(turns: int) -> None:
    """The moments between a connection's first packet and its first byte are turns of the event loop."""
    async with listening(echo) as there, wired(there.port) as wire:
        reader, writer = await dial(wire)
        for _ in range(turns):
            await asyncio.sleep(0)
        wire.cut()
        await ends(reader, writer)
        with pytest.raises(OSError, match="Connect call failed"):
            await dial(wire)
        await wire.mend()
        reader, writer = await dial(wire)
        writer.write(b"again")
        assert await asyncio.wait_for(reader.readexactly(5), 20) == b"again"
        writer.close()


async def test_nobody_there_ends_the_connection() -> None:
    async with wired(free_port()) as wire:
        await ends(*await dial(wire))
        await eventually(lambda: wire.connections == 1)
