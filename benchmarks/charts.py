"""Charts as SVG text: lines over a logarithmic or linear axis, and horizontal bars.

The drawings are checked in beside the page that shows them. They must come out the same on every machine
without a library, so this draws no more than the page needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 170, 46, 52
BAR_HEIGHT, BAR_GAP, BAR_LEFT = 18, 6, 270
LABEL_GAP = 15
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#7f7f7f", "#e69f00", "#56b4e9", "#000000")
"""Colours that colour-blind people can tell apart too (Okabe and Ito); the first is ours."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """Returns the pixel of a value."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Returns the values at which grid lines are drawn."""
        if not self.log:
            step = 10 ** math.floor(math.log10(self.high - self.low))
            step = next(s for s in (step / 5, step / 2, step) if (self.high - self.low) / s <= 8)
            first = math.ceil(self.low / step)
            return [step * n for n in range(first, math.floor(self.high / step) + 1)]
        powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
        return [10.0**power for power in powers]


def scale(values: Sequence[float], start: float, end: float, *, log: bool) -> Axis:
    """Returns an axis that covers all the values."""
    if log:
        low = 10 ** math.floor(math.log10(min(values)))
        high = 10 ** math.ceil(math.log10(max(values)))
        return Axis(low, high if high > low else low * 10, start, end, log=True)
    return Axis(0.0, max(values) * 1.05 or 1.0, start, end, log=False)


def number(value: float) -> str:
    """Returns a number in as few digits as a chart needs."""
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:g}"


def lines(
    title: str,
    x_title: str,
    y_title: str,
    series: dict[str, list[Point]],
    *,
    log_x: bool = True,
    log_y: bool = True,
) -> str:
    """Returns a chart of lines; each series is labelled at its end."""
    xs = [x for points in series.values() for x, _ in points]
    across = scale(xs, LEFT, WIDTH - RIGHT, log=log_x)
    if log_x:
        across = Axis(min(xs) / 1.15, max(xs) * 1.15, LEFT, WIDTH - RIGHT, log=True)
    ys = [y for points in series.values() for _, y in points]
    up = scale(ys, HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [_text(LEFT, 22, title, size=15, weight="bold")]
    parts += [_grid_y(up, tick) for tick in up.ticks()]
    parts += [_tick_x(across, x) for x in sorted(set(xs))]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, anchor="middle"))
    parts.append(
        f'<text x="16" y="{(TOP + HEIGHT - BOTTOM) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2:.0f})">{escape(y_title)}</text>'
    )
    ends: list[tuple[float, str, str]] = []
    for index, (name, points) in enumerate(series.items()):
        color = COLORS[index % len(COLORS)]
        placed = [(across.at(x), up.at(y)) for x, y in sorted(points)]
        parts.append(_line(placed, color, width=3 if index == 0 else 1.8))
        ends.append((placed[-1][1], name, color))
    for y, name, color in _apart(ends):
        parts.append(_text(WIDTH - RIGHT + 8, y + 4, name, color=color))
    return _document(HEIGHT, parts)


def bars(title: str, x_title: str, values: dict[str, float], *, log: bool = False) -> str:
    """Returns a chart of horizontal bars, one for each name; a name says whether the bar is ours."""
    height = TOP + len(values) * (BAR_HEIGHT + BAR_GAP) + 30
    low = min((value for value in values.values() if value > 0), default=1.0)
    across = scale([max(value, low) for value in values.values()], BAR_LEFT, WIDTH - 80, log=log)
    parts = [_text(16, 22, title, size=15, weight="bold")]
    for index, (name, value) in enumerate(values.items()):
        y = TOP + index * (BAR_HEIGHT + BAR_GAP)
        end = max(across.at(max(value, across.low)), BAR_LEFT + 1)
        color = COLORS[0] if name.startswith("waystation") else COLORS[1]
        parts.append(_text(BAR_LEFT - 8, y + 13, name, anchor="end"))
        parts.append(
            f'<rect x="{BAR_LEFT}" y="{y}" width="{end - BAR_LEFT:.1f}" height="{BAR_HEIGHT}" '
            f'fill="{color}"/>'
        )
        parts.append(_text(end + 6, y + 13, number(value)))
    parts.append(_text(BAR_LEFT, height - 10, x_title + (" (logarithmic)" if log else "")))
    return _document(height, parts)


def _document(height: float, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" font-size="12" fill="#222">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
    color: str = "#222",
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{color}">{escape(text)}</text>'
    )


def _grid_y(axis: Axis, value: float) -> str:
    y = axis.at(value)
    line = f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
    return line + _text(LEFT - 8, y + 4, number(value), anchor="end")


def _tick_x(axis: Axis, value: float) -> str:
    x, y = axis.at(value), HEIGHT - BOTTOM
    line = f'<line x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 5}" stroke="#222"/>'
    return line + _text(x, y + 19, number(value), anchor="middle")


def _line(points: Sequence[Point], color: str, *, width: float) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 0.8:.1f}" fill="{color}"/>' for x, y in points
    )
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>{dots}'


def _apart(labels: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Returns the positions of labels from top to bottom, moved so that none overlap."""
    placed: list[tuple[float, str, str]] = []
    for y, name, color in sorted(labels):
        above = placed[-1][0] if placed else -math.inf
        placed.append((max(y, above + LABEL_GAP), name, color))
    return placed
