"""The recorded runs about streaming and resuming in one list: ``benchmarks/results/sessions.json``.

For programs that read the results: ``{rows: [{system, scenario, sessions, subscribers,
delivered, p50_ms, p99_ms, history_events_per_1k_tokens} or {…, ms, bytes_ratio}]}``.
"""

import json
from collections.abc import Iterator, Mapping

from benchmarks.recording import RESULTS, Recorded
from benchmarks.scenario import Row

PATH = RESULTS / "sessions.json"
_STREAMED = ("delivered", "p50_ms", "p99_ms", "history_events_per_1k_tokens")
_RESUMED = ("ms", "bytes_ratio")


def text(runs: Mapping[str, Recorded]) -> str:
    """Returns the file's content."""
    return json.dumps({"rows": list(_rows(runs))}, indent=1) + "\n"


def write(runs: Mapping[str, Recorded]) -> None:
    """Writes the file."""
    PATH.write_text(text(runs))


def _rows(runs: Mapping[str, Recorded]) -> Iterator[Row]:
    for row in _of(runs, "latency"):
        yield _row(row, f"stream-{row['sessions']}", row["sessions"], 1, _STREAMED)
    for row in _of(runs, "fan_out"):
        yield _row(row, f"fan-out-{row['subscribers']}", 1, row["subscribers"], _STREAMED)
    for row in _of(runs, "resume"):
        how = row["how"].replace(", ", "-")
        yield _row(row, f"resume-{row['tokens']}-{how}", 1, 1, _RESUMED)


def _of(runs: Mapping[str, Recorded], name: str) -> list[Row]:
    return runs[name]["rows"] if name in runs else []


def _row(row: Row, scenario: str, sessions: int, subscribers: int, columns: tuple[str, ...]) -> Row:
    told = {column: row.get(column) for column in columns}
    return {
        "system": row["system"],
        "scenario": scenario,
        "sessions": sessions,
        "subscribers": subscribers,
        **told,
    }
