"""The results of runs in docs/torture.md: sums for each version and profile, and the latest runs. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LATEST_RUNS: Final = 8
SUMS: Final = (
    "| version | profile | runs | minutes | operations | faults | violations "
    "| runs without a violation | their faults |"
)
LATEST: Final = "| date | version | profile | seed | minutes | operations | faults | violations |"


@dataclass(frozen=True)
class Result:
    """One run."""

    date: str
    version: str
    profile: str
    seed: int
    minutes: float
    operations: int
    faults: int
    violations: int

    @property
    def counts(self) -> list[float]:
        return [self.minutes, self.operations, self.faults, self.violations]

    def in_latest(self, rows: list[str]) -> list[str]:
        """Returns the rows of the latest runs, with this one first."""
        row = [self.date, self.version, self.profile, str(self.seed), *map(_number, self.counts)]
        return [_row(row), *rows][:LATEST_RUNS]

    def in_sums(self, rows: list[str]) -> list[str]:
        """Returns the rows of sums, with this run in the one of its version and profile."""
        sums = {(version, profile): counts for version, profile, *counts in map(_cells, rows)}
        before = [
            float(count.replace(",", "")) for count in sums.get((self.version, self.profile), ["0"] * 7)
        ]
        without = [0, 0] if self.violations else [1, self.faults]
        after = [one + more for one, more in zip(before, [1, *self.counts, *without], strict=True)]
        sums[self.version, self.profile] = [_number(count) for count in after]
        return [_row([*name, *counts]) for name, counts in sums.items()]


def with_result(page: str, result: Result) -> str:
    """Returns the page with one more run in both tables."""
    return _with_rows(_with_rows(page, SUMS, result.in_sums), LATEST, result.in_latest)


def _with_rows(page: str, header: str, changed: Callable[[list[str]], list[str]]) -> str:
    before, found, after = page.partition(header + "\n")
    assert found, f"docs/torture.md has the table {header}"
    line, *lines = after.splitlines(keepends=True)
    count = next((number for number, row in enumerate(lines) if not row.startswith("|")), len(lines))
    rows = changed([row.strip() for row in lines[:count]])
    return before + found + line + "".join(f"{row}\n" for row in rows) + "".join(lines[count:])


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(count: float) -> str:
    return f"{count:,.1f}".removesuffix(".0")
