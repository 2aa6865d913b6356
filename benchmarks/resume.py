"""A client that has nothing fetches a whole conversation."""

import itertools
import statistics
import time
from collections.abc import Awaitable, Callable

import httpx
from redis.asyncio import Redis

from benchmarks import prose
from benchmarks.figures import rounded
from benchmarks.ours import Waystation, close
from benchmarks.peers.durable_streams import DurableStreams
from benchmarks.peers.redis_streams import RedisStreams
from benchmarks.peers.workflow_streams import WorkflowStreams, end
from benchmarks.peers.workflow_streams_worker import TOPIC
from benchmarks.scenario import OURS, Aim, Chart, Column, Row, Say, Scenario, Size
from benchmarks.systems import running
from tests.support import eventually
from tests.world.stack import KEYS
from waystation.client import Session
from waystation.models.events import Event, EventType

TOKENS = {
    Size.QUICK: (1_000,),
    Size.DEFAULT: (1_000, 20_000, 200_000),
    Size.LONG: (1_000, 20_000, 200_000),
}
TOKENS_PER_MESSAGE = 100
MAX_TURNS = 100
"""Limits how long filling a session takes; beyond it, messages become longer instead."""
READS = 5
MAX_WORKFLOW_STREAMS_TOKENS = 20_000
HOLD_SECONDS = 120.0

Fetch = Callable[[], Awaitable[int]]
"""Fetches everything and returns the number of bytes, or 0 if it isn't known."""


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by system, number of tokens and way to fetch."""
    rows: list[Row] = []
    async with running(say) as systems:
        for tokens in TOKENS[size]:
            say(f"  {tokens} tokens")
            words = prose.words(tokens)
            rows += await _ours(systems.ours, words)
            if systems.durable_streams:
                rows.append(await _durable_streams(systems.durable_streams, words))
            if systems.redis_streams:
                rows.append(await _redis(systems.redis_streams, words))
            if tokens <= MAX_WORKFLOW_STREAMS_TOKENS:
                rows.append(await _workflow_streams(systems.workflow_streams, tokens))
    return rows


async def converse(session: Session, words: list[str]) -> None:
    """Fills a session with messages and with turns whose answers are equally long."""
    turns = min(len(words) // TOKENS_PER_MESSAGE // 2, MAX_TURNS)
    share = len(words) // turns // 2
    events = session.events()
    for number in range(turns):
        text = "".join(words[number * 2 * share : (number * 2 + 1) * share])
        sent = await session.send(text, data={"echo": 1})
        async for event in events:
            done = isinstance(event, Event) and event.type == EventType.TURN_COMPLETED
            if done and event.turn_id == sent.turn_id:
                break
    await events.aclose()


async def _ours(system: Waystation, words: list[str]) -> list[Row]:
    session = (await system.sessions(1))[0]
    await converse(session, words)
    tip = (await session.snapshot()).tip
    text_bytes = sum(len(message.text.encode()) for message in await session.load())
    headers = {"Authorization": f"Bearer {KEYS['service']}", "Accept-Encoding": "identity"}
    path = f"/sessions/{session.id}"
    rows = []
    async with httpx.AsyncClient(base_url=system.stack.url, headers=headers, timeout=60) as http:

        async def transcript() -> int:
            return len((await http.get(f"{path}/transcript")).content)

        async def compressed() -> int:
            received = 0
            async with http.stream(
                "GET", f"{path}/transcript", headers={"Accept-Encoding": "gzip"}
            ) as answer:
                async for chunk in answer.aiter_raw():
                    received += len(chunk)
            return received

        async def events() -> int:
            received, recent = 0, b""
            async with http.stream("GET", f"{path}/events?after=0") as answer:
                async for chunk in answer.aiter_raw():
                    received += len(chunk)
                    recent = recent[-64:] + chunk
                    if f"id: {tip}\n".encode() in recent:
                        break
            return received

        ways = {"transcript": transcript, "transcript, gzip": compressed, "events": events}
        for how, fetch in ways.items():
            rows.append(await _row(OURS, how, len(words), fetch, text_bytes))
    await close(session)
    return rows


async def _durable_streams(peer: DurableStreams, words: list[str]) -> Row:
    path = (await peer.create(1))[0]
    await peer.write([path], words=words)

    async def read() -> int:
        return len(await peer.read(path))

    return await _row(peer.name, "log", len(words), read, sum(map(len, words)))


async def _redis(peer: RedisStreams, words: list[str]) -> Row:
    key = f"resume-{len(words)}"
    await peer.write([key], words=words)
    redis = Redis(port=peer.port)

    async def read() -> int:
        assert len(await redis.xrange(key) or ()) > len(words)
        return 0

    row = await _row(peer.name, "log", len(words), read, 0)
    await redis.aclose()
    return row


async def _workflow_streams(peer: WorkflowStreams, tokens: int) -> Row:
    stream = await peer.begin(tokens, 0, HOLD_SECONDS)
    reader = peer.reader(stream)

    async def written() -> bool:
        return await reader.get_offset() >= tokens

    await eventually(written, within=120)

    async def read() -> int:
        seen = itertools.count(1)
        async for _ in reader.subscribe([TOPIC], result_type=str):
            if next(seen) == tokens:
                break
        return 0

    row = await _row(peer.name, "log", tokens, read, 0)
    await end([stream])
    return row


async def _row(system: str, how: str, tokens: int, fetch: Fetch, text_bytes: int) -> Row:
    times, size = [], 0
    for _ in range(READS):
        began = time.perf_counter()
        size = await fetch()
        times.append((time.perf_counter() - began) * 1e3)
    row: Row = {"system": system, "tokens": tokens, "how": how, "ms": rounded(statistics.median(times))}
    if size:
        row |= {"kilobytes": rounded(size / 1e3), "bytes_ratio": round(size / text_bytes, 2)}
    return row


SCENARIO = Scenario(
    name="resume",
    title="Resume",
    shows="""
        A client that has nothing fetches a whole conversation: half of its tokens from a person, half from
        the agent. Ours is fetched as the transcript in one response, the same compressed, and as the event
        stream from the beginning. The peers hold the same number of tokens and are read from the beginning by
        an ordinary client. Median of 5 reads over a kept-alive connection.
        """,
    does_not_show=(
        """Structure: ours returns messages with their authors; the logs of Durable Streams and Redis are the
        bare text, written without a pause, and `workflow_streams` has no messages either.""",
        "A cold API: the worker has the session's workflow in memory, as for any session in use.",
    ),
    keys=(Column("tokens", "tokens"), Column("how", "fetched as")),
    columns=(
        Column("ms", "ms", "lower", grain=3.0),
        Column("kilobytes", "kB", "lower", grain=1.0),
        Column("bytes_ratio", "bytes per byte of text", "lower", grain=0.05),
    ),
    charts=(Chart("Resume of a conversation", x="tokens", y="ms", by="how"),),
    aims=(
        Aim({"tokens": 20_000, "how": "transcript"}, "ms", 100),
        Aim({"tokens": 20_000, "how": "transcript"}, "bytes_ratio", 1.3),
    ),
    run=run,
)
