"""Counts of six cell types, as a source h5ad."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tabatlas import names
from tabatlas.counts import write_h5ad

N_GENES, N_MITOCHONDRIAL, N_TYPES = 300, 10, 6


@pytest.fixture
def draw_cells() -> Callable[..., np.ndarray]:
    """Draw counts (n, 300) of six types in turn: 50 genes each, twenty times as high in one."""

    def draw(n_cells: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        type_n, type_g = np.arange(n_cells) % N_TYPES, np.arange(N_GENES) * N_TYPES // N_GENES
        mean_ng = np.where(type_n[:, None] == type_g, 6.0, 0.3)
        mean_ng[:, :N_MITOCHONDRIAL] = 0.3
        return rng.poisson(mean_ng * rng.lognormal(0, 0.2, (n_cells, 1)))

    return draw


@pytest.fixture
def write_source(tmp_path: Path) -> Callable[..., Path]:
    """Write counts as a source h5ad, its first genes mitochondrial; return its path."""

    def write(
        counts: np.ndarray,
        batch: list[str] | str = "lane1",
        name: str = "set1",
        n_mitochondrial: int = N_MITOCHONDRIAL,
    ) -> Path:
        n_cells, n_genes = counts.shape
        barcodes = [f"BC{number}" for number in range(n_cells)]
        obs = pd.DataFrame(
            {names.DATASET_ID: name, names.BATCH: batch, names.CELL_TYPE: names.UNKNOWN},
            index=pd.Index([f"{name}:{one}" for one in barcodes], name=names.OBS_ID),
            dtype="category",
        )
        prefixes = ["MT-"] * n_mitochondrial + ["GENE"] * n_genes
        symbols = [f"{prefixes[gene]}{gene}" for gene in range(n_genes)]
        var = pd.DataFrame(
            {names.FEATURE_ID: "", names.FEATURE_NAME: symbols, names.FEATURE_TYPE: ""},
            index=symbols,
        )
        matrix = sp.csr_matrix(counts, dtype=np.float32)
        path = tmp_path / "fetch" / f"{name}.h5ad"
        write_h5ad(ad.AnnData(matrix, obs, var, uns={names.ORGANISM: "Homo sapiens"}), path)
        return path

    return write
