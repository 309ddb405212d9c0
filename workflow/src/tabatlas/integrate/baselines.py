"""Embeddings that ours is held against: no integration, Harmony, chance."""

import anndata as ad
import harmonypy
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from tabatlas.counts import log1p_cp10k

N_COMPONENTS = 30
N_GENES = 2000  # variable ones, as in scib
LEAST_CELLS = 10  # of a batch that takes part in their choice


def embed_pca(
    counts: sp.csr_matrix,
    total_n: np.ndarray,
    shared_g: np.ndarray,
    batch_n: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Principal components of log1p(CP10k) of variable genes (n, d): nothing integrated.

    Only genes that every dataset measured (`shared_g`) take part: in the others a missing value
    would look like a zero, and PCA would find the datasets. Genes are ranked within batches
    (`scanpy.pp.highly_variable_genes`, flavor "seurat").
    """
    x_ng = log1p_cp10k(counts, total_n)[:, np.flatnonzero(shared_g)]
    x_ng = x_ng[:, rank_variable_genes(x_ng, batch_n)]
    n_components = min(N_COMPONENTS, min(x_ng.shape) - 1)
    with threadpool_limits(1):  # the bits of BLAS depend on its number of threads
        pca = PCA(n_components, svd_solver="arpack", random_state=seed)
        return pca.fit_transform(x_ng).astype(np.float32)


def rank_variable_genes(x_ng: sp.csr_matrix, batch_n: np.ndarray) -> np.ndarray:
    """Positions of the genes that vary most within batches, ascending."""
    if x_ng.shape[1] <= N_GENES:
        return np.arange(x_ng.shape[1])
    # A batch of a few cells has no dispersion to rank by.
    size_n = pd.Series(batch_n).map(pd.Series(batch_n).value_counts()).to_numpy()
    rows = np.flatnonzero(size_n >= min(LEAST_CELLS, size_n.max()))
    obs = pd.DataFrame({"batch": pd.Categorical(batch_n[rows])}, index=rows.astype(str))
    adata = ad.AnnData(X=x_ng[rows], obs=obs)
    sc.pp.highly_variable_genes(adata, n_top_genes=N_GENES, flavor="seurat", batch_key="batch")
    return np.flatnonzero(adata.var["highly_variable"].to_numpy())


def correct_harmony(x_nd: np.ndarray, batch_n: np.ndarray, seed: int) -> np.ndarray:
    """An embedding corrected by Harmony (Korsunsky et al. 2019) with its defaults (n, d)."""
    batches = pd.DataFrame({"batch": batch_n})
    # Given cells × d, harmonypy guesses which axis is which; d × cells it takes as it is.
    found = harmonypy.run_harmony(
        x_nd.T, batches, "batch", random_state=seed, ncores=1, verbose=False
    )
    corrected_nd = np.asarray(found.Z_corr, dtype=np.float32)
    assert corrected_nd.shape == x_nd.shape  # harmonypy before 1.0 gives d × cells
    return corrected_nd


def draw_random(n_cells: int, n_columns: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal values (n, d): batches mixed by chance, and no biology."""
    return rng.standard_normal((n_cells, n_columns)).astype(np.float32)
