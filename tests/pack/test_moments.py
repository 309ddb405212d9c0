"""Statistics of the genes are the plain formula's, and those of the packed cells however packed."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from tabatlas.pack import shards
from tabatlas.pack.moments import N_TABLE, GeneMoments
from tabatlas.pack.stage import CONTENT
from tabatlas.provenance import digest_files


def draw_cells(seed: int, n_cells: int, n_genes: int, largest: int) -> sp.csr_matrix:
    """Counts of cells of which some are empty, a part of them up to the largest."""
    rng = np.random.default_rng(seed)
    counts = rng.geometric(0.5, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < 0.4)
    high = rng.random(counts.shape) < 0.05
    counts[high] = rng.integers(1, largest + 1, high.sum())
    counts[rng.random(n_cells) < 0.1] = 0
    return sp.csr_matrix(counts, dtype=np.int32)


def compute_plainly(counts, total_n, dataset_n, presence_mg) -> pd.DataFrame:
    """Mean and deviation of each gene over the cells that measured it, in 64 bits."""
    factor_n = np.where(total_n > 0, total_n / 1e4, 1.0)
    x_ng = np.log1p(counts.toarray() / factor_n[:, None])
    measured_ng = presence_mg[dataset_n]
    rows = []
    for gene in range(counts.shape[1]):
        values = x_ng[measured_ng[:, gene], gene]
        moments = (values.mean(), values.std()) if len(values) else (0.0, 0.0)
        rows.append((*moments, len(values)))
    return pd.DataFrame(rows, columns=["mean", "sd", "n_measured"])


def assert_close(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert found["n_measured"].tolist() == wanted["n_measured"].tolist()
    np.testing.assert_allclose(found["mean"], wanted["mean"], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(found["sd"], wanted["sd"], rtol=2e-5, atol=1e-5)


def measure(counts, total_n, dataset_n, presence_mg, bounds=()) -> pd.DataFrame:
    moments = GeneMoments(presence_mg)
    for rows in np.split(np.arange(counts.shape[0]), bounds):
        own = counts[rows]
        own.eliminate_zeros()  # a pack stores none
        entries = own.indptr, own.indices.astype(np.uint16), own.data.astype(np.uint32)
        moments.add(*entries, total_n[rows], dataset_n[rows])
    return moments.describe()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n_cells=st.integers(0, 60),
    n_genes=st.integers(1, 12),
    largest=st.sampled_from([1, N_TABLE - 1, N_TABLE, N_TABLE + 1, 5000, 1 << 20]),
    n_datasets=st.integers(1, 4),
)
def test_moments_are_the_plain_formulas(seed, n_cells, n_genes, largest, n_datasets):
    rng = np.random.default_rng(seed)
    counts = draw_cells(seed, n_cells, n_genes, largest)
    presence_mg = rng.random((n_datasets, n_genes)) < 0.7
    dataset_n = rng.integers(n_datasets, size=n_cells)
    counts = sp.csr_matrix(counts.multiply(presence_mg[dataset_n]), dtype=np.int32)
    # A panel's total counts more genes than the training genes.
    total_n = counts.sum(axis=1).A1 + rng.integers(0, 2, n_cells) * 100
    wanted = compute_plainly(counts, total_n, dataset_n, presence_mg)
    assert_close(measure(counts, total_n, dataset_n, presence_mg), wanted)
    bounds = np.sort(rng.integers(0, n_cells + 1, 3))
    assert_close(measure(counts, total_n, dataset_n, presence_mg, bounds), wanted)


def test_moments_are_scanpys_where_all_genes_are_measured():
    counts = draw_cells(1, 200, 30, 3000)
    counts = counts[counts.getnnz(axis=1) > 0]
    adata = AnnData(counts.astype(np.float32))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    wanted = pd.DataFrame({"mean": adata.X.toarray().mean(axis=0, dtype=np.float64)})
    wanted["sd"] = adata.X.toarray().std(axis=0, dtype=np.float64)
    wanted["n_measured"] = n_cells = counts.shape[0]
    one_dataset = np.zeros(n_cells, np.int64), np.ones((1, 30), dtype=bool)
    assert_close(measure(counts, counts.sum(axis=1).A1, *one_dataset), wanted)


def test_a_count_at_the_tables_end_is_as_exact_as_one_beyond_it():
    for count in (1, N_TABLE - 1, N_TABLE, N_TABLE + 1, N_TABLE + 2):
        counts = sp.csr_matrix(np.array([[count, 0], [0, 1]], dtype=np.int32))
        found = measure(counts, np.array([100, 100]), np.zeros(2, int), np.ones((1, 2), bool))
        assert found["mean"][0] == pytest.approx(np.log1p(count * 100.0) / 2, rel=1e-6)


def test_a_gene_that_no_dataset_measured_is_zero_of_no_cell():
    counts = draw_cells(0, 20, 3, 9)
    counts = sp.csr_matrix(counts.multiply([1, 0, 1]), dtype=np.int32)
    presence_mg = np.array([[True, False, True]])
    found = measure(counts, counts.sum(axis=1).A1, np.zeros(20, np.int64), presence_mg)
    assert found.iloc[1].tolist() == [0, 0, 0]


def test_windows_of_few_cells_change_no_file(copied, monkeypatch):
    before, windows, spill = digest_files(copied.packed), [], shards.spill_window

    def count(held, *to):
        windows.append(len(held.joinid))
        spill(held, *to)

    monkeypatch.setattr(shards, "spill_window", count)
    monkeypatch.setattr(shards, "ENTRY_MEMORY", 1 << 15)
    (copied.packed / CONTENT).unlink()
    copied.run_pack(shard_cells=50, memory_bytes=1 << 21)
    assert max(windows) < 4
    assert sum(windows) == 195
    assert digest_files(copied.packed) == before


@pytest.mark.parametrize("shard_cells", [1, 7, 150, 151])
def test_shards_of_any_size_hold_the_same_cells_and_statistics(copied, shard_cells):
    (source, before), validation = copied.read_packed(), copied.read_packed("validation")[1]
    genes = source.genes
    copied.run_pack(shard_cells=shard_cells)
    source, after = copied.read_packed()
    for one, other in ((before, after), (validation, copied.read_packed("validation")[1])):
        for name in ("indptr", "gene", "count", "joinid", "total_n", "dataset"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert_close(source.genes, genes)
    n_shards = len(list((copied.packed / "train").glob("*.gene")))
    assert n_shards == -(-len(source) // shard_cells)
