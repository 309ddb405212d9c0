"""Choose the training genes and compute their statistics over training cells only."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names
from tabatlas.counts import log1p_cp10k
from tabatlas.errors import GeneMismatchError
from tabatlas.genes import read_gene_list
from tabatlas.pack.settings import PackSettings


class GeneMoments:
    """Running sums of log1p(CP10k) per gene, over the cells in which the gene was measured."""

    def __init__(self, n_genes: int) -> None:
        self.n_measured = np.zeros(n_genes, dtype=np.int64)
        self.total = np.zeros(n_genes)
        self.total_square = np.zeros(n_genes)

    def add(self, counts: sp.csr_matrix, total_n: np.ndarray, measured_ng: np.ndarray) -> None:
        """Take in cells (n, g); `measured_ng` has one row per cell or broadcasts to it."""
        values = log1p_cp10k(counts, total_n).astype(np.float64)
        self.n_measured += measured_ng.sum(axis=0, dtype=np.int64)
        self.total += np.asarray(values.sum(axis=0)).ravel()
        self.total_square += np.asarray(values.multiply(values).sum(axis=0)).ravel()

    def describe(self) -> pd.DataFrame:
        """Columns `mean`, `sd` (float32) and `n_measured`; 0 for a gene never measured."""
        n = np.maximum(self.n_measured, 1)
        mean = self.total / n
        variance = np.maximum(self.total_square / n - mean**2, 0)
        return pd.DataFrame(
            {
                "mean": mean.astype(np.float32),
                "sd": np.sqrt(variance).astype(np.float32),
                "n_measured": self.n_measured,
            }
        )


def choose_genes(
    settings: PackSettings, atlas: pd.Index, measured: np.ndarray, organism: str
) -> np.ndarray:
    """Positions of the training genes among the atlas's genes, in the atlas's order.

    `measured` (g,) says which genes any dataset with training cells measured. With `hvg` all
    measured genes are candidates; see `pack.variable`.
    """
    if settings.genes in ("all", "hvg"):
        chosen = np.flatnonzero(measured)
    else:
        wanted = read_gene_list(Path(settings.genes), organism)
        positions = atlas.get_indexer(wanted)
        for place in np.flatnonzero(positions < 0)[:1]:
            raise GeneMismatchError(
                f"pack.genes: {settings.genes}: {wanted[place]} is no gene of the atlas. "
                "Take it out, or put it into normalize.genes."
            )
        chosen = np.sort(positions[measured[positions]])
    if not len(chosen):
        raise GeneMismatchError(f"pack.genes: {settings.genes}: no dataset measured any of them.")
    if len(chosen) > np.iinfo(np.uint16).max:
        raise GeneMismatchError(
            f"pack.genes: {len(chosen)} genes; at most {np.iinfo(np.uint16).max} fit a pack. "
            "Give a list or use `hvg`."
        )
    return chosen


def describe_genes(var: pd.DataFrame, moments: GeneMoments) -> pd.DataFrame:
    """The table `genes.parquet`: id, name, mean, sd, n_measured."""
    described = moments.describe()
    described.insert(0, names.FEATURE_ID, var[names.FEATURE_ID].to_numpy())
    described.insert(1, names.FEATURE_NAME, var[names.FEATURE_NAME].to_numpy())
    return described
