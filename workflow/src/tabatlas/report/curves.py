"""Training curves: the points of `metrics.jsonl`, thinned to what a chart can show."""

from collections.abc import Mapping, Sequence
from typing import Any

N_POINTS = 200  # more than that cannot be told apart on a chart 300 pixels wide


def trace_curve(metrics: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Points (step, value) of one metric; neighbors are averaged to at most `N_POINTS`.

    Of a step written twice (a resumed run) the last counts. Values that were not finite are no
    points; `n_lost` counts them.
    """
    values = {row["step"]: row[key] for row in metrics if key in row}
    points = [(step, value) for step, value in sorted(values.items()) if value is not None]
    size = -(-len(points) // N_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return {
        "points": [average_points(group) for group in groups],
        "n_averaged": size,
        "n_lost": len(values) - len(points),
    }


def average_points(points: Sequence[tuple[float, float]]) -> list[float]:
    """Mean step and mean value."""
    return [sum(column) / len(points) for column in zip(*points, strict=True)]
