"""Results of runs add up, and only the latest are kept one by one."""

from dataclasses import replace

from tests.torture.results import LATEST, LATEST_RUNS, SUMS, Result, with_result

PAGE = f"# Torture\n\n{SUMS}\n|---|\n\nThe latest:\n\n{LATEST}\n|---|\n\nMore.\n"
RUN = Result("2026-01-01", "0.1.0", "sessions", 7, 0.5, 1_500, 200, 0)


def test_runs_of_one_version_and_profile_add_up() -> None:
    page = with_result(PAGE, RUN)
    page = with_result(page, replace(RUN, profile="money", minutes=2.0))
    page = with_result(page, replace(RUN, seed=8, violations=1))
    assert f"{SUMS}\n|---|\n| 0.1.0 | sessions | 2 | 1 | 3,000 | 400 | 1 | 1 | 200 |\n" in page
    assert "| 0.1.0 | money | 1 | 2 | 1,500 | 200 | 0 | 1 | 200 |\n\nThe latest" in page
    assert f"{LATEST}\n|---|\n| 2026-01-01 | 0.1.0 | sessions | 8 | 0.5 | 1,500 | 200 | 1 |\n" in page
    assert page.endswith("| sessions | 7 | 0.5 | 1,500 | 200 | 0 |\n\nMore.\n")


def test_only_the_latest_runs_are_kept_one_by_one() -> None:
    page = PAGE
    for seed in range(20):
        page = with_result(page, replace(RUN, seed=seed))
    kept = [line for line in page.splitlines() if line.startswith("| 2026")]
    assert [line.split(" | ")[3] for line in kept] == [str(seed) for seed in range(19, 19 - LATEST_RUNS, -1)]
    assert "| sessions | 20 | 10 | 30,000 | 4,000 | 0 | 20 | 4,000 |" in page
