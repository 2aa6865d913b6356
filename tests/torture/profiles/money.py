"""Money: mandates, with principals, buyers, payers and meddlers around each; approvers; bad sellers."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.torture.plan import Actor, Fault, Plan, stream
from tests.torture.profiles import sessions
from tests.torture.wishes import USDC

MANDATE_EVERY_SECONDS: Final = 10.0
SHORTEST_SECONDS, LONGEST_SECONDS = 20.0, 40.0
DEAR_FAULT_EVERY_SECONDS: Final = 5.0
CHEAP_FAULT_EVERY_SECONDS: Final = 0.4
FIRST_FAULT_SECONDS: Final = 4.0
OTHERS: Final = (("payer", 0.9), ("meddler", 0.5), ("shopper", 0.6), ("errands", 0.4))
"""Kinds of actors that take part around a mandate, and how often."""
METHODS: Final = (
    (["pm_card_visa"], 8),
    (["pm_card_chargeDeclined", "pm_card_visa"], 2),
    (["pm_card_authenticationRequired"], 1),
    (["pm_card_authenticationRequiredOnSetup"], 1),
)

GENEROUS_CAPS: Final = {"usd": 200_000, USDC: 100_000_000}
GENEROUS: Final[dict[str, Any]] = {
    "per_payment_cap": None,
    "payment_methods": ["pm_card_visa"],
    "constraints": [],
}
"""Terms of every second mandate: most of what is asked of it is paid."""

SHOPS: Final = ("shop-1", "shop-2")
SELLERS: Final = (*SHOPS, "paid-api")
MARKET: Final = (*SELLERS, "processor")
BUYERS: Final = ("buyer-1", "buyer-2")
PROGRAMS: Final = ("payer-1", "payer-2")
Kind = tuple[str, int, Sequence[str], float, float]
PROCESSES: Final = (*sessions.APIS, *sessions.WORKERS, *MARKET, *BUYERS, *PROGRAMS)
PAID_WIRES: Final = ("processor", *SELLERS)
WIRES: Final = ("people-1", "people-2", "agents", "temporal-api", "temporal-worker", *PAID_WIRES)
BUSY_WIRES: Final = (*PAID_WIRES * 3, *WIRES)
HTTP_WIRES: Final = ("people-1", "people-2", *PAID_WIRES)

DEAR_FAULTS: Final = (
    # kind, weight, targets, shortest and longest duration in seconds
    ("kill", 24, PROCESSES, 0.0, 2.0),
    ("kill", 14, sessions.WORKERS, 0.0, 1.0),
    ("kill", 12, (*BUYERS, *PROGRAMS), 0.0, 0.5),
    ("kill", 1, sessions.SERVERS, 0.0, 2.0),
    ("terminate", 10, PROCESSES, 0.0, 1.0),
    ("deploy", 3, ("api", "worker", "buyer"), 0.0, 0.0),
    ("pause", 8, (*PROCESSES, *PROCESSES, *sessions.SERVERS), 0.3, 5.0),
    ("cut", 6, WIRES, 0.5, 3.0),
    ("restock", 3, SHOPS, 2.0, 6.0),
)
"""What everybody feels; seldom, for each takes the machine a while."""
CHEAP_FAULTS: Final = (
    ("trouble", 50, MARKET, 0.0, 0.0),
    ("tear", 14, BUSY_WIRES, 0.0, 0.0),
    ("cut_connection", 14, BUSY_WIRES, 0.0, 0.0),
    ("delay_piece", 4, BUSY_WIRES, 0.0, 0.0),
    ("stall_connection", 4, BUSY_WIRES, 0.2, 3.0),
    ("trickle", 4, BUSY_WIRES, 0.0, 0.0),
    ("refuse_502", 6, HTTP_WIRES, 0.0, 0.0),
    ("refuse_401", 1, HTTP_WIRES, 0.0, 0.0),
    ("misbehave", 8, SHOPS, 0.5, 3.0),
)
"""What strikes a call or two."""
TROUBLES: Final[tuple[dict[str, Any], ...]] = (
    *({"kind": "lose_answer"},) * 6,
    {"kind": "error", "status": 500},
    *({"kind": "error", "status": 503, "when": "after"},) * 3,
    {"kind": "slow", "delay_ms": 1_500},
    {"kind": "hang"},
    *({"kind": "hang", "when": "after"},) * 2,
    *({"kind": "die", "when": "after"},) * 2,
    *({"kind": "garble", "how": how} for how in ("unknown_fields", "unknown_fields", "deep", "huge", "half")),
    {"kind": "garble", "how": "page"},
)
MOMENTS: Final = {
    "processor": (
        *("POST .*/issued_tokens", "POST .*/payment_intents", "POST .*/confirm", "POST .*/revoke") * 2,
        "GET .*/issued_tokens",
    ),
    "shop": (
        *("POST /checkout_sessions", "POST .*/complete", "POST .*/complete", "POST .*/cancel"),
        "GET /checkout_sessions",
    ),
    "paid-api": ("GET /v1/(reports|quotes|facts)", "GET /v1/", "POST /facilitator"),
}
"""By who is in trouble: at which requests."""
BEHAVIOURS: Final[tuple[dict[str, Any], ...]] = (
    {"raise_prices_by": 100}, {"overcharge_by": 50}, {"charge_twice": True}, {"die_in": "reserve"},
    {"die_in": "place_order"},
    *({"tamper": how} for how in ("total", "currency", "quantity", "missing_totals", "amount_as_text")),
)  # fmt: skip


def plan(seed: int, seconds: float, *, thinned: float = 1.0) -> Plan:
    """Returns the plan of a seed; ``thinned`` stretches the time between mandates, and between faults."""
    chance = stream(seed, "settings")
    return Plan(
        seed=seed,
        seconds=seconds,
        profile="money",
        actors=tuple(cast(seed, seconds, MANDATE_EVERY_SECONDS * thinned)),
        faults=tuple(faults(seed, seconds, thinned)),
        settings={"storage_threshold_bytes": chance.choice([2_000, 262_144])},
    )


def cast(seed: int, seconds: float, mandate_every_seconds: float) -> Iterator[Actor]:
    """Yields everybody who acts."""
    yield Actor("prober", "prober", 0.0, seconds)
    for who in ("alice", "bob"):
        yield Actor(f"approver-{who}", "approver", 1.0, seconds, settings={"who": who})
    for program in PROGRAMS:
        yield Actor(program, "paying_program", 0.0, seconds, settings={"program": program})
    yield Actor("clerk", "clerk", 8.0, seconds - 8.0)
    for number in range(max(1, int(seconds // 30))):
        yield Actor(f"thief-{number}", "thief", 5.0 + 30.0 * number, 30.0)
        yield Actor(f"impostor-{number}", "impostor", 8.0 + 30.0 * number, 30.0)
    for number in range(1, max(2, int(seconds // mandate_every_seconds)) + 1):
        mandate = f"m{seed}-{number}"
        begins, generous = (number - 1) * mandate_every_seconds, number % 2 == 1
        yield from party(stream(seed, mandate), mandate, begins, seconds, generous=generous)


def party(
    chance: random.Random, mandate: str, begins: float, seconds: float, *, generous: bool
) -> Iterator[Actor]:
    """Yields who takes part around one mandate: a generous one, so that money moves, or any."""
    lasts = min(chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS), max(seconds - begins, 8.0))
    in_tokens = generous and chance.random() < 0.5
    settings = {"mandate": mandate, "currency": USDC if in_tokens else "usd"}
    grant = {
        **settings,
        "generous": generous,
        "terms": terms(chance),
        "sellers": list(SELLERS) if chance.random() < 0.9 else ["shop-1"],
        "valid_seconds": chance.choice([3_600] * 11 + [15]),
        "revokes": chance.random() < 0.15,
        "revoke_after_seconds": chance.uniform(8, 30),
    }
    if generous:
        grant |= {"sellers": list(SELLERS), "valid_seconds": 3_600, "revokes": False}
        cap = {"amount": GENEROUS_CAPS[settings["currency"]], "currency": settings["currency"]}
        grant["terms"] = {**grant["terms"], **GENEROUS, "cap": cap, "approval_threshold": cap["amount"]}
    yield Actor(f"{mandate}.principal", "principal", begins, lasts, settings=grant)
    for number in range(1, 1 if in_tokens else chance.choice([1, 2, 3]) + 1):
        yield Actor(f"{mandate}.buyer-{number}", "buyer", begins + 0.5, lasts - 1, settings=settings)
    for kind, probability in OTHERS:
        takes_part, late = chance.random() < probability, chance.uniform(0.5, lasts / 3)
        buys = kind in ("meddler", "errands")
        if takes_part and not (in_tokens and buys):
            yield Actor(f"{mandate}.{kind}", kind, begins + late, lasts - late - 1, settings=settings)


def terms(chance: random.Random) -> dict[str, Any]:
    """Returns what a principal grants; where money goes, and until when, is known only in the run."""
    cap = chance.choice([5_000, 20_000, 100_000, 100_000])
    (methods,) = chance.choices([names for names, _ in METHODS], [weight for _, weight in METHODS])
    constraints: list[dict[str, Any]] = []
    if chance.random() < 0.3:
        constraints.append({"type": "max_payments", "count": chance.choice([2, 5])})
    if chance.random() < 0.2:
        constraints.append({"type": "allowed_items", "item_ids": ["ebook_tides", "mug_blue"]})
    if chance.random() < 0.2:
        constraints.append({"type": "ship_to_countries", "countries": ["US"]})
    if chance.random() < 0.1:
        constraints.append({"type": "allowed_protocols", "protocols": ["acp"]})
    owner = chance.choice(["alice", "bob"])
    return {
        "owner": owner,
        "cap": {"amount": cap, "currency": chance.choice(["usd"] * 24 + ["eur"])},
        "approval_threshold": chance.choice([0, 0, 2_000, cap]),
        "per_payment_cap": chance.choice([None, None, None, 4_000]),
        "payment_methods": methods,
        "approvers": chance.choice([[], [], ["alice"], ["bob"], ["alice", "bob"]]),
        "constraints": constraints,
    }


def faults(seed: int, seconds: float, thinned: float) -> Iterator[Fault]:
    """Yields what goes wrong, in order of time."""
    dear_every, cheap_every = DEAR_FAULT_EVERY_SECONDS * thinned, CHEAP_FAULT_EVERY_SECONDS * thinned
    dear = faults_of(stream(seed, "dear faults"), "dear", DEAR_FAULTS, dear_every, seconds)
    cheap = faults_of(stream(seed, "cheap faults"), "cheap", CHEAP_FAULTS, cheap_every, seconds)
    yield from sorted([*dear, *cheap], key=lambda fault: fault.at_seconds)


def faults_of(
    chance: random.Random, name: str, kinds: Sequence[Kind], every_seconds: float, seconds: float
) -> Iterator[Fault]:
    """Yields faults of these kinds, in order of time."""
    at, number = FIRST_FAULT_SECONDS, 0
    while at < seconds:
        ((kind, _, targets, shortest, longest),) = chance.choices(kinds, [fault[1] for fault in kinds])
        number += 1
        target = chance.choice(targets)
        settings = {
            "bytes": chance.randrange(1, 400),
            "seconds": round(chance.uniform(0.01, 0.4), 3),
            "trouble": chance.choice(TROUBLES),
            "match": chance.choice(MOMENTS[target.rstrip("-12")]) if kind == "trouble" else None,
            "behaviour": chance.choice(BEHAVIOURS),
            "on_hand": chance.choice([0, 1, 50]),
        }
        lasts = round(chance.uniform(shortest, longest), 2)
        yield Fault(f"{name}-{number}", kind, target, round(at, 2), lasts, settings)
        at += chance.expovariate(1 / every_seconds)
