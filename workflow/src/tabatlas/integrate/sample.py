"""Which cells an integration is scored on: labeled ones, rare types and small batches in full."""

from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.scores import baselines


def sample_cells(cells: pd.DataFrame, max_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of at most `max_cells` labeled cells, ascending.

    Every (batch, type) keeps all its cells until the larger ones have been thinned to its size. A
    type that one batch alone has stays too: it must not be mixed away, which the scores see.
    `cells` has the columns `batch`, whose names hold over all datasets, and `cell_type`.
    """
    rows = np.flatnonzero(is_labeled(cells))
    kept = cells.iloc[rows]
    group_n = kept.groupby([names.BATCH, names.CELL_TYPE], observed=True).ngroup().to_numpy()
    return rows[baselines.sample_cells(group_n, max_cells, rng)]


def count_left_out(cells: pd.DataFrame, rows: np.ndarray) -> dict[str, int]:
    """How many of the atlas's cells are not among the `rows` that are scored, by reason."""
    n_labeled = int(is_labeled(cells).sum())
    return {"unlabeled": len(cells) - n_labeled, "not_sampled": n_labeled - len(rows)}


def is_labeled(cells: pd.DataFrame) -> np.ndarray:
    """Which cells have a cell type (n,) bool."""
    return (cells[names.CELL_TYPE].astype(str) != names.UNKNOWN).to_numpy()


def describe_cells(batch_n: np.ndarray, label_n: np.ndarray) -> dict[str, Any]:
    """Numbers of cells, batches and types, and of the types that one batch alone has."""
    pairs = pd.DataFrame({"batch": batch_n, "label": label_n}).drop_duplicates()
    n_batches = pairs["label"].value_counts()
    return {
        "n_cells": len(batch_n),
        "n_batches": pairs["batch"].nunique(),
        "n_types": len(n_batches),
        "n_single_batch_types": int((n_batches == 1).sum()),
    }
