"""Counts taken from Temporal's and Redis' own metrics."""

import re
from collections import Counter
from dataclasses import dataclass, field

import httpx
from redis.asyncio import Redis

_ACTION = re.compile(r'^action\{action_type="([^"]+)",namespace="default"[^}]*\} (\S+)$', re.MULTILINE)
REDIS_ADMINISTRATION = frozenset({"info", "client", "hello", "ping", "config", "select", "command"})


@dataclass
class Counted:
    """Totals since the servers started, or between two readings."""

    actions: Counter[str] = field(default_factory=Counter)
    """Temporal's billable actions by type, as the server's own metric counts them."""
    redis_commands: Counter[str] = field(default_factory=Counter)
    redis_bytes: int = 0

    def since(self, before: "Counted") -> "Counted":
        """Returns what was added since the earlier reading."""
        return Counted(
            self.actions - before.actions,
            self.redis_commands - before.redis_commands,
            self.redis_bytes - before.redis_bytes,
        )


def parse_actions(metrics: str) -> Counter[str]:
    """Returns the ``action`` counters of the default namespace from Prometheus' text format, by type."""
    found: Counter[str] = Counter()
    for kind, value in _ACTION.findall(metrics):
        found[kind] += int(float(value))
    return found


async def read(metrics_port: int, redis_port: int | None) -> Counted:
    """Reads Temporal's counters, and Redis' if there is a port for it."""
    async with httpx.AsyncClient(trust_env=False) as http:
        counted = Counted(parse_actions((await http.get(f"http://127.0.0.1:{metrics_port}/metrics")).text))
    if redis_port is not None:
        redis = Redis(port=redis_port)
        commands = await redis.info("commandstats")
        stats = await redis.info("stats")
        await redis.aclose()
        for name, told in commands.items():
            command = name.removeprefix("cmdstat_").partition("|")[0]
            if command not in REDIS_ADMINISTRATION:
                counted.redis_commands[command] += told["calls"]
        counted.redis_bytes = stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
    return counted
