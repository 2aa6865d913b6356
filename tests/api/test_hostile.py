"""What clients and agents send who mean no good, or know no better."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from tests.stack import Stack

CHUNK = b"x" * 65_536
DEADLINE_SECONDS = 10


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
