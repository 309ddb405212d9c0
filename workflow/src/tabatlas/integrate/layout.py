"""A picture of the cells before and after integration: two dimensions by UMAP."""

import numpy as np
import pandas as pd
import umap
from threadpoolctl import threadpool_limits

from tabatlas import names

MOST_CELLS = 1500
N_EPOCHS = 200
DIGITS = 3
LEAST_CELLS = 16  # one more than UMAP's neighbors


def lay_out_cells(
    cells: pd.DataFrame, before_nd: np.ndarray, after_nd: np.ndarray, seed: int
) -> pd.DataFrame:
    """Places of at most 1,500 cells in UMAPs of two embeddings, with batch and type.

    For the eye only: nothing is scored on a UMAP. Fewer cells than UMAP has neighbors give none.
    """
    rng = np.random.default_rng([seed, 3])
    rows = np.sort(rng.permutation(len(cells))[:MOST_CELLS])
    rows = rows if len(rows) >= LEAST_CELLS else rows[:0]
    table = pd.DataFrame(
        {
            names.JOINID: cells[names.JOINID].to_numpy()[rows],
            names.BATCH: cells[names.BATCH].astype(str).to_numpy(dtype=object)[rows],
            names.CELL_TYPE: cells[names.CELL_TYPE].astype(str).to_numpy(dtype=object)[rows],
        }
    )
    for side, x_nd in (("before", before_nd), ("after", after_nd)):
        place_n2 = flatten(x_nd[rows], seed)
        table[f"{side}_x"], table[f"{side}_y"] = place_n2.T
    return table


def flatten(x_nd: np.ndarray, seed: int) -> np.ndarray:
    """An embedding in two dimensions (n, 2)."""
    if not len(x_nd):
        return np.empty((0, 2))
    with threadpool_limits(1):
        reducer = umap.UMAP(n_epochs=N_EPOCHS, random_state=seed, n_jobs=1)
        return reducer.fit_transform(x_nd).astype(float).round(DIGITS)
