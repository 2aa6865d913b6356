"""Writes tokens at a steady rate to streams of a peer, in its own process, as our agents do.

Each stream has one connection. Redis gets one ``XADD`` for each token. Durable Streams gets one append at a
time; tokens written in the meantime go with the next one, as in its own client.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from benchmarks.readers import stamp
from benchmarks.resp import command
from benchmarks.streaming import RATE_PER_SECOND
from tests.support import ROOT
from waystation.agents.demo import Pace

END = "end of stream"
START_DELAY_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """What is written to each of the streams: stamps at the usual rate, or words as fast as possible."""

    kind: str
    port: int
    names: list[str]
    tokens: int = 0
    words: list[str] | None = None


class Sink(Protocol):
    """Writes the tokens of one stream."""

    def write(self, token: str) -> None: ...

    async def drained(self) -> None:
        """Waits until everything written is acknowledged."""


class RedisSink:
    """Sends ``XADD`` over one connection, without waiting for each answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader, self._writer, self._key = reader, writer, key
        self._written = 0
        self._acknowledging = asyncio.create_task(self._acknowledge())
        self._acknowledged = 0
        self._all = asyncio.Event()

    def write(self, token: str) -> None:
        self._written += 1
        self._writer.write(command("XADD", self._key, "*", "token", token).encode())

    async def _acknowledge(self) -> None:
        while await self._reader.readline() and await self._reader.readline():
            self._acknowledged += 1
            self._all.set()

    async def drained(self) -> None:
        while self._acknowledged < self._written:
            self._all.clear()
            await self._all.wait()


class DurableStreamsSink:
    """Appends over one kept-alive connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self._reader, self._writer = reader, writer
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        self._waiting: list[str] = []
        self._appending: asyncio.Task[None] | None = None

    def write(self, token: str) -> None:
        self._waiting.append(token)
        if self._appending is not None and self._appending.done():
            self._appending.result()  # raises what went wrong in it
            self._appending = None
        if self._appending is None:
            self._appending = asyncio.create_task(self._append())

    async def _append(self) -> None:
        while self._waiting:
            body = "".join(self._waiting)
            self._waiting.clear()
            self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            status = await self._reader.readline()
            if b" 204" not in status:
                raise RuntimeError(f"Durable Streams answered {status!r}.")
            while (await self._reader.readline()).strip():
                pass

    async def drained(self) -> None:
        if self._appending is not None:
            await self._appending


SINKS: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Sink]] = {
    "redis": RedisSink,
    "durable-streams": DurableStreamsSink,
}


async def produce(plan: Plan, name: str) -> None:
    """Writes one stream and its end."""
    sink: Sink = SINKS[plan.kind](*await asyncio.open_connection("127.0.0.1", plan.port), name)
    if plan.words is None:
        await asyncio.sleep(START_DELAY_SECONDS)
        pace = Pace(RATE_PER_SECOND)
        for _ in range(plan.tokens):
            await pace.wait()
            sink.write(stamp())
    else:
        for word in plan.words:
            sink.write(word)
    await sink.drained()
    sink.write(END)
    await sink.drained()


async def main() -> None:
    """Writes all streams of the plan that comes in on standard input."""
    plan = Plan(**json.load(sys.stdin))
    await asyncio.gather(*(produce(plan, name) for name in plan.names))


async def run(plan: Plan) -> None:
    """Runs the producer to its end, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.peers.producer", stdin=asyncio.subprocess.PIPE, cwd=ROOT
    )
    await process.communicate(json.dumps(asdict(plan)).encode())
    if process.returncode:
        raise RuntimeError(f"The producer for {plan.kind} failed.")


if __name__ == "__main__":
    asyncio.run(main())
