"""Sessions: people with their devices, senders, stoppers, operators, and agents that behave badly."""

import random
from collections.abc import Iterator, Sequence
from typing import Final

from tests.torture.plan import Actor, Fault, Plan, stream

SESSION_EVERY_SECONDS: Final = 6.0
SHORTEST_SESSION_SECONDS, LONGEST_SESSION_SECONDS = 20.0, 45.0
FAULT_EVERY_SECONDS: Final = 6.0
MISHAP_EVERY_SECONDS: Final = 0.15
FIRST_FAULT_SECONDS: Final = 2.0
DEVICES: Final = ("sse", "eventsource", "socket", "transcript", "sdk", "slow", "vanishing")
AGENTS: Final = (("wild", 6), ("raw", 2), ("asker", 4))
"""Names of agents, and how many sessions in twelve each answers."""
OTHERS: Final = (
    ("stopper", 0.5),
    ("steerer", 0.4),
    ("operator", 0.25),
    ("joiner", 0.3),
    ("poster", 0.3),
    ("temporal", 0.25),
    ("looker", 0.3),
    ("resetter", 0.1),
)
"""Kinds of actors that take part in a session, and how often."""
ANSWERERS: Final = ("client", "client", "operator", "approver")
"""What somebody is who answers the agent's questions."""

APIS: Final = ("api-1", "api-2")
WORKERS: Final = ("worker-1", "worker-2")
AGENT_PROCESSES: Final = ("wild-1", "wild-2", "raw-1")
CLOCKS: Final = ("api-2", "worker-2", "wild-2")
"""Whose clock may be off."""
SERVERS: Final = ("redis", "temporal")
WIRES: Final = (
    "people-1",
    "people-2",
    "agents",
    "redis-wire",
    "temporal-api",
    "temporal-worker",
    "temporal-agent",
)
HTTP_WIRES: Final = ("people-1", "people-2", "agents")

FAULTS: Final = (
    # kind, weight, targets, shortest and longest duration in seconds
    ("kill", 20, AGENT_PROCESSES + APIS + WORKERS, 0.0, 2.0),
    ("kill", 4, SERVERS, 0.0, 3.0),
    ("terminate", 12, AGENT_PROCESSES + APIS + WORKERS, 0.0, 1.0),
    ("deploy", 3, ("api", "worker", "wild"), 0.0, 0.0),
    ("pause", 12, AGENT_PROCESSES + APIS + WORKERS + SERVERS, 0.3, 6.0),
    ("cut", 12, WIRES, 0.0, 3.0),
    ("delay", 6, WIRES, 1.0, 4.0),
    ("answer_502", 6, HTTP_WIRES, 0.2, 2.0),
    ("answer_401", 3, HTTP_WIRES, 0.2, 1.0),
    ("payloads_away", 3, ("payloads",), 0.5, 4.0),
    ("disk_full", 3, ("payloads",), 0.5, 4.0),
)
"""What takes a process or a whole wire away: a few a minute."""
BUSY_WIRES: Final = (
    *("people-1", "people-2") * 6,
    *("agents",) * 3,
    *("redis-wire",) * 2,
    *("temporal-api", "temporal-worker", "temporal-agent"),
)
MISHAPS: Final = (
    ("cut_connection", 26, BUSY_WIRES, 0.0, 0.0),
    ("tear", 26, BUSY_WIRES, 0.0, 0.0),
    ("delay_piece", 8, BUSY_WIRES, 0.0, 0.0),
    ("stall_connection", 10, BUSY_WIRES, 0.2, 4.0),
    ("trickle", 10, BUSY_WIRES, 0.0, 0.0),
    ("refuse_502", 12, ("people-1", "people-2", "people-1", "people-2", "agents"), 0.0, 0.0),
    ("refuse_401", 8, ("people-1", "people-2", "people-1", "people-2", "agents"), 0.0, 0.0),
)
"""What befalls one connection: several a second."""


def plan(seed: int, seconds: float, *, thinned: float = 1.0) -> Plan:
    """Returns the plan of a seed; ``thinned`` stretches the time between sessions, and between faults."""
    chance = stream(seed, "settings")
    off = {"process": chance.choice(CLOCKS), "seconds": chance.choice([-4, 4])}
    return Plan(
        seed=seed,
        seconds=seconds,
        profile="sessions",
        actors=tuple(cast(seed, seconds, SESSION_EVERY_SECONDS * thinned)),
        faults=tuple(faults(seed, seconds, thinned)),
        settings={
            "limits__events_per_run": chance.choice([0, 60, 150]),
            "limits__park_after_seconds": stream(seed, "parks").choice([1, 1, 3]),
            "storage_threshold_bytes": chance.choice([2_000, 262_144]),
            "stream_lifetime_seconds": chance.choice([6, 3_600]),
            "clock": chance.choice([None, None, off]),
            "worker_cached_workflows": chance.choice([1_000, 1_000, 2, 0]),
        },
    )


def cast(seed: int, seconds: float, session_every_seconds: float) -> Iterator[Actor]:
    """Yields everybody who acts."""
    yield Actor("prober", "prober", 0.0, seconds)
    for number in range(max(1, int(seconds // 30))):
        begins = stream(seed, f"attacker-{number}").uniform(0, seconds)
        yield Actor(f"attacker-{number}", "attacker", begins, 30.0)
        yield Actor(f"socket-attacker-{number}", "socket_attacker", begins, 30.0)
    for number in range(1, max(2, int(seconds // session_every_seconds)) + 1):
        session = f"s{seed}-{number}"
        yield from party(stream(seed, session), session, (number - 1) * session_every_seconds, seconds)


def party(chance: random.Random, session: str, begins: float, seconds: float) -> Iterator[Actor]:
    """Yields who takes part in one session."""
    lasts = min(chance.uniform(SHORTEST_SESSION_SECONDS, LONGEST_SESSION_SECONDS), max(seconds - begins, 8.0))
    (agent,) = chance.choices([name for name, _ in AGENTS], [weight for _, weight in AGENTS])
    settings = {"agent": agent, "waits": chance.random() < 0.7}
    yield Actor(f"{session}/host", "host", begins, lasts, session, settings)
    for number in range(chance.choice([1, 1, 2])):
        yield Actor(
            f"{session}/sender-{number}", "sender", begins + 0.5, lasts - 1, session, {"agent": agent}
        )
    for number, kind in enumerate(chance.sample(DEVICES, chance.choice([2, 3, 4]))):
        late = begins + chance.choice([0.5, 0.5, chance.uniform(1, lasts)])
        yield Actor(f"{session}/device-{number}-{kind}", kind, late, begins + lasts - late, session)
    for kind, probability in OTHERS:
        takes_part, late = chance.random() < probability, chance.uniform(1, lasts / 2)
        if takes_part:
            yield Actor(f"{session}/{kind}", kind, begins + late, lasts - late - 1, session)
    for number in range(chance.choice([1, 2, 3]) if agent == "asker" else 0):
        role = "client" if number == 0 else chance.choice(ANSWERERS)
        settings = {"role": role}
        yield Actor(f"{session}/answerer-{number}", "answerer", begins + 0.5, lasts - 1, session, settings)


def faults(seed: int, seconds: float, thinned: float) -> Iterator[Fault]:
    """Yields what goes wrong: what takes something away, then what befalls single connections."""
    yield from draw(stream(seed, "faults"), "fault", FAULTS, FAULT_EVERY_SECONDS * thinned, seconds)
    yield from draw(stream(seed, "mishaps"), "mishap", MISHAPS, MISHAP_EVERY_SECONDS * thinned, seconds)


def draw(
    chance: random.Random,
    name: str,
    kinds: Sequence[tuple[str, int, Sequence[str], float, float]],
    every_seconds: float,
    seconds: float,
) -> Iterator[Fault]:
    """Yields faults of these kinds at random moments, in order of time."""
    at, number = FIRST_FAULT_SECONDS, 0
    while at < seconds:
        ((kind, _, targets, shortest, longest),) = chance.choices(kinds, [fault[1] for fault in kinds])
        number += 1
        yield Fault(
            f"{name}-{number}",
            kind,
            chance.choice(targets),
            round(at, 2),
            round(chance.uniform(shortest, longest), 2),
            {"bytes": chance.randrange(1, 400), "seconds": round(chance.uniform(0.01, 0.4), 3)},
        )
        at += chance.expovariate(1 / every_seconds)
