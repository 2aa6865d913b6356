"""One session with more and more subscribers."""

from benchmarks.latency import LATENCY_COLUMNS, TOKENS, rounds
from benchmarks.scenario import Chart, Column, Row, Say, Scenario, Size
from benchmarks.streaming import Load
from benchmarks.systems import measure_loads

SUBSCRIBERS = {Size.QUICK: (1, 25), Size.DEFAULT: (1, 25, 200, 1_000), Size.LONG: (1, 25, 200, 1_000)}
MANY = 1_000
"""From this number of subscribers on, one round brings enough tokens, and the default size has only one."""


async def run(size: Size, say: Say) -> list[Row]:
    """Returns rows by system and number of subscribers."""
    loads = [
        (Load(streams=1, subscribers=count, tokens=TOKENS[size]), rounds(size, count, MANY))
        for count in SUBSCRIBERS[size]
    ]
    return await measure_loads(loads, lambda load: {"subscribers": load.subscribers}, say)


SCENARIO = Scenario(
    name="fan_out",
    title="Fan-out of one session",
    shows="""
        One session of 50 tokens a second, watched by many. Percentiles are over all tokens at all
        subscribers. The peers are those of the latency scenario; each system is one server process.
        """,
    does_not_show=(
        """The server alone: 1,000 subscribers at 50 tokens/s are 50,000 writes and 50,000 reads a second on
        the same cores. The readers are bare sockets in separate processes that parse what they read only at
        the end, and they still take their share.""",
        """More than one API process: ours spreads subscribers over as many as there are, with Redis between
        them.""",
    ),
    keys=(Column("subscribers", "subscribers"),),
    columns=LATENCY_COLUMNS,
    charts=(Chart("p99 latency by subscribers of one session", x="subscribers", y="p99_ms"),),
    run=run,
)
