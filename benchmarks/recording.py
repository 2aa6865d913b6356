"""Recorded runs: JSON in ``benchmarks/results``, and what has become worse since the last one."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.peers import durable_streams
from benchmarks.scenario import OURS, Column, Row, Scenario, Size
from tests.support import ROOT
from tests.world.temporal import TEMPORAL

RESULTS = Path(__file__).parent / "results"
WORSE_BY = 0.2
"""A fifth; smaller differences occur between runs of the same code."""
PACKAGES = ("temporalio", "uvicorn", "starlette", "uvloop", "redis", "stripe", "pympp", "x402")

Recorded = dict[str, Any]
"""``{scenario, size, date, seconds, machine, versions, rows, previous: {date, rows} | null}``."""


@dataclass(frozen=True)
class Change:
    """A value that is worse than it was by a fifth or more."""

    row: Row
    column: Column
    before: float
    now: float


def path_of(name: str) -> Path:
    """Returns the file that holds a scenario's last run."""
    return RESULTS / f"{name}.json"


def load(name: str) -> Recorded | None:
    """Returns the recorded run, or ``None`` if there is none in the present form."""
    path = path_of(name)
    return _parse(path.read_text()) if path.exists() else None


def committed(name: str) -> Recorded | None:
    """Returns the run in git's latest commit, so that repeated runs are compared with the same one."""
    where = f"HEAD:{path_of(name).relative_to(ROOT)}"
    shown = subprocess.run(["git", "show", where], capture_output=True, text=True, cwd=ROOT)
    return load(name) if shown.returncode else _parse(shown.stdout)


def _parse(text: str) -> Recorded | None:
    recorded: Recorded = json.loads(text)
    return recorded if "size" in recorded else None


def made(scenario: Scenario, size: Size, seconds: float, rows: list[Row], last: Recorded | None) -> Recorded:
    """Returns a run in the recorded form; ``last`` is what it is compared with, if they are comparable."""
    machine = describe_machine()
    comparable = last is not None and (last["size"], last["machine"]) == (size, machine)
    previous = {"date": last["date"], "rows": last["rows"]} if last and comparable else None
    return {
        "scenario": scenario.name,
        "size": str(size),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(seconds),
        "machine": machine,
        "versions": describe_versions(),
        "rows": rows,
        "previous": previous,
    }


def write(recorded: Recorded) -> Path:
    """Replaces the recorded run of the scenario."""
    RESULTS.mkdir(exist_ok=True)
    path = path_of(recorded["scenario"])
    path.write_text(json.dumps(recorded, indent=1) + "\n")
    return path


def identity(scenario: Scenario, row: Row) -> tuple[Any, ...]:
    """Returns the values that identify a row across runs."""
    return (row["system"], *(row.get(key.key) for key in scenario.keys))


def worse(scenario: Scenario, rows: Sequence[Row], before: Sequence[Row]) -> Iterator[Change]:
    """Returns our values that have become worse by a fifth or more since the last run.

    A difference below the column's grain doesn't count. Peers are not compared with their last run.
    """
    known = {identity(scenario, row): row for row in before}
    for row in rows:
        old = known.get(identity(scenario, row))
        if old is None or row["system"] != OURS:
            continue
        for column in scenario.columns:
            was, now = old.get(column.key), row.get(column.key)
            if isinstance(was, int | float) and isinstance(now, int | float) and is_worse(column, was, now):
                yield Change(row, column, was, now)


def is_worse(column: Column, was: float, now: float) -> bool:
    """Returns whether a value has become worse by a fifth or more."""
    if column.better is None or abs(now - was) < column.grain:
        return False
    if column.better == "lower":
        return now > 0 and now >= was * (1 + WORSE_BY)
    return now <= was * (1 - WORSE_BY) and now < was


def describe_machine() -> dict[str, Any]:
    """Returns a description of the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
    }


def describe_versions() -> dict[str, str]:
    """Returns the versions of what was measured."""
    versions = {"python": platform.python_version(), "commit": _said("git", "rev-parse", "--short", "HEAD")}
    versions["temporal"] = _said(TEMPORAL, "--version").removeprefix("temporal version ")
    redis = _said("redis-server", "--version").removeprefix("Redis server v=")
    versions["redis-server"] = redis.partition(" ")[0]
    versions["node"] = _said("node", "--version")
    versions[durable_streams.PACKAGE] = durable_streams.VERSION
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in versions.items() if value}


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""
