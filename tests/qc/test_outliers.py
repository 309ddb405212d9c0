"""Fixed limits, and outliers of a sample."""

import numpy as np
import pandas as pd

from tabatlas.names import N_GENES, PCT_MT, TOTAL_COUNTS
from tabatlas.qc.outliers import apply_limits, find_outliers
from tabatlas.qc.settings import QCSettings

WHOLE = 20_000  # genes


def make_metrics(counts, genes=None, pct_mt=None) -> pd.DataFrame:
    """Metrics of some cells; genes are half the counts where they are not given."""
    counts = np.asarray(counts, dtype=float)
    genes = counts // 2 if genes is None else genes
    return pd.DataFrame(
        {N_GENES: genes, TOTAL_COUNTS: counts, PCT_MT: 2.0 if pct_mt is None else pct_mt}
    )


def outliers_of(metrics: pd.DataFrame, **settings) -> dict[str, list[int]]:
    """Places of the outliers by reason; no fixed limit is broken."""
    within_n = np.ones(len(metrics), dtype=bool)
    found, _ = find_outliers(metrics, within_n, QCSettings(**settings))
    return {name: np.flatnonzero(found[name]).tolist() for name in found if found[name].any()}


def spread(n_cells: int, center: float, factor: float) -> np.ndarray:
    """Values from center / factor to center × factor, evenly on the log scale."""
    return np.round(center * np.geomspace(1 / factor, factor, n_cells))


def test_cells_at_a_fixed_limit_stay_and_cells_beyond_it_go():
    metrics = make_metrics([9, 10, 90, 91], [3, 3, 2, 3], [0, 20, 0, 20.1])
    settings = QCSettings(min_counts=10, max_counts=90, min_genes=3, max_pct_mt=20)
    broken = apply_limits(metrics, WHOLE, settings)
    assert broken["low_counts"].tolist() == [True, False, False, False]
    assert broken["high_counts"].tolist() == [False, False, False, True]
    assert broken["low_genes"].tolist() == [False, False, True, False]
    assert broken["high_mt"].tolist() == [False, False, False, True]


def test_a_panel_has_its_own_least_number_of_genes():
    metrics = make_metrics([500, 500, 0], [199, 4, 0])
    assert apply_limits(metrics, WHOLE, QCSettings())["low_genes"].tolist() == [True] * 3
    assert apply_limits(metrics, 400, QCSettings())["low_genes"].tolist() == [False, False, True]


def test_outliers_lie_on_both_sides_of_the_median_of_counts_and_genes():
    counts = np.append(spread(99, 2000, 1.5), [20, 200_000])
    assert outliers_of(make_metrics(counts)) == {
        "outlier_counts": [99, 100],
        "outlier_genes": [99, 100],
    }


def test_an_outlier_is_that_many_scaled_mads_away():
    counts = spread(101, 2000, 1.5)
    logs = np.log1p(counts)
    sd = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    counts[0] = np.expm1(np.median(logs) - 3.9 * sd)
    metrics = make_metrics(counts, genes=500)
    assert outliers_of(metrics, mads_counts=4.0) == {}
    assert outliers_of(metrics, mads_counts=3.8) == {"outlier_counts": [0]}


def test_only_a_high_share_of_mitochondrial_counts_is_an_outlier():
    counts = spread(103, 2000, 1.5)
    pct_mt = np.append(np.linspace(8, 12, 100), [0.0, 18.0, 30.0])
    assert outliers_of(make_metrics(counts, pct_mt=pct_mt)) == {"outlier_mt": [101, 102]}


def test_a_share_of_mitochondrial_counts_below_the_floor_is_no_outlier():
    counts = spread(102, 2000, 1.5)
    pct_mt = np.append(np.linspace(0.5, 1.5, 100), [4.9, 5.0])
    assert outliers_of(make_metrics(counts, pct_mt=pct_mt)) == {"outlier_mt": [101]}


def test_nobody_is_an_outlier_where_most_values_are_equal():
    counts, pct_mt = np.full(100, 7), np.zeros(100)
    counts[:20], pct_mt[:20] = np.arange(1, 21), 10.0
    assert outliers_of(make_metrics(counts, pct_mt=pct_mt)) == {}


def test_a_small_sample_gets_fixed_limits_only_and_a_note():
    metrics = make_metrics([*spread(30, 2000, 1.5), 1])
    within_n = np.ones(31, dtype=bool)
    found, note = find_outliers(metrics, within_n, QCSettings())
    assert not found.to_numpy().any()
    assert note.startswith("fixed limits only: 31 cells")
    found, note = find_outliers(metrics, within_n, QCSettings(min_sample_cells=31))
    assert found["outlier_counts"].tolist() == [False] * 30 + [True]
    assert note == ""


def test_empty_droplets_do_not_set_the_standard():
    metrics = make_metrics([*spread(60, 2000, 1.5), 20, *[1] * 200])
    within_n = np.arange(261) < 61
    found, _ = find_outliers(metrics, within_n, QCSettings())
    assert np.flatnonzero(~found["outlier_counts"]).tolist() == list(range(60))
