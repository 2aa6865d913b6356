"""What a run says at its end: the seed, what was done, and each promise with how often it was checked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.support import ROOT
from tests.torture.evidence import Evidence
from tests.torture.oracle import PROMISES, Judgement
from tests.torture.results import Result, with_result
from waystation import __version__

RESULTS = ROOT / "docs" / "torture.md"
NOT_ABOUT: Final[Mapping[str, frozenset[str]]] = {
    "sessions": frozenset({"mandates", "money_requests", "paid_requests", "purchases"}),
    "money": frozenset({"agents", "control", "log", "questions", "requests", "screens", "turns"}),
}
"""By profile: what promises are about that it has no actors for. Not to have checked those is no news."""


def operations(evidence: Evidence) -> Counter[str]:
    """Returns how often each operation was done."""
    done = Counter(line["op"] for line in evidence.lines if "began" in line)
    done["attempt of a turn"] = len(list(evidence.noted("turn")))
    done["event or text read"] = sum(len(line["blocks"]) for line in evidence.noted("read"))
    return done


def faults(evidence: Evidence) -> Counter[str]:
    """Returns how often each kind of fault struck something that was going on."""
    return Counter(line["kind"] for line in evidence.counted_faults)


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
    """Adds the run to the results in docs/torture.md."""
    result = Result(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        version=__version__,
        profile=evidence.plan.profile,
        seed=evidence.plan.seed,
        minutes=evidence.plan.seconds / 60,
        operations=sum(operations(evidence).values()),
        faults=sum(faults(evidence).values()),
        violations=sum(judged.broken for judged in judgement.values()),
    )
    RESULTS.write_text(with_result(RESULTS.read_text(), result))
