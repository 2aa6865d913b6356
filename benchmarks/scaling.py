"""What a million concurrent sessions would take: docs/scaling.md, arithmetic from recorded runs.

Nothing is measured here. Every number is a stated assumption, comes from ``benchmarks/results``, or follows
from these by the arithmetic that the page shows.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.idle_sessions import CACHED_WORKFLOWS, kilobytes_per_session
from benchmarks.recording import Recorded
from benchmarks.scenario import OURS, Row
from tests.support import ROOT

PAGE = ROOT / "docs" / "scaling.md"

SECONDS_PER_HOUR = 3_600
HOURS_PER_MONTH = 730
BYTES_PER_GB = 1_000_000_000


@dataclass(frozen=True)
class Assumptions:
    """What is assumed about users and machines; change it and remake the page."""

    sessions: int = 1_000_000
    """Open, each with one client connected."""
    seconds_between_turns: int = 600
    tokens_per_turn: int = 500
    tokens_per_second: int = 50
    purchases_per_session_hour: float = 0.01
    paid_requests_per_session_hour: float = 0.1
    retention_days: int = 7
    busy_share: float = 0.5
    """How much of a core or of memory is planned with, so that a peak or a lost machine fits."""
    redis_commands_per_second_per_core: int = 100_000
    """What a Redis node is commonly planned with; publishing costs more with many listeners."""


@dataclass(frozen=True)
class Measured:
    """What recorded runs say about one session, turn and purchase."""

    turn: Row
    """A turn of one token."""
    long_turn: Row
    """A turn of ``long_turn["tokens"]`` tokens."""
    kilobytes: Mapping[str, float]
    purchase: Row | None = None
    paid_request: Row | None = None

    def per_1k_tokens(self, column: str) -> float:
        """Returns what a thousand tokens add to the cost of a turn."""
        added = float(self.long_turn[column]) - float(self.turn[column])
        tokens = int(self.long_turn["tokens"]) - int(self.turn["tokens"])
        return max(added, 0.0) * 1_000 / tokens

    def per_turn(self, column: str, tokens: int) -> float:
        """Returns the cost of a turn of that many tokens: a fixed part and a part for its tokens."""
        return float(self.turn[column]) + self.per_1k_tokens(column) * tokens / 1_000


@dataclass
class Plan:
    """The calculation line by line, and its results by name."""

    lines: list[str] = field(default_factory=list)
    results: dict[str, float] = field(default_factory=dict)

    def line(self, name: str, arithmetic: str, value: float, unit: str) -> float:
        """Adds one step: what is calculated, how, and the result."""
        self.lines.append(f"| {name} | {arithmetic} | **{amount(value)}** {unit} |")
        self.results[name] = value
        return value


def amount(value: float) -> str:
    """Returns a number with three significant figures and separated thousands."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def measured(runs: Mapping[str, Recorded]) -> Measured | None:
    """Returns the recorded measurements, or ``None`` if one of the two required runs is missing."""
    if "cost" not in runs or "idle_sessions" not in runs:
        return None
    turns = sorted((r for r in runs["cost"]["rows"] if r["system"] == OURS), key=lambda row: row["tokens"])
    return Measured(
        turns[0],
        turns[-1],
        kilobytes_per_session(runs["idle_sessions"]["rows"]),
        _dearest(runs.get("purchases")),
        _dearest(runs.get("paid_requests")),
    )


def _dearest(run: Recorded | None) -> Row | None:
    """Returns the row with the most actions among the ways to buy or pay whose actions are known."""
    rows = [row for row in run["rows"] if row["system"] == OURS and "history_events" in row] if run else []
    return max(rows, key=actions_of, default=None)


def actions_of(row: Row) -> float:
    """Returns the billable actions of a purchase or payment: counted, or added up from its histories.

    A history shows activities, updates and signals; the start of its workflow is one more action.
    """
    if "actions" in row:
        return float(row["actions"])
    return 1.0 + sum(float(row.get(part, 0)) for part in ("activities", "updates", "signals"))


def plan(given: Assumptions, found: Measured) -> Plan:
    """Returns the whole calculation."""
    made = Plan()
    _load(made, given)
    _temporal(made, given, found)
    _redis(made, given, found)
    _processes(made, given, found)
    return made


def _load(made: Plan, given: Assumptions) -> None:
    turns = made.line(
        "turns", f"{given.sessions:,} sessions ÷ {given.seconds_between_turns} s",
        given.sessions / given.seconds_between_turns, "/s",
    )  # fmt: skip
    seconds = given.tokens_per_turn / given.tokens_per_second
    made.line(
        "streaming at once",
        f"{amount(turns)} turns/s × {given.tokens_per_turn} tokens ÷ {given.tokens_per_second} tokens/s",
        turns * seconds, "sessions",
    )  # fmt: skip
    made.line(
        "tokens", f"{amount(turns)} turns/s × {given.tokens_per_turn} tokens",
        turns * given.tokens_per_turn, "/s",
    )  # fmt: skip


def _temporal(made: Plan, given: Assumptions, found: Measured) -> None:
    turns, tokens = made.results["turns"], given.tokens_per_turn
    each = made.line(
        "actions of a turn", _sum(found, "actions", tokens), found.per_turn("actions", tokens), ""
    )
    total = made.line("actions, talking", f"{amount(turns)} turns/s × {amount(each)}", turns * each, "/s")
    for name, row, hourly in (
        ("purchases", found.purchase, given.purchases_per_session_hour),
        ("paid requests", found.paid_request, given.paid_requests_per_session_hour),
    ):
        if row is not None:
            per_second = given.sessions * hourly / SECONDS_PER_HOUR
            total += made.line(
                f"actions, {name}",
                f"{given.sessions:,} × {hourly} an hour ÷ 3,600 s × {amount(actions_of(row))} each",
                per_second * actions_of(row), "/s",
            )  # fmt: skip
    made.line("actions, all", "their sum", total, "/s")
    made.line(
        "actions a month", f"{amount(total)}/s × 3,600 × {HOURS_PER_MONTH}",
        total * SECONDS_PER_HOUR * HOURS_PER_MONTH / 1e9, "thousand million",
    )  # fmt: skip
    size = made.line(
        "history of a turn",
        _sum(found, "history_bytes", tokens),
        found.per_turn("history_bytes", tokens),
        "bytes",
    )
    made.line(
        "history written", f"{amount(turns)} turns/s × {amount(size)} bytes",
        turns * size / 1e6, "MB/s",
    )  # fmt: skip
    days = given.retention_days
    made.line(
        "history kept", f"{amount(turns * size / 1e6)} MB/s × 86,400 × {days} days",
        turns * size * 86_400 * days / 1e12, "TB",
    )  # fmt: skip


def _redis(made: Plan, given: Assumptions, found: Measured) -> None:
    turns, tokens = made.results["turns"], given.tokens_per_turn
    each = found.per_turn("redis_commands", tokens)
    commands = made.line(
        "Redis commands", f"{amount(turns)} turns/s × ({_sum(found, 'redis_commands', tokens)})",
        turns * each, "/s",
    )  # fmt: skip
    traffic = found.per_turn("redis_bytes", tokens)
    made.line(
        "Redis traffic", f"{amount(turns)} turns/s × {amount(traffic)} bytes",
        turns * traffic / 1e6, "MB/s",
    )  # fmt: skip
    made.line(
        "Redis cores",
        f"{amount(commands)}/s ÷ {given.redis_commands_per_second_per_core:,}/s ÷ {given.busy_share}",
        math.ceil(commands / given.redis_commands_per_second_per_core / given.busy_share), "",
    )  # fmt: skip


def _processes(made: Plan, given: Assumptions, found: Measured) -> None:
    turns, tokens = made.results["turns"], given.tokens_per_turn
    for kind in ("api", "worker", "agent"):
        each = found.per_turn(f"{kind}_cpu_ms", tokens)
        made.line(
            f"{kind.replace('api', 'API')} cores",
            f"{amount(turns)} turns/s × ({_sum(found, f'{kind}_cpu_ms', tokens)}) ms ÷ {given.busy_share}",
            math.ceil(turns * each / 1e3 / given.busy_share), "",
        )  # fmt: skip
    watched = found.kilobytes["api, followed"]
    made.line(
        "API memory", f"{given.sessions:,} × {amount(watched)} kB ÷ {given.busy_share}",
        given.sessions * watched * 1e3 / given.busy_share / BYTES_PER_GB, "GB",
    )  # fmt: skip
    streaming = made.results["streaming at once"]
    caches = made.line(
        "workers, by their cache",
        f"{amount(streaming)} streaming ÷ {CACHED_WORKFLOWS:,} ÷ {given.busy_share}",
        math.ceil(streaming / CACHED_WORKFLOWS / given.busy_share), "",
    )  # fmt: skip
    made.line(
        "worker memory", f"{amount(caches)} × {CACHED_WORKFLOWS:,} × {amount(found.kilobytes['worker'])} kB",
        caches * CACHED_WORKFLOWS * found.kilobytes["worker"] * 1e3 / BYTES_PER_GB, "GB",
    )  # fmt: skip
    client = found.per_turn("client_bytes", tokens)
    made.line(
        "to clients", f"{amount(turns)} turns/s × {amount(client)} bytes × 8",
        turns * client * 8 / 1e9, "Gbit/s",
    )  # fmt: skip


def _sum(found: Measured, column: str, tokens: int) -> str:
    more = found.per_1k_tokens(column)
    return f"{amount(found.turn[column])} + {amount(more)} × {tokens} ÷ 1,000"


def page(runs: Mapping[str, Recorded], given: Assumptions | None = None) -> str:
    """Returns the text of docs/scaling.md."""
    return "\n".join(_page(measured(runs), given or Assumptions()))


def write(runs: Mapping[str, Recorded]) -> None:
    """Writes the page."""
    PAGE.write_text(page(runs))


def _page(found: Measured | None, given: Assumptions) -> Iterator[str]:
    yield "# Scaling\n"
    yield "Made by `make bench` from recorded runs ([benchmarks.md](benchmarks.md)); don't edit it by hand.\n"
    if found is None:
        yield "The scenarios `cost` and `idle_sessions` have not been recorded yet.\n"
        return
    yield from _costs(found)
    yield from _million(found, given)
    yield LIMITS


def _costs(found: Measured) -> Iterator[str]:
    yield "## What things cost\n"
    yield (
        "Measured on one machine, with two API processes and Redis between them. A turn costs the first "
        "column, whatever its length, and the second for every thousand tokens at 50 tokens a second.\n"
    )
    yield "| | every turn | 1,000 tokens |\n|---|---:|---:|"
    for column, title in COSTS.items():
        yield f"| {title} | {amount(found.turn[column])} | {amount(found.per_1k_tokens(column))} |"
    yield ""
    if found.purchase is not None:
        yield f"One purchase: {_money(found.purchase)}.\n"
    if found.paid_request is not None:
        yield f"One paid request with its own workflow: {_money(found.paid_request)}.\n"


def _money(row: Row) -> str:
    parts = [f"{amount(actions_of(row))} Temporal actions", f"{amount(row['history_events'])} history events"]
    if "history_bytes" in row:
        parts.append(f"{amount(row['history_bytes'])} bytes of history")
    return ", ".join(parts)


def _million(found: Measured, given: Assumptions) -> Iterator[str]:
    yield f"## {given.sessions:,} concurrent sessions\n"
    yield (
        f"Assumed: each session is open and has one client connected; a turn of {given.tokens_per_turn} "
        f"tokens every {given.seconds_between_turns} seconds at {given.tokens_per_second} tokens a second; "
        f"{given.purchases_per_session_hour} purchases and {given.paid_requests_per_session_hour} paid "
        f"requests per session and hour; histories kept for {given.retention_days} days; cores and memory "
        f"planned to be {given.busy_share:.0%} busy; a core of Redis serves "
        f"{given.redis_commands_per_second_per_core:,} commands a second. These are `Assumptions` in "
        "`benchmarks/scaling.py`.\n"
    )
    yield "| | arithmetic | |\n|---|---|---:|"
    yield from plan(given, found).lines
    yield ""


COSTS = {
    "actions": "Temporal actions",
    "history_events": "history events",
    "history_bytes": "history bytes",
    "redis_commands": "Redis commands",
    "redis_bytes": "Redis bytes, in and out",
    "client_bytes": "bytes to each client",
    "api_cpu_ms": "API CPU, ms",
    "worker_cpu_ms": "worker CPU, ms",
    "agent_cpu_ms": "agent CPU, ms",
}

LIMITS = """## What limits what

- **Idle sessions** cost a row in Temporal's database, and memory only while a worker still caches them. There
may be any number of them.
- **Open connections** cost API memory. API processes share nothing but Redis: add processes.
- **Streaming** costs Temporal actions: a signal for each durable batch, and a query of each API process that
  follows the session. A longer `WAYSTATION_DURABLE_INTERVAL_MS` reduces the signals in proportion and delays
  only durability; the live path feeds the screens. A namespace has a limit of actions a second; if it is too
  small, durability slows down but screens don't.
- **Redis** carries every live delta once, and to each API process that has a client of the session.
  Sessions are channels, so several Redis servers could share the load; today an installation has one.
- **One session** is one workflow: it accepts a few signals a second and serves one query at a time.
  Its readers are the API processes, not the clients.

## What this does not show

- A real cluster: nothing here has been run on one. Temporal's own processors and its database are left out of
the arithmetic, because the dev server's usage says nothing about them.
- Peaks: everything is an average over the assumed day.
- A model's tokens, which cost more than all of this.
"""
