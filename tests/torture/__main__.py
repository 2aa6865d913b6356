"""``python -m tests.torture --seed 1 --minutes 5 --profile sessions``; see ``make torture``."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from tests.torture.evidence import Evidence
from tests.torture.oracle import judge
from tests.torture.plan import Plan
from tests.torture.profiles import PROFILES, plan_of
from tests.torture.report import broken, keep_result, lines
from tests.torture.run import run
from tests.torture.shrink import shrink_run
from tests.world.process import Process
from waystation.terminal import say

Result = TypeVar("Result")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.torture", description=__doc__)
    today = int(time.strftime("%Y%m%d"))
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[today], help="one or several; by default the day's"
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="sessions")
    parser.add_argument("--plan", type=Path, help="a plan to replay, instead of a seed's")
    parser.add_argument("--folder", type=Path, help="where the run leaves everything; by default a new one")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="only judge what a run has left there")
    parser.add_argument(
        "--shrink",
        type=int,
        default=0,
        metavar="RUNS",
        help="on a violation, look so often for a smaller plan",
    )
    parser.add_argument("--record", action="store_true", help="append the result to docs/torture.md")
    return parser.parse_args()


def until_told(work: Coroutine[None, None, Result]) -> Result:
    """Runs it to its end, or until SIGTERM: then all that it has started is ended first."""

    async def run_it() -> Result:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    return asyncio.run(run_it())


def main() -> None:
    given = arguments()
    # Nothing here measures a process's memory closely, so none need import everything again.
    Process.forks = True
    parent = given.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    kept = True
    if given.judge:
        kept = report(Evidence.read(given.judge), given.judge, given)
    elif given.plan:
        plan = Plan.read(given.plan)
        kept = attempt(plan, parent, given)
    else:
        for seed in given.seed:
            plan = plan_of(given.profile, seed, given.minutes * 60)
            kept &= attempt(plan, parent / f"seed-{seed}" if len(given.seed) > 1 else parent, given)
    sys.exit(0 if kept else 1)


def attempt(plan: Plan, folder: Path, given: argparse.Namespace) -> bool:
    """Runs a plan and says what came of it; returns whether every promise was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    return report(until_told(run(plan, folder)), folder, given)


def report(evidence: Evidence, folder: Path, given: argparse.Namespace) -> bool:
    """Says what a run has shown, and looks for a smaller plan if that is asked for."""
    judgement = judge(evidence)
    for line in lines(evidence, judgement, folder):
        say(line)
    if given.record:
        keep_result(evidence, judgement)
    violated = broken(judgement)
    if violated and given.shrink:
        small = until_told(shrink_run(evidence.plan, judgement, folder, max_runs=given.shrink))
        (folder / "smallest.json").write_text(small.to_json())
        parts = f"{len(small.actors)} actors and {len(small.faults)} faults"
        say(f"The smallest plan that fails has {parts}: {folder / 'smallest.json'}")
    return not violated


if __name__ == "__main__":
    main()
