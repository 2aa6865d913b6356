"""What a run says at its end: the seed, what was done, and each promise with how often it was checked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.support import ROOT
from tests.torture.evidence import Evidence
from tests.torture.oracle import PROMISES, Judgement

RESULTS = ROOT / "docs" / "torture.md"
NOT_ABOUT: Final[Mapping[str, frozenset[str]]] = {
    "sessions": frozenset({"mandates", "money_requests", "paid_requests", "purchases"}),
    "money": frozenset({"agents", "control", "log", "requests", "screens", "turns"}),
}
"""By profile: what promises are about that it has no actors for. Not to have checked those is no news."""


def operations(evidence: Evidence) -> Counter[str]:
    """Returns how often each operation was done."""
    done = Counter(line["op"] for line in evidence.lines if "began" in line)
    done["attempt of a turn"] = len(list(evidence.noted("turn")))
    done["event or text read"] = sum(len(line["blocks"]) for line in evidence.noted("read"))
    return done


def faults(evidence: Evidence) -> Counter[str]:
    """Returns how often each kind of fault struck."""
    return Counter(line["kind"] for line in evidence.noted("fault"))


def lines(evidence: Evidence, judgement: Judgement, folder: Path) -> Iterator[str]:
    """Yields the report."""
    plan = evidence.plan
    what = f"profile {plan.profile}, {plan.seconds:.0f} s, {len(plan.actors)} actors"
    yield f"Seed {plan.seed}, {what}; kept in {folder}"
    yield "Done: " + ", ".join(f"{what} {count}" for what, count in sorted(operations(evidence).items()))
    yield "Faults: " + (
        ", ".join(f"{what} {count}" for what, count in sorted(faults(evidence).items())) or "none"
    )
    others = NOT_ABOUT.get(plan.profile, frozenset())
    for name, judged in judgement.items():
        if not judged.checked and PROMISES[name].about in others:
            continue
        state = "BROKEN" if judged.broken else "kept" if judged.checked else "never checked"
        staked = "" if judged.at_stake is None else f"{judged.at_stake} at stake"
        counts = f"{judged.checked:>7} checked {staked:>13} {judged.broken:>4} broken"
        yield f"{state:>13} {counts}  {PROMISES[name].sentence}"
    for name, judged in judgement.items():
        for violation in judged.violations:
            yield f"  {name} ({PROMISES[name].where}): {violation}"


def broken(judgement: Judgement) -> list[str]:
    """Returns the promises that were broken."""
    return [name for name, judged in judgement.items() if judged.broken]


def keep_result(evidence: Evidence, judgement: Judgement) -> None:
    """Appends one line to the results of long runs."""
    plan = evidence.plan
    row = (
        f"| {datetime.now(UTC):%Y-%m-%d} | {plan.profile} | {plan.seed} | {plan.seconds / 60:g} "
        f"| {sum(operations(evidence).values()):,} | {sum(faults(evidence).values()):,} "
        f"| {sum(judged.broken for judged in judgement.values())} |\n"
    )
    with RESULTS.open("a") as page:
        page.write(row)
