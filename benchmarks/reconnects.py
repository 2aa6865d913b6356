"""All clients of a session reconnect at the same time."""

import re

import httpx

from benchmarks import prose
from benchmarks.figures import percentile, rounded
from benchmarks.ours import Waystation, close, patiently
from benchmarks.peers.durable_streams import DurableStreams
from benchmarks.peers.redis_streams import RedisStreams
from benchmarks.readers import Readings, Subscription, reading
from benchmarks.scenario import OURS, Aim, Column, Row, Say, Scenario, Size
from benchmarks.systems import running
from waystation.models.events import Event, EventType

CLIENTS = {Size.QUICK: (50,), Size.DEFAULT: (100, 1_000), Size.LONG: (100, 1_000, 1_900)}
ROUNDS = {Size.QUICK: 1, Size.DEFAULT: 3, Size.LONG: 5}
TOKENS = 2_000
DEADLINE_SECONDS = 60.0


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by system and number of clients."""
    rows: list[Row] = []
    words = prose.words(TOKENS)
    async with running(say) as systems:
        for clients in CLIENTS[size]:
            say(f"  {clients} clients")
            rows.append(await _ours(systems.ours, clients, words, ROUNDS[size]))
            peers = [peer for peer in (systems.durable_streams, systems.redis_streams) if peer]
            rows += [await _peer(peer, clients, words, ROUNDS[size]) for peer in peers]
    return rows


async def _ours(system: Waystation, clients: int, words: list[str], rounds: int) -> Row:
    """Measures ours: clients missed one answer of 2,000 tokens and reconnect while the next is streaming."""
    session = (await system.sessions(1))[0]
    sent = await session.send("".join(words), data={"echo": 1})
    async for event in session.events():
        if isinstance(event, Event) and event.type == EventType.TURN_COMPLETED:
            break
    await session.send("tokens=100000 rate=50")
    before = await _queries(system)
    storms = [
        await _storm([system.subscription(session.id, after=sent.seq)] * clients) for _ in range(rounds)
    ]
    asked = await _queries(system) - before
    await patiently(session.stop)
    await close(session)
    return {**_row(OURS, clients, storms), "queries": rounded(asked / rounds)}


async def _queries(system: Waystation) -> float:
    """Returns how many replay queries the API has made so far."""
    async with httpx.AsyncClient(base_url=system.stack.url) as http:
        found = re.search(
            r"^waystation_replay_queries_total (\S+)", (await http.get("/metrics")).text, re.MULTILINE
        )
    return float(found[1]) if found else 0.0


async def _peer(peer: DurableStreams | RedisStreams, clients: int, words: list[str], rounds: int) -> Row:
    stream = (await peer.create(1))[0]
    await peer.write([stream], words=words)
    storms = [await _storm([peer.subscription(stream)] * clients) for _ in range(rounds)]
    return _row(peer.name, clients, storms)


async def _storm(subscriptions: list[Subscription]) -> Readings:
    async with reading(subscriptions, DEADLINE_SECONDS, wait=False) as readers:
        return await readers.finished()


def _row(system: str, clients: int, storms: list[Readings]) -> Row:
    """Returns the row: the time from the first client's connect until each client has everything."""
    waits = [(at - min(storm.began_ns)) / 1e6 for storm in storms for at in storm.ended_ns if at]
    whole = len(waits) / sum(len(storm.ended_ns) for storm in storms)
    row: Row = {"system": system, "clients": clients, "served": round(whole, 4)}
    if waits:
        row |= {"p50_ms": rounded(percentile(waits, 0.5)), "last_ms": rounded(max(waits))}
    row["kilobytes_each"] = rounded(sum(s.bytes for s in storms) / len(storms) / clients / 1e3)
    return row


SCENARIO = Scenario(
    name="reconnects",
    title="A reconnect storm",
    shows="""
        All clients of one session connect at the same moment and ask for what they missed: one answer of
        2,000 tokens. Time is from the first connect to when a client has everything. For ours the next answer
        is streaming in the meantime, at 50 tokens/s to each reconnected client. `queries` is how often the
        session's workflow was asked for it, per storm.
        """,
    does_not_show=(
        """`workflow_streams`, whose updates in flight for one workflow are limited, and plain events, which
        keep nothing.""",
        "TLS handshakes, a load balancer, or clients that wait a random moment first, as ours do.",
        "An API process that has just started: see the recovery scenario.",
    ),
    keys=(Column("clients", "clients"),),
    columns=(
        Column("served", "served", "higher", grain=0.001),
        Column("p50_ms", "half are back after ms", "lower", grain=20, times_ours=True),
        Column("last_ms", "all are back after ms", "lower", grain=50, times_ours=True),
        Column("kilobytes_each", "kB each"),
        Column("queries", "queries", "lower", grain=3),
    ),
    aims=(Aim({"clients": 1_000}, "served", 1.0, "at least"),),
    run=run,
)
