"""Means and variances per perturbation and half, summed chunk by chunk."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tabatlas.perturb.screens import CONTROL_ID, Unit

CHUNK = 4096  # cells read at once
# Halves of the control cells: what the truth's effect is measured from, and what is known when
# an effect is predicted. Of a perturbation's cells: what is predicted, and what predicts it.
TRUTH, KNOWN = 0, 1


@dataclass(frozen=True)
class Moments:
    """Of the cells of one perturbation, by half: number, sums and sums of squares (2, g)."""

    n_h: np.ndarray
    total_hg: np.ndarray
    square_hg: np.ndarray

    @property
    def n(self) -> int:
        """Cells of both halves."""
        return int(self.n_h.sum())

    def mean(self, *halves: int) -> np.ndarray:
        """Mean of the cells of these halves, of all without any (g,)."""
        chosen = list(halves or (TRUTH, KNOWN))
        return self.total_hg[chosen].sum(axis=0) / max(self.n_h[chosen].sum(), 1)

    def variance(self, *halves: int) -> np.ndarray:
        """Variance of the cells of these halves, of all without any (g,)."""
        chosen = list(halves or (TRUTH, KNOWN))
        square = self.square_hg[chosen].sum(axis=0) / max(self.n_h[chosen].sum(), 1)
        return np.maximum(square - np.square(self.mean(*chosen)), 0)


def measure_unit(
    unit: Unit, least: int, rng: np.random.Generator
) -> tuple[dict[str, Moments], np.ndarray]:
    """Moments of each perturbation with `least` cells and of the control, and the cells' halves."""
    half_n = np.zeros(len(unit.id_n), dtype=np.int64)
    found = {}
    for perturbation in sorted(set(unit.id_n)):
        rows = np.flatnonzero(unit.id_n == perturbation)
        half_n[rng.permutation(rows)[len(rows) // 2 :]] = KNOWN
        if len(rows) >= least:
            found[perturbation] = sum_cells(unit, rows, half_n[rows])
    return found, half_n


def sum_cells(unit: Unit, rows: np.ndarray, half_n: np.ndarray) -> Moments:
    """Sums over some cells of a unit; only a chunk of them is in memory."""
    shape = (2, len(unit.genes))
    n_h, total_hg, square_hg = np.zeros(2, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    for start in range(0, len(rows), CHUNK):
        halves = half_n[start : start + CHUNK]
        values = unit.read(rows[start : start + CHUNK]).astype(np.float64)
        squares = values.multiply(values).tocsr()
        for half in (TRUTH, KNOWN):
            chosen = np.flatnonzero(halves == half)
            n_h[half] += len(chosen)
            total_hg[half] += np.asarray(values[chosen].sum(axis=0)).ravel()
            square_hg[half] += np.asarray(squares[chosen].sum(axis=0)).ravel()
    return Moments(n_h, total_hg, square_hg)


def known_effects(moments: Mapping[str, Moments], ids: list[str]) -> np.ndarray:
    """Effects of perturbations, from the control cells that predictions may know (p, g)."""
    control_g = moments[CONTROL_ID].mean(KNOWN)
    return np.stack([moments[one].mean() - control_g for one in ids])
