"""Subscribers that use as little processor time as Python allows, in their own processes.

A thousand subscribers of fifty tokens a second make fifty thousand reads a second. So a reader only keeps the
bytes and the time of their arrival, and parses them when everything is over. It reads server-sent events of
any server, and Redis Streams, over one socket each.

Tokens hold the time at which they were written (``stamp``), by the monotonic clock that all processes of a
machine share, so a latency is one subtraction.
"""

import array
import asyncio
import json
import re
import select
import socket
import sys
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.resp import command, reply_ends_at

CONNECT_TIMEOUT_SECONDS = 60.0
MAX_READERS_PER_PROCESS = 500
RECEIVE_BYTES = 1 << 18
POLL_SECONDS = 0.5
STAMP = r"t(\d{10,})e"
"""A token as a regular expression; its group is the time of writing in nanoseconds."""
_ROOT = Path(__file__).resolve().parent.parent
_REDIS_ID = re.compile(rb"\r\n(\d+-\d+)\r\n")


def stamp() -> str:
    """Returns a token that holds the time at which it is written."""
    return f"t{time.monotonic_ns()}e "


@dataclass(frozen=True)
class Subscription:
    """One subscriber: where it connects, what it sends, and how it recognizes the end."""

    port: int
    request: str
    ends: str
    """Text in the stream after which nothing more is expected."""
    ready: str = "\r\n\r\n"
    """Text in the answer that shows that the subscription has begun."""
    tokens: str = STAMP
    """A regular expression for what counts as a token, with the time as its group."""
    redis_key: str | None = None


@dataclass
class Readings:
    """What the readers received. Times are in nanoseconds of the machine's monotonic clock."""

    latencies_ms: "array.array[float]" = field(default_factory=lambda: array.array("f"))
    """The latency of each token at each subscriber, at its first arrival."""
    bytes: int = 0
    began_ns: list[int] = field(default_factory=list)
    """By subscription: when it began to connect."""
    last_token_ns: list[int] = field(default_factory=list)
    """By subscription: when its last new token came (0 if none did)."""
    ended_ns: list[int] = field(default_factory=list)
    """By subscription: when its end came (0 if it didn't)."""
    history_events: int = 0
    """How many events of Temporal's histories the load made, if any."""


class _Reader:
    """One socket and what was received from it."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.began_ns = time.monotonic_ns()
        self.socket = socket.create_connection(("127.0.0.1", subscription.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ready, self._ends = subscription.ready.encode(), subscription.ends.encode()
        self._tail = b""
        self._reply = b""
        self.times: list[int] = []
        self.chunks: list[bytes] = []
        self.is_ready = subscription.redis_key is not None
        self.ended_ns = 0
        self.socket.sendall(subscription.request.encode())
        self.socket.setblocking(False)

    def receive(self) -> bool:
        """Receives what has arrived; returns false if nothing more will come."""
        try:
            chunk = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        now = time.monotonic_ns()
        if not chunk:
            return False
        self.times.append(now)
        self.chunks.append(chunk)
        around = self._tail + chunk
        self._tail = around[-64:]
        self.is_ready = self.is_ready or self._ready in around
        if self._ends in around:
            self.ended_ns = now
            return False
        if self.subscription.redis_key is not None:
            self._read_on(self.subscription.redis_key, chunk)
        return True

    def _read_on(self, key: str, chunk: bytes) -> None:
        """Asks Redis for what follows, once its answer is complete."""
        self._reply += chunk
        if reply_ends_at(self._reply) is None:
            return
        ids = _REDIS_ID.findall(self._reply)
        self._reply = b""
        self.socket.sendall(command("XREAD", "BLOCK", "0", "STREAMS", key, ids[-1].decode()).encode())

    def arrivals(self) -> dict[int, int]:
        """Returns when each token first arrived, by the time at which it was written."""
        text = b"".join(self.chunks)
        ends: list[int] = []
        position = 0
        for chunk in self.chunks:
            position += len(chunk)
            ends.append(position)
        first: dict[int, int] = {}
        for found in re.finditer(self.subscription.tokens.encode(), text):
            arrived = self.times[bisect_right(ends, found.end() - 1)]
            first.setdefault(int(found[1]), arrived)
        return first


def _read(subscriptions: Sequence[Subscription], deadline_seconds: float) -> list[_Reader]:
    readers = [_Reader(subscription) for subscription in subscriptions]
    poll = select.epoll()
    waiting = {reader.socket.fileno(): reader for reader in readers}
    for number in waiting:
        poll.register(number, select.EPOLLIN)
    unready = sum(not reader.is_ready for reader in readers)
    if not unready:
        print("ready", flush=True)
    deadline = time.monotonic() + deadline_seconds
    while waiting and time.monotonic() < deadline:
        for number, _ in poll.poll(POLL_SECONDS):
            reader = waiting[number]
            was_ready = reader.is_ready
            if not reader.receive():
                poll.unregister(number)
                reader.socket.close()
                del waiting[number]
            if reader.is_ready and not was_ready:
                unready -= 1
                if not unready:
                    print("ready", flush=True)
    return readers


def main() -> None:
    """Reads the task from a file, prints ``ready`` once all are connected, and stores what was received."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    task: dict[str, Any] = json.loads((folder / f"{name}.task").read_text())
    readers = _read([Subscription(**given) for given in task["subscriptions"]], task["deadline_seconds"])
    latencies, last = array.array("f"), []
    for reader in readers:
        arrivals = reader.arrivals()
        latencies.extend((arrived - written) / 1e6 for written, arrived in arrivals.items())
        last.append(max(arrivals.values(), default=0))
    (folder / f"{name}.latencies").write_bytes(latencies.tobytes())
    told = {
        "bytes": sum(len(chunk) for reader in readers for chunk in reader.chunks),
        "began_ns": [reader.began_ns for reader in readers],
        "last_token_ns": last,
        "ended_ns": [reader.ended_ns for reader in readers],
    }
    (folder / f"{name}.told").write_text(json.dumps(told))


class Reading:
    """Readers that run in other processes."""

    def __init__(self, folder: Path, processes: list[asyncio.subprocess.Process]) -> None:
        self._folder, self._processes = folder, processes

    async def finished(self) -> Readings:
        """Waits until every subscription has ended or reached its deadline; returns what was received."""
        await asyncio.gather(*(process.wait() for process in self._processes))
        readings = Readings()
        for number in range(len(self._processes)):
            told = json.loads((self._folder / f"{number}.told").read_text())
            readings.latencies_ms.frombytes((self._folder / f"{number}.latencies").read_bytes())
            readings.bytes += told["bytes"]
            readings.began_ns += told["began_ns"]
            readings.last_token_ns += told["last_token_ns"]
            readings.ended_ns += told["ended_ns"]
        return readings


@asynccontextmanager
async def reading(
    subscriptions: Sequence[Subscription], deadline_seconds: float, *, wait: bool = True
) -> AsyncIterator[Reading]:
    """Starts readers and, by default, waits until all are connected; kills the remaining ones at the end."""
    count = -(-len(subscriptions) // MAX_READERS_PER_PROCESS)
    share = -(-len(subscriptions) // count)
    processes: list[asyncio.subprocess.Process] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            for number in range(count):
                task = {
                    "subscriptions": [
                        asdict(each) for each in subscriptions[number * share : (number + 1) * share]
                    ],
                    "deadline_seconds": deadline_seconds,
                }
                (folder / f"{number}.task").write_text(json.dumps(task))
                arguments = (sys.executable, "-m", "benchmarks.readers", name, str(number))
                processes.append(
                    await asyncio.create_subprocess_exec(
                        *arguments, stdout=asyncio.subprocess.PIPE, cwd=_ROOT
                    )
                )
            if wait:
                async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                    for process in processes:
                        assert process.stdout is not None
                        if not await process.stdout.readline():
                            raise RuntimeError("A reader ended before all of its subscriptions had begun.")
            yield Reading(folder, processes)
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


if __name__ == "__main__":
    main()
