"""Which cells an integration is scored on: labelled ones, rare types and small batches in full."""

from typing import Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.scores import baselines


def sample_cells(cells: pd.DataFrame, max_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of at most `max_cells` labelled cells, ascending.

    Every (batch, type) keeps all its cells until the larger ones have been thinned to its size. A
    type that one batch alone has stays too: it must not be mixed away, which the scores see.
    `cells` has the columns `dataset_id`, `batch` and `cell_type`.
    """
    rows = np.flatnonzero(is_labelled(cells))
    kept = cells.iloc[rows]
    groups = pd.DataFrame({"batch": name_batches(kept), "label": kept[names.CELL_TYPE].astype(str)})
    group_n = groups.groupby(["batch", "label"]).ngroup().to_numpy()
    return rows[baselines.sample_cells(group_n, max_cells, rng)]


def count_left_out(cells: pd.DataFrame, rows: np.ndarray) -> dict[str, int]:
    """How many of the atlas's cells are not among the `rows` that are scored, by reason."""
    n_labelled = int(is_labelled(cells).sum())
    return {"unlabelled": len(cells) - n_labelled, "not_sampled": n_labelled - len(rows)}


def is_labelled(cells: pd.DataFrame) -> np.ndarray:
    """Which cells have a cell type (n,) bool."""
    return (cells[names.CELL_TYPE].astype(str) != names.UNKNOWN).to_numpy()


def name_batches(cells: pd.DataFrame) -> np.ndarray:
    """The batch of every cell, after its dataset where two datasets use one name (n,) str."""
    batch_n, dataset_n = cells[names.BATCH].astype(str), cells[names.DATASET_ID].astype(str)
    shared = (dataset_n.groupby(batch_n).nunique() > 1).any()
    return (dataset_n + "/" + batch_n if shared else batch_n).to_numpy(dtype=object)


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
