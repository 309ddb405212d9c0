"""Divide cells into parts by whole donors, as evenly over cell types as whole donors allow."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

N_DRAWS = 500


def tie_groups(groups: np.ndarray, ties: Iterable[tuple[int, int]]) -> np.ndarray:
    """Merge groups (codes 0…) that are tied to each other, directly or over others (n,)."""
    n_groups = int(groups.max()) + 1
    pairs = np.array(list(ties), dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n_groups, n_groups))
    return connected_components(graph, directed=False)[1][groups]


def draw_part(
    groups: np.ndarray, classes: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Choose whole groups that hold about `fraction` of the cells of every class (n,) bool.

    Of many random draws the one nearest to the fraction over all classes is taken; one group at
    least is left and one chosen. A class that would be missing on the larger side costs most.
    """
    table = pd.crosstab(groups, classes).to_numpy(dtype=np.float64)
    share = table / table.sum(axis=0)
    size = table.sum(axis=1) / table.sum()
    best, best_cost = None, np.inf
    for _ in range(N_DRAWS):
        order = rng.permutation(len(table))
        # Adding groups in random order, stop where the size is nearest to the fraction.
        reached = np.cumsum(size[order])[:-1]
        chosen = order[: int(np.abs(reached - fraction).argmin()) + 1]
        taken = share[chosen].sum(axis=0)
        cost = np.abs(taken - fraction).mean() + (taken > 1 - 1e-9).sum()
        cost += abs(size[chosen].sum() - fraction)
        if cost < best_cost:
            best, best_cost = chosen, cost
    return np.isin(groups, np.unique(groups)[best])


def draw_cells(classes: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose about `fraction` of the cells of every class, at random (n,) bool."""
    chosen = np.zeros(len(classes), dtype=bool)
    for one in np.unique(classes):
        cells = np.flatnonzero(classes == one)
        # A class of one cell trains.
        n_chosen = min(round(fraction * len(cells)), len(cells) - 1)
        chosen[rng.permutation(cells)[:n_chosen]] = True
    return chosen


def draw_units(
    donors: np.ndarray,
    batches: np.ndarray,
    classes: np.ndarray,
    fraction: float,
    least: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, str]:
    """Choose whole donors, else whole batches, else stratified cells; say which.

    Batches stand in where there are fewer than `least` donors, cells where there are fewer than
    `least` batches: too few to leave variety on the larger side.
    """
    for unit, groups in (("donors", donors), ("batches", batches)):
        codes = np.unique(groups, return_inverse=True)[1]
        if codes.size and codes.max() + 1 >= least:
            return draw_part(codes, classes, fraction, rng), unit
    return draw_cells(classes, fraction, rng), "cells"
