"""Scores of gene importances: whether they repeat, and whether they find known markers."""

import numpy as np
from scipy.stats import hypergeom, spearmanr
from threadpoolctl import threadpool_limits

from tabatlas.scores.classification import LEAST_DONORS, N_RESAMPLES, Interval

RARE = 0.001  # how often chance may exceed its bound
BIN_GENES = 50  # genes of one expression bin: alike in their mean, enough of them to draw from


def find_top(value_g: np.ndarray, n_top: int) -> np.ndarray:
    """Numbers of the `n_top` largest values above 0, largest first; equal ones in gene order."""
    order = np.argsort(-value_g, kind="stable")[:n_top]
    return order[value_g[order] > 0]


def overlap_sets(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard index of two sets of genes; 0 where both are empty."""
    shared = len(np.intersect1d(one, other))
    return shared / max(len(one) + len(other) - shared, 1)


def expect_overlap(n_genes: int, n_top: int) -> float:
    """Expected Jaccard index of two random sets of `n_top` out of `n_genes` genes, exactly."""
    n_top = min(n_top, n_genes)
    if not n_top:
        return 0.0
    shared = np.arange(n_top + 1)
    chance = hypergeom.pmf(shared, n_genes, n_top, n_top)
    return float((chance * shared / (2 * n_top - shared)).sum())


def bound_overlap(n_genes: int, n_top: int) -> float:
    """Jaccard index that two random sets of `n_top` genes exceed in 1 of 1,000 draws at most.

    A mean over pairs of sets exceeds it only where one of the pairs does.
    """
    n_top = min(n_top, n_genes)
    if not n_top:
        return 0.0
    shared = int(hypergeom.ppf(1 - RARE, n_genes, n_top, n_top))
    return shared / (2 * n_top - shared)


def correlate_ranks(one_g: np.ndarray, other_g: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one side is constant and ranks nothing."""
    if len(one_g) < 2 or np.ptp(one_g) == 0 or np.ptp(other_g) == 0:
        return 0.0
    with threadpool_limits(1):  # the bits of BLAS depend on its number of threads
        return float(spearmanr(one_g, other_g).statistic)


def average_precision(score_g: np.ndarray, is_marker_dg: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve of a ranking, for each of d marker sets (d,).

    The mean precision over the markers; genes of equal score stand at one rank, as in scikit-learn.
    """
    order = np.argsort(-score_g, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score_g[order]) != 0, True))
    found_de = is_marker_dg[:, order].cumsum(axis=1)[:, ends]
    gained_de = np.diff(found_de, axis=1, prepend=0)
    return (gained_de * found_de / (ends + 1)).sum(axis=1) / found_de[:, -1]


def bin_expression(mean_g: np.ndarray) -> np.ndarray:
    """Bin of each gene by its mean expression (g,): about `BIN_GENES` genes each."""
    rank_g = np.empty(len(mean_g), dtype=np.int64)
    rank_g[np.argsort(mean_g, kind="stable")] = np.arange(len(mean_g))
    n_bins = max(len(mean_g) // BIN_GENES, 1)
    return rank_g * n_bins // max(len(mean_g), 1)


def draw_matched(
    is_marker_g: np.ndarray, bin_g: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Random sets with as many genes of each expression bin as the markers have (draws, g) bool."""
    in_bins = np.argsort(bin_g, kind="stable")
    matched_dg = np.empty((n_draws, len(bin_g)), dtype=bool)
    for number in range(n_draws):
        shuffled = np.lexsort((rng.random(len(bin_g)), bin_g))
        matched_dg[number, shuffled] = is_marker_g[in_bins]
    return matched_dg


def share_reaching(value: float, draw_d: np.ndarray) -> float:
    """Share of random draws that reach a value, the value itself counted: a p-value."""
    return float((1 + (draw_d >= value - 1e-12).sum()) / (1 + len(draw_d)))


def bootstrap_mean(value_n: np.ndarray, group_n: np.ndarray, rng: np.random.Generator) -> Interval:
    """Mean over cells with its 95 % interval, over groups (donors) where there are five."""
    groups, code_n = np.unique(group_n, return_inverse=True)
    if len(groups) < LEAST_DONORS:
        code_n, groups = np.arange(len(value_n)), value_n
    total_u = np.bincount(code_n, weights=value_n)
    n_u = np.bincount(code_n)
    n_units = len(groups)
    times = rng.multinomial(n_units, np.full(n_units, 1 / n_units), N_RESAMPLES)
    with threadpool_limits(1):
        low, high = np.quantile((times @ total_u) / (times @ n_u), [0.025, 0.975])
    return Interval(float(value_n.mean()), float(low), float(high))
