"""From an agent's ``write`` to the bytes at a subscriber, with more and more sessions at once."""

from benchmarks.scenario import Aim, Chart, Column, Row, Say, Scenario, Size
from benchmarks.streaming import Load
from benchmarks.systems import measure_loads

SESSIONS = {Size.QUICK: (10,), Size.DEFAULT: (10, 50, 100, 200), Size.LONG: (10, 50, 100, 200)}
"""Numbers of sessions at once that are measured in addition to one."""
TOKENS = {Size.QUICK: 50, Size.DEFAULT: 150, Size.LONG: 1_000}
ROUNDS = {Size.QUICK: 1, Size.DEFAULT: 2, Size.LONG: 3}
MANY = 100
"""From this number of sessions on, one round brings enough tokens, and the default size has only one."""
TOKENS_OF_ONE = {Size.QUICK: 50, Size.DEFAULT: 1_000, Size.LONG: 1_000}
"""A single session streams longer, so that its history shows what a thousand tokens cost."""

LATENCY_COLUMNS = (
    Column("delivered", "delivered", "higher", grain=0.001),
    Column("p50_ms", "p50 ms", "lower", grain=1.0, times_ours=True),
    Column("p99_ms", "p99 ms", "lower", grain=5.0, times_ours=True),
    Column("max_ms", "max ms"),
)
HISTORY_COLUMN = Column(
    "history_events_per_1k_tokens", "history events per 1,000 tokens", "lower", 20, times_ours=True
)


def rounds(size: Size, count: int, many: int) -> int:
    """Returns in how many rounds a load is measured."""
    return 1 if size == Size.DEFAULT and count >= many else ROUNDS[size]


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by system and number of sessions."""
    loads = [(Load(streams=1, subscribers=1, tokens=TOKENS_OF_ONE[size]), 1)] + [
        (Load(streams=count, subscribers=1, tokens=TOKENS[size]), rounds(size, count, MANY))
        for count in SESSIONS[size]
    ]
    return await measure_loads(loads, lambda load: {"sessions": load.streams}, say)


SCENARIO = Scenario(
    name="latency",
    title="Latency from publish to screen",
    shows="""
        Each session has one agent that writes 50 tokens a second and one subscriber. A token's latency is
        from the agent's `write` to the bytes at the subscriber's socket; agents and subscribers are separate
        processes. Peers, in the same rounds: `temporalio.contrib.workflow_streams` on the same Temporal
        server (its documented 100 ms batches); the Durable Streams reference server with its files; Redis
        Streams read with `XREAD BLOCK` straight from Redis, append-only file on; and plain server-sent events
        from memory, which keep nothing and show what starlette does on this machine. History events are those
        of the single session, whose turn has 1,000 tokens.
        """,
    does_not_show=(
        """A network: everything is on one machine, so no result includes the cost of distance.""",
        """Separate servers: all processes of a system, and its subscribers, share the cores. Beyond some
        number of sessions, their sum is measured.""",
        """The same guarantees: plain events are lost with their process; Redis and Durable Streams keep
        tokens but know no turns, stops or fences; ours shows a token before it is durable, and its durable
        copy follows within a third of a second or so.""",
    ),
    keys=(Column("sessions", "sessions"),),
    columns=(*LATENCY_COLUMNS, HISTORY_COLUMN),
    charts=(
        Chart("p50 latency by sessions at 50 tokens/s", x="sessions", y="p50_ms"),
        Chart("p99 latency by sessions at 50 tokens/s", x="sessions", y="p99_ms"),
    ),
    aims=(
        Aim({"sessions": 1}, "p50_ms", 2),
        Aim({"sessions": 1}, "p99_ms", 10),
        Aim({"sessions": 1}, "history_events_per_1k_tokens", 350),
        Aim({"sessions": 50}, "p99_ms", 50),
        Aim({"sessions": 50}, "delivered", 1.0, "at least"),
    ),
    run=run,
)
