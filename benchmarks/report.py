"""How a run is reported: tables on the terminal, and docs/benchmarks.md with its plots.

The page is made only from the recorded runs, so it can be remade at any time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import charts
from benchmarks.recording import Change, Recorded, identity, worse
from benchmarks.scenario import OURS, Aim, Chart, Column, Row, Scenario
from tests.support import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"
IMPROVEMENTS = Path(__file__).with_name("improvements.md")
"""Written by hand: what the measurements showed and what was improved, with figures before and after."""
WORSE = "▼"

INTRODUCTION = """# Benchmarks

Made by `make bench` from `benchmarks/results/*.json`; don't edit it by hand.

```sh
make bench                                # everything, about 35 minutes
make bench ARGS="--only latency fan_out"  # some scenarios
make bench ARGS="--size long"             # also the sizes that take longer
make bench ARGS="--size quick"            # does it run? nothing is recorded
make bench ARGS="--render"                # remakes this page from recorded runs
```

Ours and the peers run in the same rounds on the same machine and, where both need Temporal, on the same
server. Numbers have three significant figures. A peer's number is followed by its ratio to ours. ▼ marks our
own results that are worse than in the last recorded run by a fifth or more. [scaling.md](scaling.md) works
out what a real cluster would cost.
"""


def show(scenario: Scenario, recorded: Recorded, console: Console) -> None:
    """Prints a run as a table, with its aims and the values that became worse."""
    head, *body = table(scenario, recorded)
    printed = Table(title=f"{scenario.title} ({recorded['seconds']} s)")
    for index, title in enumerate(head):
        printed.add_column(title, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in body:
        printed.add_row(*row)
    console.print(printed)
    for note in scenario.notes(recorded["rows"]):
        console.print(note, markup=False)
    for line in aim_lines(scenario, recorded["rows"]):
        console.print(f"  aim: {line}", markup=False)
    for change in changes(scenario, recorded):
        console.print(f"  {WORSE} worse: {told(scenario, change)}", markup=False, style="red")


def page(runs: Sequence[tuple[Scenario, Recorded]]) -> str:
    """Returns the text of docs/benchmarks.md."""
    parts = [INTRODUCTION, *_at_a_glance(runs)]
    for scenario, recorded in runs:
        parts += _section(scenario, recorded)
    parts += ["## Bottlenecks removed\n", IMPROVEMENTS.read_text()]
    return "\n".join(parts)


def write(runs: Sequence[tuple[Scenario, Recorded]]) -> None:
    """Writes the page and its plots."""
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    PAGE.write_text(page(runs))
    for scenario, recorded in runs:
        for file, drawing in plots(scenario, recorded["rows"]):
            (PLOTS / file).write_text(drawing)


def table(scenario: Scenario, recorded: Recorded) -> list[list[str]]:
    """Returns header and rows as text."""
    rows: list[Row] = recorded["rows"]
    marked = {(identity(scenario, c.row), c.column.key) for c in changes(scenario, recorded)}
    ours = {identity(scenario, row)[1:]: row for row in rows if row["system"] == OURS}
    shown = [column for column in (*scenario.keys, *scenario.columns) if any(column.key in r for r in rows)]
    lines = [["system", *(column.title for column in shown)]]
    for row in rows:
        base = ours.get(identity(scenario, row)[1:])
        cells = [_cell(column, row, base) for column in shown]
        for index, column in enumerate(shown):
            if (identity(scenario, row), column.key) in marked:
                cells[index] += f" {WORSE}"
        lines.append([row["system"], *cells])
    return lines


def _cell(column: Column, row: Row, ours: Row | None) -> str:
    value = row.get(column.key)
    if value is None:
        return ""
    text = charts.number(value) if isinstance(value, int | float) else str(value)
    base = ours.get(column.key) if ours is not None and ours is not row else None
    if column.times_ours and base:
        text += f" ({charts.number(_short(value / base))}×)"
    return text


def _short(ratio: float) -> float:
    return round(ratio) if ratio >= 10 else round(ratio, 1 if ratio >= 1 else 2)


def aim_lines(scenario: Scenario, rows: Sequence[Row]) -> Iterator[str]:
    """Yields each aim with what was measured, and whether it is met."""
    titles = {column.key: column.title for column in (*scenario.keys, *scenario.columns)}
    for aim in scenario.aims:
        row = _row_of(aim, rows)
        value = row.get(aim.column) if row else None
        where = ", ".join(f"{wanted} {titles[key]}" for key, wanted in aim.where.items() if key != "system")
        promise = f"{titles[aim.column]} {aim.kind} {charts.number(aim.limit)}" + (
            f" at {where}" if where else ""
        )
        if value is None:
            yield f"{promise}: not measured"
        else:
            yield f"{promise}: {charts.number(value)}, {'met' if met(aim, value) else 'MISSED'}"


def met(aim: Aim, value: float) -> bool:
    """Returns whether a measured value meets the aim."""
    return value <= aim.limit if aim.kind == "at most" else value >= aim.limit


def _row_of(aim: Aim, rows: Sequence[Row]) -> Row | None:
    wanted = {"system": OURS, **aim.where}
    return next((r for r in rows if all(r.get(key) == value for key, value in wanted.items())), None)


def changes(scenario: Scenario, recorded: Recorded) -> list[Change]:
    """Returns what became worse since the run that this one is compared with."""
    previous = recorded.get("previous")
    return list(worse(scenario, recorded["rows"], previous["rows"])) if previous else []


def told(scenario: Scenario, change: Change) -> str:
    """Returns a change in words."""
    where = ", ".join(f"{change.row[key.key]} {key.title}" for key in scenario.keys if key.key in change.row)
    return f"{scenario.title}, {where}: {change.column.title} {change.now} (was {change.before})"


def plots(scenario: Scenario, rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yields file names and drawings."""
    titles = {column.key: column.title for column in (*scenario.keys, *scenario.columns)}
    for index, chart in enumerate(scenario.charts, 1):
        if drawing := _plot(chart, rows, titles):
            yield f"{scenario.name}-{index}.svg", drawing


def _plot(chart: Chart, rows: Sequence[Row], titles: dict[str, str]) -> str | None:
    usable = [row for row in rows if row.get(chart.y) is not None and row.get(chart.x) is not None]
    if not usable:
        return None
    if chart.kind == "bars":
        values = {f"{row['system']}, {row[chart.x]}": float(row[chart.y]) for row in usable}
        return charts.bars(chart.title, titles[chart.y], values, log=chart.log_y)
    series: dict[str, list[charts.Point]] = {}
    for row in usable:
        if row[chart.y] > 0 or not chart.log_y:
            name = row["system"] + (f", {row[chart.by]}" if chart.by and row.get(chart.by) else "")
            series.setdefault(name, []).append((float(row[chart.x]), float(row[chart.y])))
    return charts.lines(
        chart.title, titles[chart.x], titles[chart.y], series, log_x=chart.log_x, log_y=chart.log_y
    )


def _at_a_glance(runs: Sequence[tuple[Scenario, Recorded]]) -> Iterator[str]:
    yield "## At a glance\n"
    yield "| scenario | aim | |\n|---|---|---|"
    for scenario, recorded in runs:
        for line in aim_lines(scenario, recorded["rows"]):
            promise, _, outcome = line.rpartition(": ")
            link = f"[{scenario.title}](#{_anchor(scenario.title)})"
            yield _markdown_row([link, promise, outcome.replace("MISSED", "**missed**")])
    found = [told(scenario, change) for scenario, run in runs for change in changes(scenario, run)]
    compared = [scenario.title for scenario, run in runs if run.get("previous")]
    yield ""
    if not compared:
        yield "Nothing is compared: there is no earlier recorded run of the same size on the same machine.\n"
    elif found:
        yield "Worse than in the previous run by a fifth or more:\n\n" + "\n".join(
            f"- {WORSE} {line}" for line in found
        )
        yield ""
    else:
        yield f"Nothing is worse by a fifth than in the previous run ({len(compared)} scenarios compared).\n"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def _section(scenario: Scenario, recorded: Recorded) -> Iterator[str]:
    yield f"## {scenario.title}\n"
    yield f"{_flat(scenario.shows)}\n"
    head, *body = table(scenario, recorded)
    yield _markdown_row(head)
    yield "|---|" + "---:|" * (len(head) - 1)
    yield from (_markdown_row(row) for row in body)
    yield ""
    for note in scenario.notes(recorded["rows"]):
        yield f"{note}\n"
    for index, (file, _) in enumerate(plots(scenario, recorded["rows"])):
        yield f"![{scenario.charts[index].title}]({PLOTS.name}/{file})\n"
    yield "What this does not show:\n"
    yield from (f"- {_flat(line)}" for line in scenario.does_not_show)
    yield f"\n{_circumstances(recorded)}\n"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _circumstances(recorded: Recorded) -> str:
    machine: dict[str, Any] = recorded["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in recorded["versions"].items())
    return (
        f"<sub>{recorded['date']}, size {recorded['size']}, {recorded['seconds']} s, on {machine['cores']} "
        f"cores of {machine['processor']}, {machine['memory_gb']} GB, {machine['system']}. {versions}.</sub>"
    )
