"""A reader, on real sockets."""

import asyncio
import time

from benchmarks.readers import Subscription, reading, stamp

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
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        subscription = Subscription(port, "GET / HTTP/1.1\r\n\r\n", END)
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
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with reading([Subscription(port, "x", END)], deadline_seconds=0.1) as readers:
            readings = await readers.finished()
    assert readings.ended_ns == [0]
    assert list(readings.latencies_ms) == []
