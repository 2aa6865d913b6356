"""Arithmetic that scenarios share."""

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the measured value nearest to the percentile; ``share`` is from 0 to 1."""
    if not values:
        raise ValueError("There is nothing to take a percentile of.")
    ordered = sorted(values)
    return ordered[min(max(math.ceil(share * len(ordered)) - 1, 0), len(ordered) - 1)]


def rounded(value: float) -> float:
    """Returns the number with three significant figures; measurements on one machine are no more exact."""
    if value == 0 or not math.isfinite(value):
        return value
    digits = 2 - math.floor(math.log10(abs(value)))
    result = round(value, digits)
    return int(result) if digits <= 0 else result


def latency_columns(milliseconds: Sequence[float], expected: int) -> dict[str, float]:
    """Returns the columns about latency; ``expected`` is how many arrivals there should be."""
    columns: dict[str, float] = {"delivered": round(len(milliseconds) / expected, 4)}
    if milliseconds:
        columns["p50_ms"] = rounded(percentile(milliseconds, 0.5))
        columns["p99_ms"] = rounded(percentile(milliseconds, 0.99))
        columns["max_ms"] = rounded(max(milliseconds))
    return columns


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Returns the slope of the least-squares line through the points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        raise ValueError("A slope needs two different points.")
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
