"""Find cells that stand in two datasets: equal barcode and near-equal counts."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names

# The sequence alone: `AAACATACAACCAC-1`, `ctrl_AAACATACAACCAC.1` are one barcode.
SEQUENCE = re.compile(r"[ACGT]{10,}")
NEAR = 0.1  # two files of one cell differ by the aligner's version; two cells by most counts


def pair_barcodes(obs: pd.DataFrame) -> np.ndarray:
    """Row pairs (m, 2), first < second, with one barcode sequence in two datasets."""
    sequence = obs[names.BARCODE].astype(str).str.extract(f"({SEQUENCE.pattern})", expand=False)
    frame = pd.DataFrame(
        {
            "sequence": sequence.to_numpy(),
            "dataset": obs[names.DATASET_ID].astype(str).to_numpy(),
            "row": np.arange(len(obs)),
        }
    ).dropna()
    # Only sequences of several datasets: the join of all others would be wasted work.
    several = frame.groupby("sequence")["dataset"].transform("nunique") > 1
    frame = frame[several]
    pairs = frame.merge(frame, on="sequence")
    pairs = pairs[(pairs["row_x"] < pairs["row_y"]) & (pairs["dataset_x"] != pairs["dataset_y"])]
    return pairs[["row_x", "row_y"]].to_numpy(dtype=np.int64)


def confirm_pairs(
    pairs: np.ndarray,
    read_rows: Callable[[np.ndarray], sp.csr_matrix],
    shared_genes: Callable[[int, int], np.ndarray],
) -> np.ndarray:
    """The pairs whose counts differ by less than a tenth over the genes both datasets measured.

    `read_rows(rows)` gives their counts (len(rows), genes), `shared_genes(a, b)` a mask (genes,).
    """
    if not len(pairs):
        return pairs
    rows, places = np.unique(pairs, return_inverse=True)
    counts = read_rows(rows)
    places = places.reshape(pairs.shape)
    same = np.zeros(len(pairs), dtype=bool)
    for number, (first, second) in enumerate(pairs):
        shared = shared_genes(first, second)
        a = counts[places[number, 0]].toarray()[0, shared].astype(np.float64)
        b = counts[places[number, 1]].toarray()[0, shared].astype(np.float64)
        total = a.sum() + b.sum()
        same[number] = total > 0 and np.abs(a - b).sum() < NEAR * total
    return pairs[same]


def put_best_first(
    pairs: np.ndarray, obs: pd.DataFrame, n_measured_n: np.ndarray, held_out: Sequence[str]
) -> np.ndarray:
    """The pairs (m, 2) with the copy that is kept first.

    That is the one of a held-out dataset, which is there to be tested; else the labeled one; else
    the one with more measured genes; else the first.
    """
    held_out_n = obs[names.DATASET_ID].astype(str).isin(held_out).to_numpy()
    labeled_n = (obs[names.CELL_TYPE].astype(str) != names.UNKNOWN).to_numpy()
    order = np.lexsort((-np.arange(len(obs)), n_measured_n, labeled_n, held_out_n))
    rank_n = np.empty(len(obs), dtype=np.int64)
    rank_n[order] = np.arange(len(obs))
    return np.take_along_axis(pairs, np.argsort(-rank_n[pairs], axis=1), axis=1)
