"""What every benchmark module defines: one ``SCENARIO``.

A scenario starts what it measures (ours, and a peer in the same run), measures it, stops it, and returns
rows: flat JSON objects, one for each system and size. Everything else (recording, comparing, tables, plots)
is made from the rows and the scenario's own description.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

OURS = "waystation"
"""The value of ``system`` in our own rows; any other value names a peer."""

Row = dict[str, Any]
"""``{"system": …, <key columns>, <measured columns>}``; what was not measured is absent."""
Say = Callable[[str], None]
"""Prints a line of progress."""


class Size(StrEnum):
    """How much a scenario measures."""

    QUICK = "quick"
    """A trial of seconds: does it run? Never recorded."""
    DEFAULT = "default"
    """All scenarios together in about 35 minutes."""
    LONG = "long"
    """The sizes that take longer, too."""


@dataclass(frozen=True)
class Column:
    """A column of the rows: a measured value, or the size at which it was measured."""

    key: str
    title: str
    """With its unit."""
    better: Literal["lower", "higher"] | None = None
    """Which direction is good; none for what is only told."""
    grain: float = 0.0
    """Differences below this, in the column's unit, are noise and never marked as worse."""
    times_ours: bool = False
    """Whether a peer's value is also told as a multiple of ours."""


@dataclass(frozen=True)
class Aim:
    """What the documentation promises of one of our rows."""

    where: Row
    """The key columns that select the row; ``system`` is ours unless it is given."""
    column: str
    limit: float
    kind: Literal["at most", "at least"] = "at most"


@dataclass(frozen=True)
class Chart:
    """A plot of one column; a series for each system (and for each value of ``by``)."""

    title: str
    x: str
    y: str
    kind: Literal["lines", "bars"] = "lines"
    by: str | None = None
    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True)
class Scenario:
    """A benchmark: what it measures, how it is reported, how it is run."""

    name: str
    """Also the name of its file in ``benchmarks/results``."""
    title: str
    shows: str
    """A paragraph: what is measured, from where to where, against which peer."""
    does_not_show: Sequence[str]
    """What nobody should conclude from it."""
    keys: Sequence[Column]
    """With ``system``, what makes a row the same row in the next run."""
    columns: Sequence[Column]
    run: Callable[[Size, Say], Coroutine[Any, Any, list[Row]]]
    aims: Sequence[Aim] = ()
    charts: Sequence[Chart] = ()
    notes: Callable[[list[Row]], Sequence[str]] = lambda rows: ()
    """Paragraphs of text that are made from the rows (where the time goes, say)."""
