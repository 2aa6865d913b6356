"""A small scenario and runs of it."""

from typing import Any

from benchmarks.scenario import OURS, Aim, Chart, Column, Row, Say, Scenario, Size


async def _nothing(size: Size, say: Say) -> list[Row]:
    return []


SCENARIO = Scenario(
    name="sample",
    title="A sample",
    shows="What it\n        shows.",
    does_not_show=("What it doesn't.",),
    keys=(Column("clients", "clients"),),
    columns=(
        Column("p50_ms", "p50 ms", "lower", grain=1.0, times_ours=True),
        Column("per_second", "per second", "higher"),
        Column("told", "told"),
    ),
    aims=(Aim({"clients": 10}, "p50_ms", 5), Aim({"clients": 10}, "per_second", 100, "at least")),
    charts=(Chart("By clients", x="clients", y="p50_ms"),),
    run=_nothing,
)


def ours(clients: int = 10, **columns: Any) -> Row:
    return {"system": OURS, "clients": clients, **columns}


def peer(clients: int = 10, **columns: Any) -> Row:
    return {"system": "a peer", "clients": clients, **columns}


def run(rows: list[Row], before: list[Row] | None = None) -> dict[str, Any]:
    """A recorded run."""
    return {
        "scenario": SCENARIO.name,
        "size": "default",
        "date": "2026-11-22 12:00 UTC",
        "seconds": 7,
        "machine": {"processor": "a processor", "cores": 2, "memory_gb": 24, "system": "Linux"},
        "versions": {"python": "3.11"},
        "rows": rows,
        "previous": {"date": "2026-11-21 12:00 UTC", "rows": before} if before is not None else None,
    }
