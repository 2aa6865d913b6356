"""Many clients, slow clients, and a stop that no token follows."""

import asyncio
import statistics
import time

import httpx
import pytest

from api.errors import TooMany
from api.live.bus import MemoryBus
from api.live.feed import Feed
from tests.support import EXAMPLES_FACTOR, eventually
from tests.workflows.session.test_failures import Watcher, begin, check, words
from tests.world.stack import KEYS, Stack
from waystation.client import Client
from waystation.errors import InvalidRequest, NotFound
from waystation.models.events import Event, EventType, LiveDelta
from waystation.settings import Settings

SUBSCRIBERS = 300
STOPS = 25 * EXAMPLES_FACTOR
STOP_TO_LAST_DELTA_SECONDS = 0.1


@pytest.mark.alone
async def test_no_token_follows_a_stop(client: Client) -> None:
    """Over many stops of a streaming agent: how long after the request the last delta arrives."""
    delays = []
    for _ in range(STOPS):
        session, watchers = await begin(client, "tokens=2000 rate=50", watchers=1)
        watcher = watchers[0]
        await watcher.until_text(20)
        asked = time.monotonic()
        answer = await session.stop()
        stopped = await watcher.until("turn.stopped")
        assert (answer.outcome, answer.seq) == ("stopped", stopped.seq)
        requested = next(e for e in watcher.durable if e.type == EventType.STOP_REQUESTED)
        position = watcher.seen.index(requested)
        after = [
            e
            for e in watcher.seen[position:]
            if isinstance(e, LiveDelta) or e.type == EventType.MESSAGE_DELTA
        ]
        assert not after, "no delta follows the stop"
        deltas = [
            at
            for at, event in zip(watcher.arrived, watcher.seen, strict=True)
            if isinstance(event, LiveDelta) or event.type == EventType.MESSAGE_DELTA
        ]
        delays.append(max(deltas[-1] - asked, 0.0))
        await check(watchers, session)
        await watcher.stop()
    p99 = statistics.quantiles(delays, n=100, method="inclusive")[98]
    assert p99 < STOP_TO_LAST_DELTA_SECONDS, f"p99 {p99 * 1000:.0f} ms, all {sorted(delays)[-5:]}"


async def test_many_subscribers_receive_everything_and_a_slow_one_slows_nobody(
    stack: Stack, client: Client
) -> None:
    session = await client.start("demo")
    path = f"{stack.url}/sessions/{session.id}/events"
    headers = {"Authorization": f"Bearer {KEYS['service']}"}
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(timeout=60, limits=limits) as slow_http,
        Client(stack.url, KEYS["service"], http=httpx.AsyncClient(timeout=60, limits=limits)) as crowd,
    ):
        # One that opens the stream and never reads.
        async with slow_http.stream("GET", path, headers=headers) as never_read:
            assert never_read.status_code == 200
            watchers = [Watcher(crowd.attach(session.id)) for _ in range(SUBSCRIBERS)]

            async def all_connected() -> bool:
                people = await session.people()
                return sum(person.connections for person in people.present) == SUBSCRIBERS + 1

            await eventually(all_connected)
            await session.send("tokens=150 rate=50")
            for watcher in watchers:
                await watcher.until("turn.completed", within=60)
            await check(watchers[:5], session)
            for watcher in watchers:
                assert watcher.text() == words(150)
                await watcher.stop()
        await crowd.http.aclose()


async def test_a_client_that_never_reads_is_switched_to_replay_and_loses_nothing(
    stack: Stack, client: Client
) -> None:
    """Its connection takes nothing for a while; meanwhile far more is written than is buffered for it."""
    session = await client.start("demo")
    host, port = stack.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    head = f"GET /sessions/{session.id}/events HTTP/1.1\r\nHost: x\r\n"
    request = head + f"Authorization: Bearer {KEYS['service']}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")

    async def switched() -> float:
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{stack.url}/metrics")).text
        line = next(
            x for x in metrics.splitlines() if x.startswith("waystation_clients_switched_to_replay_total ")
        )
        return float(line.split()[1])

    before = await switched()
    async with stack.client("agent") as agents:
        filler = agents.attach(session.id)
        for number in range(1, 60):
            items = [
                {"n": number * 100 + n, "type": "data.filler", "data": {"x": "y" * 4_000}} for n in range(100)
            ]
            await filler.write("filler", items)

    async def is_switched() -> bool:
        return await switched() > before

    await eventually(is_switched)
    received = b""
    while b'"n":"last"' not in received:
        if len(received) == 0:
            async with stack.client("agent") as agents:
                await agents.attach(session.id).write(
                    "last", [{"n": 1, "type": "data.filler", "data": {"n": "last"}}]
                )
        received += await asyncio.wait_for(reader.read(1 << 20), 20)
    writer.close()
    seqs = [int(line[4:]) for line in received.split(b"\n") if line.startswith(b"id: ")]
    tip = (await session.snapshot()).tip
    assert seqs == list(range(1, tip + 1)), "every number once, in order"


async def test_a_hundred_who_reconnect_at_once_cost_few_queries(stack: Stack, client: Client) -> None:
    session = await client.start("demo", message="tokens=50 rate=0")
    await session.load()

    async def idle() -> bool:
        return (await session.snapshot()).status == "idle"

    await eventually(idle)
    await session.close()

    async def queries() -> float:
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{stack.url}/metrics")).text
        line = next(x for x in metrics.splitlines() if x.startswith("waystation_replay_queries_total "))
        return float(line.split()[1])

    async def read_all() -> list[Event]:
        return [e async for e in client.attach(session.id).events() if isinstance(e, Event)]

    before = await queries()
    everyone = await asyncio.gather(*(read_all() for _ in range(100)))
    assert all([e.seq for e in events] == [e.seq for e in everyone[0]] for events in everyone)
    assert everyone[0][-1].type == "session.closed"
    # Other sessions' feeds may still poll; a query each would be a hundred.
    assert await queries() - before <= 20


async def test_too_many_subscribers_are_told_so() -> None:
    feed = Feed("crowded", None, MemoryBus(), Settings(max_subscribers_per_session=1))  # type: ignore[arg-type]
    feed.subscribe(0, staff=True)
    with pytest.raises(TooMany, match="streams on this server"):
        feed.subscribe(0, staff=True)


async def test_what_an_agent_wrote_before_it_failed_stands(client: Client) -> None:
    """It was on screens; that it vanished again would hide what the failure was about."""
    session = await client.start("demo")
    for _ in range(3):
        await session.send("tokens=9 rate=0 fail=9")

    async def failed() -> bool:
        return (await session.snapshot()).status == "idle"

    await eventually(failed)
    said = [message.text for message in await session.load() if message.actor.role == "agent"]
    assert said == ["A durable session keeps what is said while networks "] * 3


@pytest.mark.parametrize(("retries", "end"), [(1, "completed"), (2, "completed"), (3, "failed")])
async def test_a_turn_has_all_its_attempts_and_is_never_stopped_by_nobody(
    client: Client, retries: int, end: str
) -> None:
    session, watchers = await begin(client, f"tokens=20 rate=0 retry=10 retries={retries}", watchers=1)
    watcher = watchers[0]
    ended = await watcher.until(f"turn.{end}", within=60)
    kinds = [event.type for event in watcher.durable]
    assert kinds.count(EventType.TURN_RETRIED) == min(retries, 2)
    assert ended.data["attempt"] == min(retries + 1, 3)
    assert EventType.STOP_REQUESTED not in kinds
    assert EventType.TURN_STOPPED not in kinds
    await check(watchers, session)
    await watcher.stop()


async def test_several_readers_of_one_session_object_each_get_everything(client: Client) -> None:
    session = await client.start("demo")

    async def read() -> tuple[list[int], list[LiveDelta]]:
        seqs: list[int] = []
        live: list[LiveDelta] = []
        async for event in session.events(after=0):
            if isinstance(event, LiveDelta):
                live.append(event)
                continue
            seqs.append(event.seq)
            if event.type == EventType.TURN_COMPLETED:
                break
        return seqs, live

    async def connected() -> bool:
        return sum(person.connections for person in (await session.people()).present) == 3

    reading = asyncio.gather(read(), read(), read())
    await eventually(connected)
    await session.send("tokens=60 rate=200")
    first, second, third = await reading
    assert first[0] == second[0] == third[0]
    whole = {message.id: message.text for message in await session.load()}
    for _, live in (first, second, third):
        assert live, "each of them was shown text live"
        for delta in live:
            offset, text = delta.data["offset"], delta.data["text"]
            assert whole[delta.message_id][offset : offset + len(text)] == text


@pytest.mark.parametrize("name", ["../me", "a/../../me", "x?role=agent", "x#y", "%2e%2e", "ä ö"])
async def test_an_id_never_reaches_another_route(client: Client, name: str) -> None:
    """Whatever an id is made of, it is an id: refused as one, and no part of the path."""
    with pytest.raises((NotFound, InvalidRequest)):
        await client.attach(name).snapshot()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_of_dots_is_refused_before_anything_is_asked(client: Client, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no id"):
        client.attach(name)
