"""Finds a smaller plan that still fails: delta debugging over faults and actors, within a number of runs."""

import asyncio
import dataclasses
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tests.torture.oracle import Judgement, judge
from tests.torture.plan import Plan
from tests.torture.report import broken
from tests.torture.run import run

logger = logging.getLogger(__name__)
Fails = Callable[[Plan], Awaitable[bool]]
MAX_PARTS: Final = 8
SHORTEST_RUN_SECONDS: Final = 10.0


async def shrink(plan: Plan, fails: Fails, *, max_runs: int, guesses: Sequence[Sequence[str]] = ()) -> Plan:
    """Returns the smallest plan found that fails; ``fails`` runs one. What can't be left out stays.

    ``guesses`` are names that are probably not needed: they are left out first.
    """
    runs = 0

    async def still_fails(smaller: Plan) -> bool:
        nonlocal runs
        runs += 1
        return await fails(smaller)

    for guess in guesses:
        smaller = shortened(plan.without(guess))
        if runs < max_runs and await still_fails(smaller):
            plan = smaller
            break
    parts = 2
    while runs < max_runs:
        names = droppable(plan)
        for some in split(names, parts):
            if runs >= max_runs:
                return plan
            smaller = shortened(plan.without(some))
            if await still_fails(smaller):
                plan, parts = smaller, max(parts - 1, 2)
                break
        else:
            if parts >= min(MAX_PARTS, len(names)):
                return plan
            parts = min(parts * 2, MAX_PARTS)
    return plan


def unlikely(plan: Plan, violations: Sequence[str]) -> list[list[str]]:
    """Returns what is probably not needed: faults, and whoever has to do with no session that is named."""
    words = set(re.findall(r"[\w-]+", " ".join(violations)))
    faults = [fault.name for fault in plan.faults]
    others = [actor.name for actor in plan.actors if re.split(r"[./]", actor.name)[0] not in words]
    if len(others) == len(plan.actors):
        return [faults]
    return [[*faults, *others], others, faults]


def droppable(plan: Plan) -> list[str]:
    """Returns what may be left out, in order of time, so that neighbours go together.

    Nobody is in a session without its host: hosts go only with everybody else of theirs.
    """
    alone = {
        actor.session
        for actor in plan.actors
        if [other.session for other in plan.actors].count(actor.session) == 1
    }
    timed = [(fault.at_seconds, fault.name) for fault in plan.faults]
    timed += [
        (actor.begins_seconds, actor.name)
        for actor in plan.actors
        if actor.kind != "host" or actor.session in alone
    ]
    return [name for _, name in sorted(timed)]


def split(names: Sequence[str], parts: int) -> list[Sequence[str]]:
    """Returns the names in as many parts of about the same size, without empty ones."""
    size = max(1, -(-len(names) // parts))
    return [names[at : at + size] for at in range(0, len(names), size)]


def shortened(plan: Plan) -> Plan:
    """Returns the plan without the time after everybody's and everything's end."""
    ends = [actor.begins_seconds + actor.lasts_seconds for actor in plan.actors if actor.session]
    ends += [fault.at_seconds + fault.lasts_seconds for fault in plan.faults]
    return dataclasses.replace(plan, seconds=min(plan.seconds, max([SHORTEST_RUN_SECONDS, *ends])))


async def shrink_run(plan: Plan, judgement: Judgement, folder: Path, *, max_runs: int) -> Plan:
    """Shrinks a plan whose run has broken promises, and keeps each smaller run that breaks one of them."""
    count, promises = 0, broken(judgement)
    violations = [text for judged in judgement.values() for text in judged.violations]

    async def fails(smaller: Plan) -> bool:
        nonlocal count
        count += 1
        tried = folder / f"smaller-{count}"
        tried.mkdir()
        try:
            judgement = judge(await run(smaller, tried))
        except Exception:
            logger.exception("The smaller plan could not be run")
            return False
        again = sorted(set(broken(judgement)) & set(promises))
        logger.warning(
            "%d actors, %d faults: %s", len(smaller.actors), len(smaller.faults), again or "nothing broken"
        )
        await asyncio.sleep(0)
        return bool(again)

    return await shrink(plan, fails, max_runs=max_runs, guesses=unlikely(plan, violations))
