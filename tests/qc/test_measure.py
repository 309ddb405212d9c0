"""Metrics of every cell."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from tabatlas.names import FEATURE_NAME, N_GENES, PCT_MT, TOTAL_COUNTS
from tabatlas.qc.measure import measure_cells

COUNTS = np.array([[3, 1, 0, 4], [0, 0, 0, 0], [0, 5, 0, 0]])


def measure(symbols: list[str]) -> pd.DataFrame:
    var = pd.DataFrame({FEATURE_NAME: symbols}, index=list("abcd"))
    axes = ad.AnnData(obs=pd.DataFrame(index=["x", "y", "z"]), var=var)
    counts = sp.csr_matrix(COUNTS, dtype=np.float32)
    return measure_cells(axes, [(0, counts[:2]), (2, counts[2:])])


def test_metrics_are_genes_and_counts_of_each_cell():
    metrics = measure(["MT-ND1", "ACTB", "MT-CO1", "GAPDH"])
    assert metrics[N_GENES].tolist() == [3, 0, 1]
    assert metrics[TOTAL_COUNTS].tolist() == [8, 0, 5]
    assert metrics.index.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("symbols", [["MT-ND1", "MTOR", "a", "b"], ["mt-Nd1", "Mtor", "a", "b"]])
def test_mitochondrial_genes_are_known_by_their_human_and_mouse_symbols(symbols):
    assert measure(symbols)[PCT_MT].tolist() == [37.5, 0, 0]


def test_empty_cells_and_files_without_mitochondrial_genes_have_0_percent():
    assert measure(["ND1", "ACTB", "CO1", "GAPDH"])[PCT_MT].tolist() == [0, 0, 0]
