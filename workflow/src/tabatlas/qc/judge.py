"""Judge every cell within its sample, and write down every reason against it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tabatlas.names import DOUBLET_SCORE, KEEP, N_GENES, REASON
from tabatlas.qc.outliers import apply_limits, find_outliers
from tabatlas.qc.samples import search_samples
from tabatlas.qc.settings import QCSettings


def judge_cells(
    path: Path, n_genes: int, metrics: pd.DataFrame, batch: pd.Series, settings: QCSettings
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Judge the cells of a file with `n_genes`; `metrics` and `batch` are indexed by obs_id.

    Returns the metrics with `doublet_score`, `keep` and `reason`, and for each sample the
    `doublet_threshold` and a `note` on what could not be judged.
    """
    reasons = apply_limits(metrics, n_genes, settings)
    rows_by_sample = batch.groupby(batch, observed=True).indices
    outliers, notes = [], {}
    for name, row_m in rows_by_sample.items():
        within_m = ~reasons.iloc[row_m].any(axis=1).to_numpy()
        found, notes[name] = find_outliers(metrics.iloc[row_m], within_m, settings)
        outliers.append(found)
    reasons = reasons.join(pd.concat(outliers))
    # Damaged cells blur the neighborhoods that scrublet compares: only the others are searched.
    passed_n = ~reasons.any(axis=1).to_numpy()
    passed = {name: row_m[passed_n[row_m]] for name, row_m in rows_by_sample.items()}
    score_n, called_n = np.zeros(len(metrics), np.float32), np.zeros(len(metrics), bool)
    samples = {}
    for name, doublets in search_samples(path, passed, metrics[N_GENES].to_numpy(), settings):
        score_n[passed[name]], called_n[passed[name]] = doublets.score_n, doublets.called_n
        said = "; ".join(note for note in (notes[name], doublets.note) if note)
        samples[name] = {"doublet_threshold": doublets.threshold, "note": said}
    reasons["doublet"] = called_n
    keep_n = ~reasons.any(axis=1)
    verdict = {DOUBLET_SCORE: score_n, KEEP: keep_n, REASON: join_reasons(reasons)}
    return metrics.assign(**verdict), samples


def join_reasons(reasons: pd.DataFrame) -> pd.Series:
    """The names of the true columns of each row, joined by ";"."""
    texts = np.full(len(reasons), "", dtype=object)
    for name in reasons:
        texts[reasons[name]] += f"{name};"
    return pd.Series(texts, index=reasons.index).str.removesuffix(";")
