"""Counts: what a sequencer would have counted of cells with given expression."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.simulate.cells import IS_DOUBLET, LIBRARY_SCALE

BLOCK = 1000  # cells whose dense rates are held at once; it takes part in the order of the draws


def draw_counts(
    cells: pd.DataFrame,
    genes: pd.DataFrame,
    effects: dict[str, pd.DataFrame],
    activities: np.ndarray,
    modules: pd.DataFrame,
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """Gamma-Poisson counts (n, g).

    The log rate is the gene's `base`, plus the column of each of `effects` that a cell's value in
    the column of that name chooses, plus `activities` (n, m) × `modules` (g, m); rates are scaled
    to the cell's `library_scale` and vary by the gene's `dispersion`.
    """
    shape = 1 / genes["dispersion"].to_numpy()
    blocks = []
    for start in range(0, len(cells), BLOCK):
        block = cells.iloc[start : start + BLOCK]
        log_rate = (
            genes["base"].to_numpy() + activities[start : start + BLOCK] @ modules.to_numpy().T
        )
        for column, effect in effects.items():
            log_rate += effect.to_numpy().T[effect.columns.get_indexer(block[column])]
        rate = np.exp(log_rate)
        rate *= (block[LIBRARY_SCALE].to_numpy() / rate.sum(axis=1))[:, None]
        rate *= rng.standard_gamma(shape, rate.shape) / shape
        blocks.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    return sp.vstack(blocks, format="csr")


def merge_doublets(
    counts: sp.csr_matrix, cells: pd.DataFrame, rng: np.random.Generator
) -> sp.csr_matrix:
    """Add to each doublet its second cell, the rows after all of `cells`, and thin the sum.

    A droplet's reagents are shared: a doublet has more molecules than a cell, fewer than two.
    """
    n_cells, places = len(cells), np.flatnonzero(cells[IS_DOUBLET])
    n_doublets = len(places)
    chooser = sp.csr_matrix(
        (np.ones(n_doublets, np.float32), (places, np.arange(n_doublets))), (n_cells, n_doublets)
    )
    merged = sp.csr_matrix(counts[:n_cells] + chooser @ counts[n_cells:])
    kept = rng.uniform(0.6, 0.9, n_doublets)
    for place, share in zip(places, kept, strict=True):
        row = slice(merged.indptr[place], merged.indptr[place + 1])
        merged.data[row] = rng.binomial(merged.data[row].astype(np.int64), share)
    merged.eliminate_zeros()
    merged.sort_indices()
    return merged
