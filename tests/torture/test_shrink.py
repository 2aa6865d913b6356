"""Shrinking keeps what makes a run fail, and little else."""

from tests.torture.plan import Plan
from tests.torture.profiles import plan_of
from tests.torture.shrink import droppable, shrink, split, unlikely


async def test_what_matters_is_left() -> None:
    plan = plan_of("sessions", 5, 120)
    needed = {plan.faults[7].name, next(a.name for a in plan.actors if a.kind == "sender")}
    tried = []

    async def fails(smaller: Plan) -> bool:
        tried.append(smaller)
        return needed <= {one.name for one in (*smaller.actors, *smaller.faults)}

    small = await shrink(plan, fails, max_runs=60)
    assert needed <= {one.name for one in (*small.actors, *small.faults)}
    assert len(small.faults) <= 4
    assert len(droppable(small)) <= 12
    assert len(tried) <= 60


async def test_what_a_violation_does_not_name_goes_first() -> None:
    plan, tried = plan_of("sessions", 5, 120), 0

    async def fails(smaller: Plan) -> bool:
        nonlocal tried
        tried += 1
        return f"{smaller.seed}-2/host" in " ".join(actor.name for actor in smaller.actors)

    guesses = unlikely(plan, ["s5-2 t1: ended twice"])
    small = await shrink(plan, fails, max_runs=1, guesses=guesses)
    assert {actor.session for actor in small.actors} == {"s5-2"}
    assert not small.faults
    assert (small.seconds, tried) == (
        max(actor.begins_seconds + actor.lasts_seconds for actor in small.actors),
        1,
    )


async def test_without_a_name_only_faults_are_guessed() -> None:
    plan = plan_of("sessions", 5, 120)
    assert unlikely(plan, ["api-1 took 9 s"]) == [[fault.name for fault in plan.faults]]


async def test_a_failure_that_does_not_come_again_leaves_the_plan_as_it_was() -> None:
    plan, runs = plan_of("sessions", 5, 60), 0

    async def never(_: Plan) -> bool:
        nonlocal runs
        runs += 1
        return False

    assert await shrink(plan, never, max_runs=100) == plan
    assert runs <= 2 + 4 + 8 + 2


def test_a_host_stays_while_anybody_is_with_them() -> None:
    plan = plan_of("sessions", 5, 60)
    assert not [name for name in droppable(plan) if name.endswith("/host")]
    lonely = plan.without([actor.name for actor in plan.actors if actor.kind != "host"])
    assert len([name for name in droppable(lonely) if name.endswith("/host")]) == len(lonely.actors)


def test_parts_hold_everything() -> None:
    assert split("abcde", 2) == ["abc", "de"]
    assert split("a", 8) == ["a"]
    assert split("", 2) == []
