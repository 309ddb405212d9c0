"""Labels and embedding of a query in memory."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from query_files import make_query

from tabatlas import names
from tabatlas.annotate import Model
from tabatlas.errors import CountsError, GeneMismatchError, InputError, UsageError
from tabatlas.genes import load_gene_table

COLUMNS = [
    f"tabatlas_{name}"
    for name in ("label", "ontology_term_id", "confidence", "label_unfiltered", "status")
]


def assert_same(found: ad.AnnData, expected: ad.AnnData) -> None:
    """Equal annotation, cell by cell."""
    pd.testing.assert_frame_equal(
        found.obs[COLUMNS].reset_index(drop=True),
        expected.obs[COLUMNS].reset_index(drop=True),
        check_categorical=False,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        found.obsm["X_tabatlas"], expected.obsm["X_tabatlas"], rtol=1e-4, atol=1e-5
    )


def test_columns_are_added_and_all_else_is_kept(model, query):
    before = query.copy()
    found = model.annotate(query)
    assert found is query
    assert list(found.obs) == ["donor", "score", *COLUMNS]
    assert found.obsm["X_tabatlas"].shape == (query.n_obs, 3)
    pd.testing.assert_frame_equal(found.obs[["donor", "score"]], before.obs)
    pd.testing.assert_frame_equal(found.var, before.var)
    assert (found.X != before.X).nnz == 0
    about = found.uns["tabatlas"]
    assert about["model"] == model.bundle.title
    assert (about["counts"], about["n_genes_found"], about["n_genes"]) == ("X", 60, 60)


@pytest.mark.parametrize("dataset_id", ["a", "b"])
def test_a_dataset_of_the_atlas_gets_what_the_pipeline_gave_it(model, models, atlas, dataset_id):
    """Dataset b lacks three genes: absent from the query, they are missing as in the atlas."""
    found = model.annotate(make_query(atlas, dataset_id))
    tested = pd.read_parquet(models / "finetune" / "predictions.parquet").set_index(names.OBS_ID)
    tested = tested[tested.index.str.startswith(f"{dataset_id}:")]
    assert len(tested)
    own = found.obs.loc[tested.index]
    assert (own["tabatlas_label_unfiltered"].astype(str) == tested["predicted"]).all()
    np.testing.assert_allclose(own["tabatlas_confidence"], tested["confidence"], rtol=1e-4)
    embedded = pd.read_parquet(models / "integrate" / "embedding.parquet").set_index(names.OBS_ID)
    np.testing.assert_allclose(
        found.obsm["X_tabatlas"],
        embedded.loc[found.obs_names, ["z0", "z1", "z2"]],
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_gene_that_is_absent_is_missing_and_not_zero(model, query):
    absent = query[:, 20:].copy()
    zero = query.copy()
    zero.X = zero.X @ sp.diags((np.arange(60) >= 20).astype(np.float32), format="csr")
    places = [model.annotate(one).obsm["X_tabatlas"] for one in (absent, zero)]
    assert not np.allclose(*places)
    assert absent.uns["tabatlas"]["n_genes_found"] == 40


def to_layer(adata):
    counts, adata.X = adata.X, sp.csr_matrix(np.log1p(adata.X.toarray()))
    adata.layers["counts"] = counts
    return adata


def to_raw(adata):
    raw = adata.copy()
    adata = adata[:, :30].copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.raw = raw
    return adata


def by_symbol(adata):
    adata.var_names = adata.var.pop("symbol").astype(str).to_numpy()
    return adata


def of_version(adata):
    adata.var_names = adata.var_names + ".7"
    return adata


def shuffle_genes(adata):
    return adata[:, np.random.default_rng(0).permutation(adata.n_vars)].copy()


def split_gene(adata):
    """Each count of the first gene in two columns of one id."""
    first = adata[:, :1].copy()
    counts, half = adata.X.toarray(), np.ceil(first.X.toarray() / 2)
    counts[:, :1] -= half
    adata.X, first.X = sp.csr_matrix(counts), sp.csr_matrix(half)
    first.var_names = [f"{first.var_names[0]}.1"]
    return ad.concat([adata, first], axis=1, merge="first")


def with_antibodies(adata):
    types = np.full(adata.n_vars, "Gene Expression")
    protein = ad.AnnData(
        np.full((adata.n_obs, 2), 7.0), adata.obs, pd.DataFrame(index=["p1", "p2"])
    )
    adata.var["feature_types"], protein.var["feature_types"] = types, "Antibody Capture"
    return ad.concat([adata, protein], axis=1, merge="first")


def by_columns(adata):
    adata.X = adata.X.tocsc()
    return adata


def to_dense(adata):
    adata.X = adata.X.toarray()
    return adata


def to_integers(adata):
    adata.X = adata.X.astype(np.int64)
    return adata


@pytest.mark.parametrize(
    "change",
    [
        to_layer,
        to_raw,
        by_symbol,
        of_version,
        shuffle_genes,
        split_gene,
        with_antibodies,
        by_columns,
        to_dense,
        to_integers,
    ],
)
def test_the_same_cells_get_the_same_annotation_however_they_are_stored(
    model, query, expected, change
):
    assert_same(model.annotate(change(query)), expected)


def test_a_backed_query_is_read_from_its_file(model, query, expected, tmp_path):
    query.write_h5ad(tmp_path / "query.h5ad")
    assert_same(model.annotate(ad.read_h5ad(tmp_path / "query.h5ad", backed="r")), expected)


def test_blocks_change_nothing(model, query, expected, monkeypatch):
    monkeypatch.setattr("tabatlas.annotate.model.N_ROWS", 7)
    assert_same(model.annotate(query), expected)


def test_one_cell_is_enough(model, query, expected):
    assert_same(model.annotate(query[:1].copy()), expected[:1])


def test_a_cell_without_counts_has_no_label(model, query):
    query.X = sp.diags((np.arange(120) != 3).astype(np.float32), format="csr") @ query.X
    cell = model.annotate(query).obs.iloc[3]
    assert (cell["tabatlas_status"], cell["tabatlas_label"]) == ("low_quality", "unknown")
    assert cell["tabatlas_ontology_term_id"] == "unknown"
    assert cell["tabatlas_label_unfiltered"].startswith("type")


def test_a_layer_can_be_named(model, query, expected):
    query.layers["ambient"], query.layers["counts"] = query.X, query.X * 2
    found = model.annotate(query, layer="ambient")
    assert_same(found, expected)
    assert found.uns["tabatlas"]["counts"] == "layers/ambient"
    with pytest.raises(CountsError, match="`nope` is not in the file; it has X, layers/ambient"):
        model.annotate(query, layer="nope")


def rename(adata):
    adata.var_names = [f"gene{number}" for number in range(adata.n_vars)]
    del adata.var["symbol"]
    return adata


def halve(adata):
    adata.X = adata.X * 0.5
    return adata


def as_mouse(adata):
    adata.var_names = load_gene_table("Mus musculus").index[: adata.n_vars].rename(None)
    del adata.var["symbol"]
    return adata


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (as_mouse, GeneMismatchError, r"are those of Mus musculus \(60 known\) and not of Homo"),
        (
            rename,
            GeneMismatchError,
            "only 0 of 60 genes .first: gene0, gene1, gene2. are genes of Homo sapiens",
        ),
        (lambda adata: adata[:, :2].copy(), GeneMismatchError, "only 2 of the model's 60 genes"),
        (lambda adata: adata[:0].copy(), InputError, "holds no cells"),
        (halve, CountsError, "no raw counts: X holds fract"),
    ],
)
def test_a_query_that_cannot_be_annotated_is_refused_and_left_alone(
    model, query, change, error, message
):
    changed = change(query)
    with pytest.raises(error, match=message):
        model.annotate(changed)
    assert "tabatlas" not in changed.uns
    assert not set(COLUMNS) & set(changed.obs)


def test_the_least_share_of_genes_can_be_set(model, query):
    few = query[:, :2].copy()
    assert model.annotate(few, min_genes=0.03).uns["tabatlas"]["n_genes_found"] == 2


def test_a_gpu_that_is_not_there_is_an_error(bundle, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="device: cuda: torch sees no GPU"):
        Model.load(bundle, "cuda")
