"""Who takes part in a run, and what goes wrong in it: a profile makes a plan from a seed and some seconds."""

from typing import Final

from tests.torture.plan import Plan, Profile
from tests.torture.profiles import money, sessions

PROFILES: Final[dict[str, Profile]] = {"sessions": sessions.plan, "money": money.plan}


def plan_of(profile: str, seed: int, seconds: float) -> Plan:
    """Returns the plan of this seed; the same for the same arguments."""
    return PROFILES[profile](seed, seconds)
