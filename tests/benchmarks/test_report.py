"""Comparing with the last run, tables, plots; and that the pages say what is recorded."""

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import charts, recording, report, scaling, sessions
from benchmarks.__main__ import ORDER, recorded_runs, scenarios
from benchmarks.recording import is_worse
from benchmarks.scenario import Column, Size
from tests.benchmarks.samples import SCENARIO, ours, peer, run

LOWER, HIGHER = Column("a", "a", "lower", grain=1.0), Column("b", "b", "higher")


@pytest.mark.parametrize(
    ("column", "was", "now", "worse"),
    [
        (LOWER, 10.0, 11.9, False),
        (LOWER, 10.0, 12.0, True),
        (LOWER, 10.0, 5.0, False),
        (LOWER, 0.5, 1.4, False),  # less than the grain
        (LOWER, 0.0, 1.0, True),
        (HIGHER, 10.0, 8.1, False),
        (HIGHER, 10.0, 8.0, True),
        (HIGHER, 10.0, 20.0, False),
        (HIGHER, 0.0, 0.0, False),
        (Column("c", "c"), 1.0, 100.0, False),
    ],
)
def test_worse_is_worse_by_a_fifth(column: Column, was: float, now: float, worse: bool) -> None:
    assert is_worse(column, was, now) is worse


def test_only_rows_of_ours_that_both_runs_have_are_compared() -> None:
    before = [ours(p50_ms=10, per_second=100), ours(25, p50_ms=10), peer(p50_ms=10)]
    now = [ours(p50_ms=20, per_second=100), ours(50, p50_ms=99), peer(p50_ms=99)]
    found = list(recording.worse(SCENARIO, now, before))
    assert [(change.row["clients"], change.column.key, change.before, change.now) for change in found] == [
        (10, "p50_ms", 10, 20)
    ]


def test_a_run_is_compared_with_one_of_the_same_size_on_the_same_machine() -> None:
    last = run([ours(p50_ms=1)])
    last["machine"] = recording.describe_machine()
    made = recording.made(SCENARIO, Size.DEFAULT, 3.4, [ours(p50_ms=2)], last)
    assert made["previous"] == {"date": last["date"], "rows": last["rows"]}
    assert recording.made(SCENARIO, Size.LONG, 3.4, [], last)["previous"] is None
    last["machine"]["cores"] = 64
    assert recording.made(SCENARIO, Size.DEFAULT, 3.4, [], last)["previous"] is None


def test_the_table_tells_multiples_of_ours_and_marks_what_is_worse() -> None:
    recorded = run([ours(p50_ms=2.0), peer(p50_ms=30.0), peer(99, p50_ms=5.0)], before=[ours(p50_ms=0.5)])
    assert report.table(SCENARIO, recorded) == [
        ["system", "clients", "p50 ms"],
        ["waystation", "10", "2 ▼"],
        ["a peer", "10", "30 (15×)"],
        ["a peer", "99", "5"],
    ]


def test_aims_are_met_missed_or_not_measured() -> None:
    rows = [ours(p50_ms=5), peer(per_second=1_000)]
    assert list(report.aim_lines(SCENARIO, rows)) == [
        "p50 ms at most 5 at 10 clients: 5, met",
        "per second at least 100 at 10 clients: not measured",
    ]
    assert "6, MISSED" in next(report.aim_lines(SCENARIO, [ours(p50_ms=6)]))


def test_the_page_says_what_it_does_not_show_and_what_is_worse() -> None:
    page = report.page([(SCENARIO, run([ours(p50_ms=9)], before=[ours(p50_ms=3)]))])
    assert "- What it doesn't." in page
    assert "What it shows." in page
    assert "- ▼ A sample, 10 clients: p50 ms 9 (was 3)" in page
    assert "| [A sample](#a-sample) | p50 ms at most 5 at 10 clients | 9, **missed** |" in page
    assert "no earlier recorded run" in report.page([(SCENARIO, run([ours(p50_ms=9)]))])


def test_a_plot_has_a_line_for_each_system() -> None:
    rows = [ours(1, p50_ms=1), ours(10, p50_ms=3), peer(1, p50_ms=100), peer(10, p50_ms=0)]
    [(file, drawing)] = report.plots(SCENARIO, rows)
    assert file == "sample-1.svg"
    root = ElementTree.fromstring(drawing)
    assert len(root.findall("{*}polyline")) == 2
    assert {"waystation", "a peer"} <= {text.text for text in root.findall("{*}text")}
    assert list(report.plots(SCENARIO, [ours(1)])) == []


def test_an_axis_places_values_in_order() -> None:
    for log in (True, False):
        axis = charts.scale([1, 250], 0, 100, log=log)
        assert 0 <= axis.at(1) < axis.at(50) < axis.at(250) <= 100
        assert axis.ticks()


def test_labels_do_not_lie_on_each_other() -> None:
    drawing = charts.lines("t", "x", "y", {name: [(1, 5), (2, 5)] for name in ("one", "two", "three")})
    heights = [float(text.get("y", "")) for text in _named(drawing, {"one", "two", "three"})]
    assert all(b - a >= charts.LABEL_GAP for a, b in zip(sorted(heights), sorted(heights)[1:], strict=False))


def _named(drawing: str, names: set[str]) -> list[ElementTree.Element]:
    texts = ElementTree.fromstring(drawing).findall("{*}text")
    return [text for text in texts if text.text in names]


# What is checked in


def test_every_scenario_says_what_it_shows_and_what_not() -> None:
    found = scenarios()
    assert {"latency", "cost"} <= {scenario.name for scenario in found} <= set(ORDER)
    for scenario in found:
        keys = {column.key for column in (*scenario.keys, *scenario.columns)}
        assert scenario.shows.strip()
        assert scenario.does_not_show
        assert {aim.column for aim in scenario.aims} <= keys
        assert {part for chart in scenario.charts for part in (chart.x, chart.y)} <= keys


def test_the_pages_are_made_from_what_is_recorded() -> None:
    runs = recorded_runs()
    remedy = "run: python -m benchmarks --render"
    assert report.PAGE.read_text() == report.page(runs), remedy
    by_name = {scenario.name: run for scenario, run in runs}
    assert scaling.PAGE.read_text() == scaling.page(by_name), remedy
    assert sessions.PATH.read_text() == sessions.text(by_name), remedy
    drawn = {file: drawing for scenario, run in runs for file, drawing in report.plots(scenario, run["rows"])}
    assert {path.name: path.read_text() for path in report.PLOTS.glob("*.svg")} == drawn, remedy
