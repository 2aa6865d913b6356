"""A reader, on real sockets."""

import array
import asyncio
import time

import pytest

from benchmarks.readers import Readings, Subscription, reading, stamp
from benchmarks.streaming import WARM_UP_TOKENS, BrokenSystem, Load, alternate, warm_up
from tests.world.listener import listening

END = "end of stream"


async def test_a_reader_sees_each_token_once_when_it_first_comes() -> None:
    first, second = stamp(), stamp()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        # The first token comes in two parts, and once more with the second.
        for part in ("HTTP/1.1 200 OK\r\n\r\n", first[:7], first[7:], f"{first}{second}", END):
            writer.write(part.encode())
            await writer.drain()
            await asyncio.sleep(0)

    async with listening(serve) as there:
        subscription = Subscription(there.port, "GET / HTTP/1.1\r\n\r\n", END)
        async with reading([subscription, subscription], deadline_seconds=20) as readers:
            readings = await readers.finished()
    assert len(readings.latencies_ms) == 4
    assert all(0 < latency < 20_000 for latency in readings.latencies_ms)
    now = time.monotonic_ns()
    for began, last, ended in zip(readings.began_ns, readings.last_token_ns, readings.ended_ns, strict=True):
        assert int(second[1:-2]) < began < last <= ended < now


async def test_a_stream_that_never_ends_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()

    async with (
        listening(serve) as there,
        reading([Subscription(there.port, "x", END)], deadline_seconds=0.1) as readers,
    ):
        readings = await readers.finished()
    assert readings.ended_ns == [0]
    assert list(readings.latencies_ms) == []


class Streamer:
    """A system that delivers so many of its tokens."""

    name = "a peer"

    def __init__(self, delivered: int) -> None:
        self._delivered = delivered

    def skips(self, load: Load) -> str | None:
        return None

    async def stream(self, load: Load) -> Readings:
        return Readings(latencies_ms=array.array("f", [1.0] * self._delivered))


async def test_a_system_that_does_not_deliver_is_broken_and_not_slow() -> None:
    await warm_up(Streamer(WARM_UP_TOKENS))
    with pytest.raises(BrokenSystem, match="a peer has delivered 9 of 10 tokens"):
        await warm_up(Streamer(WARM_UP_TOKENS - 1))
    with pytest.raises(BrokenSystem, match="a peer has delivered nothing"):
        await alternate([Streamer(0)], Load(1, 1, 10), 1, print)
