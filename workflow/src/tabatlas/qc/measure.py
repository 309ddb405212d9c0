"""Measure every cell as scanpy does: detected genes, counts, share of mitochondrial counts."""

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc

from tabatlas.names import FEATURE_NAME, N_GENES, PCT_MT, TOTAL_COUNTS


def measure_cells(adata: ad.AnnData) -> pd.DataFrame:
    """Metrics (n, 3) by obs_id: detected genes, counts, percentage of mitochondrial counts.

    The percentage is 0 in an empty cell and where the file holds no mitochondrial gene.
    """
    genes = pd.DataFrame({"mt": find_mitochondrial(adata.var)}, index=adata.var_names)
    measured, _ = sc.pp.calculate_qc_metrics(
        ad.AnnData(X=adata.X, obs=adata.obs[[]], var=genes),
        qc_vars=["mt"],
        percent_top=None,
        log1p=False,
    )
    kinds = {N_GENES: np.int32, TOTAL_COUNTS: np.float32, PCT_MT: np.float32}
    return measured[list(kinds)].fillna(0).astype(kinds)


def find_mitochondrial(var: pd.DataFrame) -> np.ndarray:
    """Mask (g,) of mitochondrial genes by symbol: `MT-` in the human, `mt-` in the mouse table."""
    return var[FEATURE_NAME].astype(str).str.upper().str.startswith("MT-").to_numpy()
