"""Bring the counts of a file onto the atlas's genes."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.counts import check_counts
from tabatlas.errors import GeneMismatchError


def align_genes(
    counts: sp.csr_matrix, feature_ids: pd.Series, genes: pd.Index, place: str
) -> sp.csr_matrix:
    """Counts (n, file's genes) as canonical CSR int32 (n, atlas's genes), in the atlas's order.

    `feature_ids` are those of the file's genes, "" where unknown: several columns of one id are
    summed, ids outside the atlas are left out. Raises `GeneMismatchError` where all are, and
    `CountsError` for a sum beyond the range of a count.
    """
    column = genes.get_indexer(feature_ids)
    known = np.flatnonzero(column >= 0)
    if not len(known):
        raise GeneMismatchError(
            f"{place}: none of its {len(column)} genes (first: {feature_ids.index[0]}) is one of "
            f"the {len(genes)} of the atlas (first: {genes[0]}). "
            "Check `organism` and `gene_id` of the dataset, and `normalize.genes`."
        )
    entries = (np.ones(len(known), dtype=np.int64), (known, column[known]))
    selection = sp.csr_matrix(entries, shape=(len(column), len(genes)))
    aligned = counts.astype(np.int64) @ selection
    aligned.sort_indices()
    check_counts(aligned, f"{place}: X, columns of one gene summed,")
    return aligned.astype(np.int32)


def find_lost(feature_ids: pd.Series, genes: pd.Index) -> np.ndarray:
    """Mask (file's genes) of those that are no gene of the atlas."""
    return ~feature_ids.isin(genes).to_numpy()
