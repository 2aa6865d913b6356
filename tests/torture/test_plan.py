"""One seed gives one plan, and what is dropped from it changes nothing else."""

from tests.torture.actors import KINDS as ACTOR_KINDS
from tests.torture.faults import KINDS as FAULT_KINDS
from tests.torture.plan import Plan, stream
from tests.torture.profiles import PROFILES, plan_of


def test_the_same_seed_gives_the_same_plan_and_another_another() -> None:
    for profile in PROFILES:
        assert plan_of(profile, 7, 120) == plan_of(profile, 7, 120)
        assert plan_of(profile, 7, 120) != plan_of(profile, 8, 120)


def test_a_plan_survives_being_written() -> None:
    plan = plan_of("sessions", 7, 120)
    assert Plan.from_json(plan.to_json()) == plan


def test_names_are_unique_and_kinds_are_known() -> None:
    for profile in PROFILES:
        plan = plan_of(profile, 3, 600)
        names = [one.name for one in (*plan.actors, *plan.faults)]
        assert len(names) == len(set(names))
        assert {actor.kind for actor in plan.actors} <= set(ACTOR_KINDS)
        assert {fault.kind for fault in plan.faults} <= set(FAULT_KINDS)


def test_an_actor_keeps_its_random_numbers_when_another_is_dropped() -> None:
    plan = plan_of("sessions", 7, 120)
    first, last = plan.actors[0], plan.actors[-1]
    left = plan.without([first.name, plan.faults[0].name])
    assert left.actors == plan.actors[1:]
    assert left.faults == plan.faults[1:]
    assert left.actors[-1].stream(7).random() == last.stream(7).random() == stream(7, last.name).random()


def test_in_a_long_run_every_kind_takes_part() -> None:
    plans = [plan_of(profile, 1, 3_600) for profile in PROFILES]
    assert {actor.kind for plan in plans for actor in plan.actors} == set(ACTOR_KINDS)
    assert {fault.kind for plan in plans for fault in plan.faults} == set(FAULT_KINDS)
