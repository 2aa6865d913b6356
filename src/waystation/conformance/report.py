"""What a conformance run has found, and how it is told."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from pydantic import JsonValue

from waystation.conformance.requirements import Requirement
from waystation.errors import StartError

Status = Literal["passed", "failed", "not tested"]

MAX_SEEN_CHARACTERS: Final = 300
EXIT_PASSED: Final = 0
EXIT_FAILED: Final = 1
EXIT_NOT_TESTED: Final = 2


class Unmet(Exception):
    """Ends a scenario that can't go on: what it waited for didn't happen."""


class Report:
    """The findings on some requirements: one that fails anywhere has failed.

    Raises ``StartError`` where ``only`` names what isn't among them.
    """

    def __init__(self, requirements: Mapping[str, Requirement], only: Iterable[str] = ()) -> None:
        wanted = set(only) or set(requirements)
        if unknown := sorted(wanted - requirements.keys()):
            raise StartError(
                f"there is no requirement {', '.join(unknown)} to test here; see docs/ingest.md."
            )
        self._requirements = {number: one for number, one in requirements.items() if number in wanted}
        self._seen: dict[str, str] = {}
        self._failed: set[str] = set()

    @property
    def numbers(self) -> frozenset[str]:
        """The requirements that are to be tested."""
        return frozenset(self._requirements)

    def check(self, number: str, holds: bool, seen: str) -> bool:
        """Notes what was seen of a requirement, and returns whether it holds."""
        assert "A-00" < number < "T-99", number
        seen = seen[:MAX_SEEN_CHARACTERS]
        if not holds and number not in self._failed:
            self._failed.add(number)
            self._seen[number] = seen
        self._seen.setdefault(number, seen)
        return holds

    def demand(self, number: str, holds: bool, seen: str) -> None:
        """Notes what was seen, and ends the scenario unless the requirement holds.

        Raises:
            Unmet: It doesn't.
        """
        if not self.check(number, holds, seen):
            raise Unmet(f"{number}: {seen}")

    def status(self, number: str) -> Status:
        """Returns what became of a requirement."""
        if number in self._failed:
            return "failed"
        return "passed" if number in self._seen else "not tested"

    @property
    def failed(self) -> frozenset[str]:
        """The requirements that were seen to be broken."""
        return self.numbers & self._failed

    @property
    def untested(self) -> frozenset[str]:
        """The requirements of which nothing was seen."""
        return self.numbers - self._seen.keys()

    @property
    def exit_code(self) -> int:
        """0: all that is absolute holds; 1: some of it is broken; 2: some of it could not be tested."""
        absolute = {number for number, one in self._requirements.items() if one.level.is_absolute}
        if absolute & self._failed:
            return EXIT_FAILED
        return EXIT_NOT_TESTED if absolute & self.untested else EXIT_PASSED

    def rows(self) -> Iterator[tuple[Requirement, Status, str]]:
        """Yields each requirement, what became of it, and what was seen."""
        for number, requirement in self._requirements.items():
            yield requirement, self.status(number), self._seen.get(number, "")

    def lines(self) -> Iterator[str]:
        """Yields the report as a table for people, and a last line that counts."""
        count: dict[Status, int] = {"passed": 0, "failed": 0, "not tested": 0}
        for requirement, status, seen in self.rows():
            count[status] += 1
            shown = "warning" if status == "failed" and not requirement.level.is_absolute else status
            yield f"{requirement.id}  {shown:<10}  {requirement.level} {requirement.text}"
            if seen:
                yield f"                  {seen}"
        yield ", ".join(f"{number} {status}" for status, number in count.items())

    def as_json(self) -> dict[str, JsonValue]:
        """Returns the report for programs."""
        return {
            "exit_code": self.exit_code,
            "requirements": [
                {"id": one.id, "level": one.level.value, "text": one.text, "status": status, "seen": seen}
                for one, status, seen in self.rows()
            ],
        }
