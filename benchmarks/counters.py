"""What Temporal and Redis themselves have counted."""

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
    """Temporal's billable actions by type, by the server's own metric."""
    redis_commands: Counter[str] = field(default_factory=Counter)
    redis_bytes: int = 0

    def since(self, before: "Counted") -> "Counted":
        """What has been added since."""
        return Counted(
            self.actions - before.actions,
            self.redis_commands - before.redis_commands,
            self.redis_bytes - before.redis_bytes,
        )


def parse_actions(metrics: str) -> Counter[str]:
    """The ``action`` counters in Prometheus' text, of the namespace that is used."""
    found: Counter[str] = Counter()
    for kind, value in _ACTION.findall(metrics):
        found[kind] += int(float(value))
    return found


async def read(metrics_port: int, redis_port: int | None) -> Counted:
    """Reads both."""
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
