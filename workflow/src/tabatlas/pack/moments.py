"""Mean and deviation of log1p(CP10k) per gene, over the cells in which it was measured."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.counts import log1p_cp10k
from tabatlas.stream.gather import loop

# Most counts are small: a cell's logarithms of 1 … 32 serve nearly all of its entries.
N_TABLE = 32


class GeneMoments:
    """Running sums per gene; `presence_mg` (datasets, g) says what each dataset measured."""

    def __init__(self, presence_mg: np.ndarray) -> None:
        self.presence_mg = presence_mg
        self.n_cells_m = np.zeros(len(presence_mg), dtype=np.int64)
        self.total_g, self.square_g = np.zeros((2, presence_mg.shape[1]))

    def add(
        self,
        indptr: np.ndarray,
        gene: np.ndarray,
        count: np.ndarray,
        total_n: np.ndarray,
        dataset_n: np.ndarray,
    ) -> None:
        """Take in the rows of n cells, with their totals and datasets (n,)."""
        self.n_cells_m += np.bincount(dataset_n, minlength=len(self.n_cells_m))
        small = np.tile(np.arange(1, N_TABLE + 1), (len(total_n), 1))
        table_nk = log1p_cp10k(sp.csr_matrix(small), total_n).data.reshape(small.shape)
        place = np.flatnonzero(count > N_TABLE)
        large = (count[place], gene[place], np.searchsorted(place, indptr))
        shape = (len(total_n), len(self.total_g))
        large_values = log1p_cp10k(sp.csr_matrix(large, shape=shape), total_n).data
        add_values(indptr, gene, count, table_nk, large_values, self.total_g, self.square_g)

    def describe(self) -> pd.DataFrame:
        """Columns `mean`, `sd` (float32) and `n_measured`; 0 for a gene never measured."""
        n_measured_g = self.n_cells_m @ self.presence_mg
        n_g = np.maximum(n_measured_g, 1)
        mean_g = self.total_g / n_g
        variance_g = np.maximum(self.square_g / n_g - mean_g**2, 0)
        return pd.DataFrame(
            {
                "mean": mean_g.astype(np.float32),
                "sd": np.sqrt(variance_g).astype(np.float32),
                "n_measured": n_measured_g,
            }
        )


@loop
def add_values(indptr, gene, count, table, large, total, square):
    """Add the logarithm of each entry, and its square, to its gene's sums (g,).

    `table` (n, k) holds each cell's logarithms of 1 … k, `large` those of larger counts in turn.
    """
    n_large = 0
    for cell in range(len(table)):
        for i in range(indptr[cell], indptr[cell + 1]):
            if count[i] == 0:  # stored by others
                continue
            if count[i] <= table.shape[1]:
                value = np.float64(table[cell, count[i] - 1])
            else:
                value = np.float64(large[n_large])
                n_large += 1
            total[gene[i]] += value
            square[gene[i]] += value * value
