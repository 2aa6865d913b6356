"""The arithmetic of docs/scaling.md, by hand once."""

import pytest

from benchmarks.idle_sessions import kilobytes_per_session
from benchmarks.scaling import Assumptions, Measured, actions_of, amount, plan

TURN = {
    "tokens": 1,
    "actions": 20,
    "history_bytes": 10_000,
    "redis_commands": 10,
    "redis_bytes": 5_000,
    "client_bytes": 2_000,
    "api_cpu_ms": 50,
    "worker_cpu_ms": 40,
    "agent_cpu_ms": 30,
}
LONG_TURN = {
    "tokens": 1_001,
    "actions": 120,
    "history_bytes": 110_000,
    "redis_commands": 1_010,
    "redis_bytes": 1_005_000,
    "client_bytes": 202_000,
    "api_cpu_ms": 550,
    "worker_cpu_ms": 240,
    "agent_cpu_ms": 230,
}
FOUND = Measured(TURN, LONG_TURN, {"worker": 100.0, "api, followed": 50.0}, purchase={"actions": 60})
GIVEN = Assumptions(
    sessions=6_000,
    seconds_between_turns=600,
    tokens_per_turn=500,
    tokens_per_second=50,
    purchases_per_session_hour=0.6,
    retention_days=1,
    busy_share=0.5,
    redis_commands_per_second_per_core=1_000,
)


def test_the_arithmetic_is_right() -> None:
    results = plan(GIVEN, FOUND).results
    expected = {
        "turns": 10,
        "streaming at once": 100,
        "tokens": 5_000,
        "actions of a turn": 20 + 100 * 0.5,
        "actions, talking": 700,
        "actions, purchases": 60,
        "actions, all": 760,
        "actions a month": 760 * 3_600 * 730 / 1e9,
        "history of a turn": 60_000,
        "history written": 0.6,
        "history kept": 10 * 60_000 * 86_400 / 1e12,
        "Redis commands": 10 * 510,
        "Redis traffic": 10 * 505_000 / 1e6,
        "Redis cores": 11,
        "API cores": 6,
        "worker cores": 3,
        "agent cores": 3,
        "API memory": 6_000 * 50e3 / 0.5 / 1e9,
        "workers, by their cache": 1,
        "worker memory": 0.1,
        "to clients": 10 * 102_000 * 8 / 1e9,
    }
    assert results == pytest.approx(expected)


def test_every_line_shows_its_result() -> None:
    made = plan(GIVEN, FOUND)
    assert len(made.lines) == len(made.results)
    for line, value in zip(made.lines, made.results.values(), strict=True):
        assert f"**{amount(value)}**" in line


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1_666.67, "1,670"), (0.01234, "0.0123"), (12.345, "12.3"), (7, "7.00")]
)
def test_amounts_have_three_figures(value: float, text: str) -> None:
    assert amount(value) == text


def test_actions_are_counted_or_added_up() -> None:
    assert actions_of({"actions": 12, "activities": 99}) == 12
    assert actions_of({"activities": 5, "updates": 2, "signals": 1, "history_events": 80}) == 9


def test_memory_of_a_session_is_a_slope() -> None:
    rows = [
        {"sessions": 500, "followed": 0, "worker_mb": 150, "api_mb": 100, "temporal_mb": 200},
        {"sessions": 1_000, "followed": 0, "worker_mb": 200, "api_mb": 100, "temporal_mb": 250},
        {"sessions": 3_000, "followed": 0, "worker_mb": 202, "api_mb": 100, "temporal_mb": 450},
        {"sessions": 3_000, "followed": 500, "worker_mb": 202, "api_mb": 125, "temporal_mb": 450},
    ]
    assert kilobytes_per_session(rows) == pytest.approx(
        {"worker": 100, "temporal": 100, "api": 0, "worker, full": 1, "api, followed": 50}
    )
