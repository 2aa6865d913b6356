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
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")), help="by default the day's")
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
    folder = given.judge or given.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    if given.judge:
        evidence = Evidence.read(folder)
    else:
        plan = Plan.read(given.plan) if given.plan else plan_of(given.profile, given.seed, given.minutes * 60)
        folder.mkdir(parents=True, exist_ok=True)
        evidence = until_told(run(plan, folder))
    judgement = judge(evidence)
    for line in lines(evidence, judgement, folder):
        say(line)
    if given.record:
        keep_result(evidence, judgement)
    if (violated := broken(judgement)) and given.shrink:
        small = until_told(shrink_run(evidence.plan, violated, folder, max_runs=given.shrink))
        (folder / "smallest.json").write_text(small.to_json())
        parts = f"{len(small.actors)} actors and {len(small.faults)} faults"
        say(f"The smallest plan that fails has {parts}: {folder / 'smallest.json'}")
    sys.exit(1 if violated else 0)


if __name__ == "__main__":
    main()
