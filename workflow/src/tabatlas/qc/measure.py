"""Measure every cell as scanpy does: detected genes, counts, share of mitochondrial counts."""

from collections.abc import Iterable

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

from tabatlas.names import FEATURE_NAME, N_GENES, PCT_MT, TOTAL_COUNTS


def measure_cells(axes: ad.AnnData, blocks: Iterable[tuple[int, sp.csr_matrix]]) -> pd.DataFrame:
    """Metrics (n, 3) by obs_id: detected genes, counts, percentage of mitochondrial counts.

    `blocks` are the counts of the cells of `axes`, with the number of their first row. The
    percentage is 0 in an empty cell and where the file holds no mitochondrial gene.
    """
    genes = pd.DataFrame({"mt": find_mitochondrial(axes.var)}, index=axes.var_names)
    cells = axes.obs[[]]
    return pd.concat(
        measure_block(counts, cells.iloc[start : start + counts.shape[0]], genes)
        for start, counts in blocks
    )


def measure_block(counts: sp.csr_matrix, cells: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """The metrics of some cells; `mt` of the genes says which are mitochondrial."""
    measured, _ = sc.pp.calculate_qc_metrics(
        ad.AnnData(X=counts, obs=cells, var=genes), qc_vars=["mt"], percent_top=None, log1p=False
    )
    kinds = {N_GENES: np.int32, TOTAL_COUNTS: np.float32, PCT_MT: np.float32}
    return measured[list(kinds)].fillna(0).astype(kinds)


def find_mitochondrial(var: pd.DataFrame) -> np.ndarray:
    """Mask (g,) of mitochondrial genes by symbol: `MT-` in the human, `mt-` in the mouse table."""
    return var[FEATURE_NAME].astype(str).str.upper().str.startswith("MT-").to_numpy()
