"""What every streaming system under measurement offers, ours and the peers alike."""

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
"""The histories of shorter turns say more of what every turn costs than of tokens."""
DEADLINE_MARGIN_SECONDS = 40.0
WARM_UP_TOKENS = 10


@dataclass(frozen=True)
class Load:
    """So many streams at once, each with so many subscribers, and tokens at a steady rate."""

    streams: int
    subscribers: int
    tokens: int

    @property
    def seconds(self) -> float:
        """How long an unhurried run takes."""
        return self.tokens / RATE_PER_SECOND

    @property
    def arrivals(self) -> int:
        """How many tokens all the subscribers together should see."""
        return self.streams * self.subscribers * self.tokens


@dataclass
class Measured:
    """What rounds of one load brought."""

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
        """The columns of a row."""
        row: Row = latency_columns(self.latencies_ms, self.expected)
        if self.history_events and self.longest_turn >= MIN_COUNTED_TOKENS:
            row["history_events_per_1k_tokens"] = round(self.history_events / self.tokens * 1_000)
        return row


class Streaming(Protocol):
    """A running system that can stream."""

    name: str

    async def stream(self, load: Load) -> Readings:
        """Streams the load once and answers what its subscribers saw."""
        ...

    def skips(self, load: Load) -> str | None:
        """Why this load can't be had from this system; none where it can."""
        ...


class BrokenSystem(RuntimeError):
    """A system that doesn't work here: that is our mistake, and no result of its."""


async def warm_up(system: Streaming) -> None:
    """Streams a little, so that every process is warm; raises ``BrokenSystem`` unless all of it arrives."""
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
    """Rounds of each system in turn, so that whatever else the machine does meets all of them."""
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
