"""Axes: where a value lies on a chart, and which round numbers label it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A linear scale from values (`low`..`high`) to pixels (`start`..`end`)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    digits: int

    def at(self, value: float) -> float:
        """Pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def word(self, tick: float) -> str:
        """Label of a tick."""
        return f"{tick:,.{self.digits}f}".replace("-", "−")


def fit_axis(
    values: Sequence[float], start: float, end: float, n_steps: int = 4, least_step: float = 0
) -> Axis:
    """An axis with about `n_steps` round steps, none below `least_step`, that holds all `values`.

    One value, or none, still gets an axis of positive length.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    step = max(round_step((high - low) / n_steps), least_step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple(round(index * step, digits) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks, digits)


def fit_score_axis(scores: Sequence[Mapping[str, float | None]], start: float, end: float) -> Axis:
    """An axis for scores with intervals, {"value", "low", "high"}, that are near the best one.

    Scores below half of the best would leave no room to tell the others apart; they lie below it.
    """
    best = max(score["value"] for score in scores)
    near = [score for score in scores if score["value"] >= best / 2]
    ends = [score[key] for score in near for key in ("value", "low", "high")]
    return fit_axis([best - 0.02, *(end for end in ends if end is not None)], start, end)


def round_step(step: float) -> float:
    """The smallest of 1, 2, 5 × 10^k that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))
