"""Judge cells by fixed limits and as outliers of their own sample."""

import numpy as np
import pandas as pd

from tabatlas.names import N_GENES, PCT_MT, TOTAL_COUNTS
from tabatlas.qc.settings import QCSettings

NORMAL = 1.4826  # MAD × this = standard deviation of a normal distribution


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
    """Whether a file of so many genes holds less than a transcriptome."""
    return n_genes < settings.panel_genes


def find_outliers(
    metrics: pd.DataFrame, within_n: np.ndarray, settings: QCSettings
) -> tuple[pd.DataFrame, str]:
    """Which cells of one sample lie too many MADs from its median (n, 3) bool; and a note or "".

    Only the cells within the fixed limits set the standard: empty droplets must not.
    """
    n_within = int(within_n.sum())
    note = ""
    if n_within < settings.min_sample_cells:
        note = f"fixed limits only: {n_within} cells within them are too few to find outliers"
        within_n = np.zeros_like(within_n)
    pct_mt = metrics[PCT_MT]
    counts = count_mads(np.log1p(metrics[TOTAL_COUNTS]), within_n)
    genes = count_mads(np.log1p(metrics[N_GENES]), within_n)
    mt = count_mads(pct_mt, within_n)
    outliers = {
        "outlier_counts": counts.abs() > settings.mads_counts,
        "outlier_genes": genes.abs() > settings.mads_genes,
        "outlier_mt": (mt > settings.mads_mt) & (pct_mt >= settings.min_outlier_pct_mt),
    }
    return pd.DataFrame(outliers), note


def count_mads(value: pd.Series, standard_n: np.ndarray) -> pd.Series:
    """Distance of every value from the median of the standard cells, in their MADs.

    0 for all where the MAD is 0: most values are equal, and the others no worse for that.
    """
    standard = value[standard_n]
    mad = NORMAL * (standard - standard.median()).abs().median()
    return (value - standard.median()) / mad if mad > 0 else 0.0 * value
