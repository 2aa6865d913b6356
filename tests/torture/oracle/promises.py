"""What a promise is, and how all of them are judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.torture.evidence import Evidence

MAX_KEPT_VIOLATIONS: Final = 20


@dataclass
class Judged:
    """How often a promise was checked, and where it was broken."""

    checked: int = 0
    at_stake: int | None = None
    """How often something had been done that could have broken it, where that can be told."""
    broken: int = 0
    violations: list[str] = field(default_factory=list)

    def holds(self, condition: bool, what: str, *, staked: bool | None = None) -> None:
        """Counts one check; ``what`` says what was found instead.

        ``staked`` says whether a fault, a liar or somebody who wanted more had been at it.
        """
        self.checked += 1
        if staked is not None:
            self.at_stake = (self.at_stake or 0) + staked
        if not condition:
            self.broken += 1
            if len(self.violations) < MAX_KEPT_VIOLATIONS:
                self.violations.append(what)


Check = Callable[[Evidence, Judged], None]


@dataclass(frozen=True)
class Promise:
    """A sentence of the documentation, and the function that checks it."""

    name: str
    sentence: str
    where: str
    check: Check

    @property
    def about(self) -> str:
        """The file that has it, which says what it is about."""
        return self.check.__module__.rpartition(".")[2]


PROMISES: Final[dict[str, Promise]] = {}
Judgement = dict[str, Judged]


def promise(sentence: str, where: str) -> Callable[[Check], Check]:
    """Makes a function a promise; its name is the promise's."""

    def remember(check: Check) -> Check:
        name = check.__name__
        assert name not in PROMISES, f"two promises are called {name}"
        PROMISES[name] = Promise(name, sentence, where, check)
        return check

    return remember


def judge(evidence: Evidence, *names: str) -> Judgement:
    """Returns what became of each promise, or of these."""
    judgement = {}
    for name in names or PROMISES:
        judged = judgement[name] = Judged()
        PROMISES[name].check(evidence, judged)
    return judgement
