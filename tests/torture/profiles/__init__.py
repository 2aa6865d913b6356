"""Who takes part in a run, and what goes wrong in it: a profile makes a plan from a seed and some seconds."""

from dataclasses import replace
from typing import Final

from tests.torture.plan import Plan, Profile
from tests.torture.profiles import money, sessions

THINNED: Final = 4.0
"""So that two cores keep up with both side by side: where they don't, what is late says nothing."""


def everything(seed: int, seconds: float) -> Plan:
    """Returns sessions and money side by side, thinned out, with the faults of both."""
    talk = sessions.plan(seed, seconds, thinned=THINNED)
    spend = money.plan(seed, seconds, thinned=THINNED)
    known = {actor.name for actor in talk.actors}
    return replace(
        talk,
        profile="all",
        # With small caches each of the many questions about money would read a history anew.
        settings={**talk.settings, "worker_cached_workflows": 1_000},
        actors=(*talk.actors, *(actor for actor in spend.actors if actor.name not in known)),
        faults=(*talk.faults, *(replace(fault, name=f"money-{fault.name}") for fault in spend.faults)),
    )


PROFILES: Final[dict[str, Profile]] = {"sessions": sessions.plan, "money": money.plan, "all": everything}


def plan_of(profile: str, seed: int, seconds: float) -> Plan:
    """Returns the plan of this seed; the same for the same arguments."""
    return PROFILES[profile](seed, seconds)
