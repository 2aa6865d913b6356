"""The interface of every streaming system that is measured, ours and the peers'."""

import array
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.figures import latency_columns
from benchmarks.readers import Readings, Subscription, reading
from benchmarks.scenario import Row

RATE_PER_SECOND = 50
SETTLE_SECONDS = 0.5
MIN_COUNTED_TOKENS = 1_000
"""In the histories of shorter turns, the fixed cost of a turn outweighs that of its tokens."""
DEADLINE_MARGIN_SECONDS = 40.0
WARM_UP_TOKENS = 10


@dataclass(frozen=True)
class Load:
    """How many streams at once, how many subscribers for each, and how many tokens at a steady rate."""

    streams: int
    subscribers: int
    tokens: int

    @property
    def seconds(self) -> float:
        """Returns how long the load takes at its rate, in seconds."""
        return self.tokens / RATE_PER_SECOND

    @property
    def arrivals(self) -> int:
        """Returns how many tokens all subscribers together should receive."""
        return self.streams * self.subscribers * self.tokens


@dataclass
class Measured:
    """The results of all rounds of one load."""

    expected: int = 0
    latencies_ms: "array.array[float]" = field(default_factory=lambda: array.array("f"))
    tokens: int = 0
    history_events: int = 0
    longest_turn: int = 0

    def add(self, load: Load, readings: Readings) -> None:
        """Adds a round."""
        self.expected += load.arrivals
        self.latencies_ms += readings.latencies_ms
        self.tokens += load.streams * load.tokens
        self.history_events += readings.history_events
        self.longest_turn = max(self.longest_turn, load.tokens)

    def columns(self) -> Row:
        """Returns the columns of a row."""
        row: Row = latency_columns(self.latencies_ms, self.expected)
        if self.history_events and self.longest_turn >= MIN_COUNTED_TOKENS:
            row["history_events_per_1k_tokens"] = round(self.history_events / self.tokens * 1_000)
        return row


class Streaming(Protocol):
    """A running system that can stream."""

    name: str

    async def stream(self, load: Load) -> Readings:
        """Streams the load once and returns what its subscribers received."""
        ...

    def skips(self, load: Load) -> str | None:
        """Returns why this system can't take this load, or ``None`` if it can."""
        ...


class BrokenSystem(RuntimeError):
    """A system doesn't work on this machine. That is a mistake of the benchmark, not a result."""


async def warm_up(system: Streaming) -> None:
    """Streams a little to warm up every process. Raises ``BrokenSystem`` unless all of it arrives."""
    load = Load(streams=1, subscribers=1, tokens=WARM_UP_TOKENS)
    expect_all(system.name, load, await system.stream(load))


def expect_all(name: str, load: Load, readings: Readings) -> None:
    """Raises ``BrokenSystem`` unless everything arrived."""
    if (arrived := len(readings.latencies_ms)) != load.arrivals:
        raise BrokenSystem(f"{name} has delivered {arrived} of {load.arrivals} tokens.")


async def subscribed(
    subscriptions: Sequence[Subscription], load: Load, begin: Callable[[], Awaitable[None]]
) -> Readings:
    """Connects all subscribers, begins the streams, and waits for their end."""
    async with reading(subscriptions, load.seconds + DEADLINE_MARGIN_SECONDS) as readers:
        await begin()
        return await readers.finished()


async def alternate(
    systems: Sequence[Streaming], load: Load, rounds: int, say: Callable[[str], None]
) -> dict[str, Measured]:
    """Measures the systems in turns, so that other load on the machine affects all of them."""
    totals: dict[str, Measured] = {}
    for _ in range(rounds):
        for system in systems:
            if reason := system.skips(load):
                say(f"  {system.name} is left out: {reason}")
                continue
            readings = await system.stream(load)
            if not readings.latencies_ms:
                raise BrokenSystem(f"{system.name} has delivered nothing.")
            totals.setdefault(system.name, Measured()).add(load, readings)
            await asyncio.sleep(SETTLE_SECONDS)
    return totals
