"""The stage: counts of the atlas's genes, size factors as scanpy's, what was lost."""

import json
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

from tabatlas import blocks, names
from tabatlas.counts import log1p_cp10k, read_counts, write_h5ad
from tabatlas.errors import CountsError, GeneMismatchError
from tabatlas.genes import load_gene_table
from tabatlas.normalize.digests import CountsDigest, digest_cells, digest_genes
from tabatlas.normalize.stage import run
from tabatlas.provenance import digest_file, read_json

HUMAN = "Homo sapiens"
TABLE = load_gene_table(HUMAN)
CODING = TABLE.index[TABLE[names.FEATURE_TYPE] == names.PROTEIN_CODING]
NON_CODING = TABLE.index[TABLE[names.FEATURE_TYPE] == "lncRNA"]


def write_cells(
    path: Path, feature_ids: Sequence[str], counts: np.ndarray, organism: str = HUMAN
) -> Path:
    """Write counts as `qc` does."""
    obs = pd.DataFrame(
        {names.DATASET_ID: "set1", names.CELL_TYPE: names.UNKNOWN, names.DOUBLET_SCORE: 0.0},
        index=pd.Index([f"set1:BC{number}" for number in range(len(counts))], name=names.OBS_ID),
    )
    own = [f"own{number}" for number in range(len(feature_ids))]
    var = pd.DataFrame({names.FEATURE_ID: list(feature_ids), names.FEATURE_NAME: own}, index=own)
    matrix = sp.csr_matrix(counts, dtype=np.float32)
    write_h5ad(ad.AnnData(matrix, obs, var, uns={names.ORGANISM: organism}), path)
    return path


def run_normalize(cells: Path, folder: Path, **settings: object) -> tuple[ad.AnnData, dict]:
    """Run the stage; return what it wrote."""
    folder.mkdir()
    (folder / "normalize.json").write_text(json.dumps(settings))
    run(cells, folder / "normalize.json", folder / "set1.h5ad", folder / "set1.json")
    return ad.read_h5ad(folder / "set1.h5ad"), read_json(folder / "set1.json")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """30 cells, the last without a coding count: 50 coding genes, 1 of them twice, 9 others."""
    counts = np.random.default_rng(0).poisson(2.0, (30, 60))
    counts[-1, :51] = 0
    feature_ids = [*CODING[100:150][::-1], CODING[120], *NON_CODING[:6], "", "", ""]
    return write_cells(tmp_path / "qc" / "set1.h5ad", feature_ids, counts)


def test_the_columns_are_all_coding_genes_in_the_order_of_the_table(cells, tmp_path):
    adata, facts = run_normalize(cells, tmp_path / "out")
    assert adata.var_names.equals(CODING)
    assert adata.var_names.name == names.FEATURE_ID
    assert (
        adata.var[names.FEATURE_NAME].astype(str).tolist()
        == TABLE.loc[CODING, names.FEATURE_NAME].tolist()
    )
    assert facts["n_genes"] == len(CODING)
    assert facts["genes_digest"] == digest_genes(CODING)


def test_each_count_stands_at_its_cell_and_gene(cells, tmp_path):
    adata, _ = run_normalize(cells, tmp_path / "out")
    source = read_counts(cells)
    assert adata.X.dtype == np.int32
    assert adata.obs_names.equals(source.obs_names)
    by_gene = source.to_df().T.groupby(source.var[names.FEATURE_ID].astype(str)).sum().T
    measured = adata.var_names[adata.var[names.MEASURED]]
    assert measured.tolist() == CODING[100:150].tolist()
    np.testing.assert_array_equal(adata[:, measured].X.toarray(), by_gene[measured])
    assert adata.X.nnz == adata[:, measured].X.nnz


def test_a_gene_is_measured_even_if_no_cell_shows_it(tmp_path):
    counts = np.array([[1, 0], [1, 0]])
    cells = write_cells(tmp_path / "a.h5ad", CODING[:2], counts)
    adata, facts = run_normalize(cells, tmp_path / "out")
    assert adata.var[names.MEASURED].to_numpy()[:3].tolist() == [True, True, False]
    assert facts["n_measured"] == 2


@pytest.mark.filterwarnings("ignore:Some cells have zero counts")
def test_size_factors_and_log_counts_equal_those_of_scanpy(cells, tmp_path):
    adata, _ = run_normalize(cells, tmp_path / "out")
    expected = ad.AnnData(adata.X.astype(np.float32))
    factors = sc.pp.normalize_total(expected, target_sum=1e4, inplace=False)["norm_factor"]
    occupied = adata.obs[names.TOTAL_N].to_numpy() > 0
    ours = adata.obs[names.SIZE_FACTOR].to_numpy()
    np.testing.assert_allclose(ours[occupied], factors[occupied], rtol=1e-6)
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    logs = log1p_cp10k(adata.X, adata.obs[names.TOTAL_N].to_numpy())
    np.testing.assert_allclose(logs.toarray(), expected.X.toarray(), rtol=1e-6)


def test_a_cell_without_a_count_stays_with_size_factor_1_and_is_counted(cells, tmp_path):
    adata, facts = run_normalize(cells, tmp_path / "out")
    assert adata.obs[names.TOTAL_N].iloc[-1] == 0
    assert adata.obs[names.SIZE_FACTOR].iloc[-1] == 1
    assert facts["n_cells"] == 30
    assert facts["n_empty_cells"] == 1


def test_the_facts_state_totals_and_losses(cells, tmp_path):
    adata, facts = run_normalize(cells, tmp_path / "out")
    source = read_counts(cells)
    kept = source.X[:, :51].sum()
    assert facts["dataset_id"] == "set1"
    assert facts["organism"] == HUMAN
    assert facts["total"] == kept == adata.obs[names.TOTAL_N].sum()
    assert facts["n_entries"] == adata.X.nnz
    assert facts["n_lost_genes"] == 9
    assert facts["pct_lost_counts"] == pytest.approx(100 * (1 - kept / source.X.sum()))
    digest = CountsDigest()
    for first in range(0, 30, 7):
        digest.add(adata.X[first : first + 7])
    assert facts["digest"] == digest_cells(adata, digest)


def test_the_size_of_blocks_does_not_change_a_byte(cells, tmp_path, monkeypatch):
    run_normalize(cells, tmp_path / "whole")
    monkeypatch.setattr(blocks, "BLOCK", 100)
    run_normalize(cells, tmp_path / "parts")
    for name in ("set1.h5ad", "set1.json"):
        assert digest_file(tmp_path / "parts" / name) == digest_file(tmp_path / "whole" / name)


def test_a_gene_list_sets_genes_and_order_and_the_total_is_over_its_genes(cells, tmp_path):
    wanted = [CODING[140], CODING[7], CODING[120]]
    (tmp_path / "genes.tsv").write_text("\n".join(wanted))
    adata, facts = run_normalize(cells, tmp_path / "out", genes=str(tmp_path / "genes.tsv"))
    assert adata.var_names.tolist() == wanted
    assert adata.var[names.MEASURED].tolist() == [True, False, True]
    assert (adata.obs[names.TOTAL_N] == adata.X.sum(axis=1).A1).all()
    assert facts["n_lost_genes"] == 60 - 3  # CODING[120] stands there twice


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([CODING[0], "NOGENE1", "NOGENE2"], "`NOGENE1` is no gene of Homo sapiens"),
        ([CODING[0], CODING[1], CODING[0]], f"`{CODING[0]}` .*twice"),
    ],
)
def test_a_gene_list_with_unknown_or_repeated_genes_is_refused(cells, tmp_path, lines, message):
    (tmp_path / "genes.tsv").write_text("\n".join(lines))
    with pytest.raises(GeneMismatchError, match=message):
        run_normalize(cells, tmp_path / "out", genes=str(tmp_path / "genes.tsv"))


def test_the_organism_of_the_source_decides_the_table(tmp_path):
    mouse = load_gene_table("Mus musculus")
    coding = mouse.index[mouse[names.FEATURE_TYPE] == names.PROTEIN_CODING]
    path = write_cells(tmp_path / "a.h5ad", coding[:2], np.ones((3, 2)), "Mus musculus")
    adata, facts = run_normalize(path, tmp_path / "out")
    assert adata.var_names.equals(coding)
    assert facts["organism"] == adata.uns[names.ORGANISM] == "Mus musculus"


def test_genes_of_another_organism_are_refused(tmp_path):
    mouse = load_gene_table("Mus musculus").index[:2]
    cells = write_cells(tmp_path / "a.h5ad", mouse, np.ones((3, 2)))
    with pytest.raises(GeneMismatchError, match="none of its 2 genes"):
        run_normalize(cells, tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "message"),
    [(0.5, "fractions"), (-1.0, "negative"), (np.nan, "NaN"), (3e9, "largest count")],
)
def test_what_is_no_count_is_refused_and_nothing_is_written(tmp_path, value, message):
    counts = np.ones((3, 2))
    counts[1, 1] = value
    cells = write_cells(tmp_path / "a.h5ad", CODING[:2], counts)
    with pytest.raises(CountsError, match=message):
        run_normalize(cells, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["normalize.json"]


def test_two_runs_give_the_same_bytes(cells, tmp_path):
    run_normalize(cells, tmp_path / "first")
    run_normalize(cells, tmp_path / "second")
    for name in ("set1.h5ad", "set1.json"):
        assert digest_file(tmp_path / "first" / name) == digest_file(tmp_path / "second" / name)
