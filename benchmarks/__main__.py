"""The benchmarks: ``make bench``, or ``python -m benchmarks --help``."""

import argparse
import asyncio
import importlib
import resource
import sys
import time

from rich.console import Console

from benchmarks import recording, report, scaling
from benchmarks.recording import Recorded
from benchmarks.scenario import Scenario, Size

NAMES = (
    "latency", "fan_out", "resume", "reconnects", "stops", "continuation", "idle_sessions", "recovery",
    "cost", "purchases", "paid_requests",
)  # fmt: skip
"""Modules of this package, in the order in which they run and are told."""


def scenarios() -> list[Scenario]:
    """All of them."""
    return [importlib.import_module(f"benchmarks.{name}").SCENARIO for name in NAMES]


def recorded_runs() -> list[tuple[Scenario, Recorded]]:
    """Every scenario that has a recorded run."""
    runs = ((scenario, recording.load(scenario.name)) for scenario in scenarios())
    return [(scenario, recorded) for scenario, recorded in runs if recorded]


def run(chosen: list[Scenario], size: Size, console: Console) -> list[str]:
    """Runs, shows and records scenarios; answers the names of those that failed."""
    failed = []
    for scenario in chosen:
        console.print(f"\n[bold]{scenario.title}[/bold] ({scenario.name}, {size})")
        began = time.monotonic()
        try:
            rows = asyncio.run(scenario.run(size, lambda line: console.print(line, markup=False)))
        except Exception:
            # The others are still worth their time.
            console.print_exception()
            failed.append(scenario.name)
            continue
        last = recording.committed(scenario.name)
        recorded = recording.made(scenario, size, time.monotonic() - began, rows, last)
        report.show(scenario, recorded, console)
        if size != Size.QUICK:
            recording.write(recorded)
    return failed


def render() -> None:
    """Makes docs/benchmarks.md and docs/scaling.md from what is recorded."""
    runs = recorded_runs()
    report.write(runs)
    scaling.write({scenario.name: recorded for scenario, recorded in runs})


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--size", type=Size, choices=list(Size), default=Size.DEFAULT)
    parser.add_argument("--quick", dest="size", action="store_const", const=Size.QUICK, help="--size quick")
    parser.add_argument("--render", action="store_true", help="only make the pages from what is recorded")
    arguments = parser.parse_args()
    if arguments.render:
        render()
        return 0
    # A thousand subscribers and as many sockets of the server, in processes that inherit this.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    console = Console(width=None if sys.stdout.isatty() else 160)
    began = time.monotonic()
    chosen = [scenario for scenario in scenarios() if not arguments.only or scenario.name in arguments.only]
    failed = run(chosen, arguments.size, console)
    if arguments.size != Size.QUICK:
        render()
    console.print(f"\n{time.monotonic() - began:.0f} s in all." + (f" Failed: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
