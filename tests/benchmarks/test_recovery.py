"""How pauses around a kill are told from moments."""

import pytest

from benchmarks.recovery import Pauses, _pause_around, _row, longest_pause


def test_the_longest_pause_is_between_neighbours() -> None:
    assert longest_pause([1.0, 1.5, 4.0, 4.1]) == 2.5
    assert longest_pause([1.0]) == longest_pause([]) == 0.0


def test_a_pause_around_a_kill_begins_at_the_last_moment_before_it() -> None:
    moments = [0.0, 5.0, 5.1, 5.9, 6.0]
    assert _pause_around(moments, killed=5.15) == pytest.approx(0.8)
    assert _pause_around(moments, killed=2.0) == 5.0


def test_rounds_that_did_not_recover_are_told() -> None:
    row = _row("API", [Pauses(1.0, 2.0), None, Pauses(3.0, 4.0), Pauses(2.0, 9.0)])
    assert row == {
        "system": "waystation",
        "killed": "API",
        "recovered": 0.75,
        "screen_s": 2.0,
        "screen_max_s": 3.0,
        "durable_s": 4.0,
    }
    assert _row("API", [None]) == {"system": "waystation", "killed": "API", "recovered": 0.0}
