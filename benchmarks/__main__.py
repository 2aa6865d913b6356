"""The benchmarks: ``make bench``, or ``python -m benchmarks --help``."""

import argparse
import asyncio
import importlib
import pkgutil
import resource
import signal
import sys
import time

from rich.console import Console

import benchmarks
from benchmarks import recording, report, scaling, sessions
from benchmarks.recording import Recorded
from benchmarks.scenario import Scenario, Size

ORDER = (
    "latency", "fan_out", "resume", "reconnects", "stops", "continuation", "idle_sessions", "recovery",
    "steps", "cost", "purchases", "paid_requests",
)  # fmt: skip
"""The order in which scenarios run and are reported; any others follow."""


def scenarios() -> list[Scenario]:
    """Returns the scenarios of all modules of this package, in their order."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    found: list[Scenario] = [module.SCENARIO for module in modules if hasattr(module, "SCENARIO")]
    return sorted(found, key=lambda s: ORDER.index(s.name) if s.name in ORDER else len(ORDER))


def recorded_runs() -> list[tuple[Scenario, Recorded]]:
    """Returns every scenario that has a recorded run."""
    runs = ((scenario, recording.load(scenario.name)) for scenario in scenarios())
    return [(scenario, recorded) for scenario, recorded in runs if recorded]


def run(chosen: list[Scenario], size: Size, console: Console) -> list[str]:
    """Runs, shows and records scenarios; returns the names of those that failed."""
    failed = []
    for scenario in chosen:
        console.print(f"\n[bold]{scenario.title}[/bold] ({scenario.name}, {size})")
        began = time.monotonic()
        try:
            rows = asyncio.run(scenario.run(size, lambda line: console.print(line, markup=False)))
        except Exception:
            # The other scenarios still run.
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
    """Writes docs/benchmarks.md, docs/scaling.md and sessions.json from the recorded runs."""
    runs = recorded_runs()
    by_name = {scenario.name: recorded for scenario, recorded in runs}
    report.write(runs)
    scaling.write(by_name)
    sessions.write(by_name)


def main() -> int:
    """Runs what the command line asks for and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = scenarios()
    names = [scenario.name for scenario in known]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--size", type=Size, choices=list(Size), default=Size.DEFAULT)
    parser.add_argument("--quick", dest="size", action="store_const", const=Size.QUICK, help="--size quick")
    parser.add_argument("--render", action="store_true", help="only make the pages from what is recorded")
    arguments = parser.parse_args()
    if arguments.render:
        render()
        return 0
    # SIGTERM ends it as an exception does, so that the processes it has started are stopped too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    # A thousand subscribers need as many sockets in the server; child processes inherit the limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    console = Console(width=None if sys.stdout.isatty() else 180)
    began = time.monotonic()
    chosen = [scenario for scenario in known if not arguments.only or scenario.name in arguments.only]
    failed = run(chosen, arguments.size, console)
    if arguments.size != Size.QUICK:
        render()
    console.print(f"\n{time.monotonic() - began:.0f} s in all." + (f" Failed: {failed}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
