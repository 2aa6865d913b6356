"""``python -m tests.torture --seed 1 --minutes 5 --profile sessions``; see ``make torture``."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.evidence import Evidence
from tests.torture.oracle import judge
from tests.torture.plan import Plan
from tests.torture.profiles import PROFILES, plan_of
from tests.torture.report import broken, keep_result, lines
from tests.torture.run import run
from tests.world.process import Process
from waystation.terminal import say


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")), help="by default the day's")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="sessions")
    parser.add_argument("--plan", type=Path, help="a plan to replay, instead of a seed's")
    parser.add_argument("--folder", type=Path, help="where the run leaves everything; by default a new one")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="only judge what a run has left there")
    parser.add_argument("--record", action="store_true", help="append the result to docs/torture.md")
    return parser.parse_args()


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
        evidence = asyncio.run(run(plan, folder))
    judgement = judge(evidence)
    for line in lines(evidence, judgement, folder):
        say(line)
    if given.record:
        keep_result(evidence, judgement)
    sys.exit(1 if broken(judgement) else 0)


if __name__ == "__main__":
    main()
