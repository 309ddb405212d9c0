"""Judge cells by fixed limits and as outliers of their own sample."""

import numpy as np
import pandas as pd

from tabatlas.names import N_GENES, PCT_MT, TOTAL_COUNTS
from tabatlas.qc.settings import QCSettings

NORMAL = 1.4826  # MADs × this = standard deviations of a normal distribution


def apply_limits(metrics: pd.DataFrame, n_genes: int, settings: QCSettings) -> pd.DataFrame:
    """Which fixed limits each cell breaks (n, 4) bool; `n_genes` are those of the file."""
    min_genes = settings.panel_min_genes if is_panel(n_genes, settings) else settings.min_genes
    max_counts = np.inf if settings.max_counts is None else settings.max_counts
    return pd.DataFrame(
        {
            "low_counts": metrics[TOTAL_COUNTS] < settings.min_counts,
            "high_counts": metrics[TOTAL_COUNTS] > max_counts,
            "low_genes": metrics[N_GENES] < min_genes,
            "high_mt": metrics[PCT_MT] > settings.max_pct_mt,
        }
    )


def is_panel(n_genes: int, settings: QCSettings) -> bool:
    """Whether a file of so many genes holds no whole transcriptome."""
    return n_genes < settings.panel_genes


def find_outliers(
    metrics: pd.DataFrame, passed_n: np.ndarray, settings: QCSettings
) -> tuple[pd.DataFrame, list[str]]:
    """Which cells of one sample lie too many MADs from its median (n, 3) bool; and notes.

    Median and MAD are those of the cells that passed the fixed limits: empty droplets must not set
    the standard. Where the MAD is 0 most values are equal and the metric judges nobody.
    """
    found = pd.DataFrame(
        False, index=metrics.index, columns=["outlier_counts", "outlier_genes", "outlier_mt"]
    )
    if passed_n.sum() < settings.min_sample_cells:
        return found, [f"fixed limits only: {passed_n.sum()} cells passed them"]
    counts, genes, pct_mt = (metrics[name].to_numpy() for name in (TOTAL_COUNTS, N_GENES, PCT_MT))
    judged = {
        "outlier_counts": deviate(np.log1p(counts), passed_n, settings.mads_counts),
        "outlier_genes": deviate(np.log1p(genes), passed_n, settings.mads_genes),
        "outlier_mt": deviate(pct_mt, passed_n, settings.mads_mt),
    }
    found["outlier_counts"] = judged["outlier_counts"] != 0
    found["outlier_genes"] = judged["outlier_genes"] != 0
    found["outlier_mt"] = (judged["outlier_mt"] > 0) & (pct_mt >= settings.min_outlier_pct_mt)
    return found, []


def deviate(value_n: np.ndarray, passed_n: np.ndarray, n_mads: float) -> np.ndarray:
    """-1, 0 or 1 (n,): below, within or above median ± `n_mads` MADs of the passed cells."""
    median = np.median(value_n[passed_n])
    mad = NORMAL * np.median(np.abs(value_n[passed_n] - median))
    if mad == 0:
        return np.zeros(len(value_n), dtype=int)
    return np.sign(value_n - median).astype(int) * (np.abs(value_n - median) > n_mads * mad)
