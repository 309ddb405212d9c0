"""Judge every cell within its sample, and write down every reason against it."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.names import DOUBLET_SCORE, KEEP, REASON
from tabatlas.qc.doublets import find_doublets
from tabatlas.qc.outliers import apply_limits, find_outliers
from tabatlas.qc.settings import QCSettings


def judge_cells(
    counts: sp.csr_matrix, metrics: pd.DataFrame, batch: pd.Series, settings: QCSettings
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Judge the cells of a file (n, genes); `metrics` and `batch` are indexed by obs_id.

    Returns the metrics with `doublet_score`, `keep` and `reason`, and for each sample the
    `doublet_threshold` and a `note` on what could not be judged.
    """
    judged, samples = [], {}
    for name, rows in sorted(batch.groupby(batch, observed=True).indices.items()):
        cells, samples[name] = judge_sample(counts[rows], metrics.iloc[rows], settings)
        judged.append(cells)
    return pd.concat(judged).loc[metrics.index], samples


def judge_sample(
    counts: sp.csr_matrix, metrics: pd.DataFrame, settings: QCSettings
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Judge the cells of one sample; see `judge_cells`."""
    reasons = apply_limits(metrics, counts.shape[1], settings)
    outliers, note = find_outliers(metrics, ~reasons.any(axis=1).to_numpy(), settings)
    reasons = reasons.join(outliers)
    # Damaged cells blur the neighborhoods that scrublet compares: only the others are searched.
    passed_n = ~reasons.any(axis=1).to_numpy()
    doublets = find_doublets(counts[passed_n], settings)
    reasons["doublet"] = scatter(doublets.called_n, passed_n)
    cells = metrics.assign(
        **{
            DOUBLET_SCORE: scatter(doublets.score_n.astype(np.float32), passed_n),
            KEEP: ~reasons.any(axis=1),
            REASON: join_reasons(reasons),
        }
    )
    notes = [one for one in (note, doublets.note) if one]
    return cells, {"doublet_threshold": doublets.threshold, "note": "; ".join(notes)}


def scatter(value_m: np.ndarray, chosen_n: np.ndarray) -> np.ndarray:
    """Values of the chosen cells at their places (n,); 0 or False elsewhere."""
    value_n = np.zeros(len(chosen_n), dtype=value_m.dtype)
    value_n[chosen_n] = value_m
    return value_n


def join_reasons(reasons: pd.DataFrame) -> pd.Series:
    """The names of the true columns of each row, joined by ";"."""
    texts = np.full(len(reasons), "", dtype=object)
    for name in reasons:
        texts[reasons[name]] += f"{name};"
    return pd.Series(texts, index=reasons.index).str.removesuffix(";")
