import anndata as ad
import numpy as np
import pytest

from screen_atlas import draw_cells, list_perturbations, make_foreign_screen
from tabatlas import names
from tabatlas.errors import CountsError, InputError
from tabatlas.fetch.settings import FetchSettings
from tabatlas.perturb.reading import standardize_screen
from tabatlas.perturb.settings import PerturbSettings, ScreenRow

ROW = ScreenRow(
    dataset_id="s", path="s.h5ad", perturbation="guide", strategy="kind", cell_line="line"
)


def read(path, row=ROW, **settings):
    return standardize_screen(path, row, FetchSettings(**settings))


@pytest.fixture(scope="module")
def expected():
    counts, _ = draw_cells(np.random.default_rng(0))
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))[:, :-1]


@pytest.mark.parametrize(("scale", "kind"), [("counts", "counts"), ("log", "log-normalized")])
def test_counts_and_logarithms_end_in_the_same_values(tmp_path, expected, scale, kind):
    adata, found = read(make_foreign_screen(tmp_path / "a.h5ad", scale))
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-5)
    assert found["expression"] == adata.uns["expression"] == kind


def test_what_was_found_is_said(tmp_path):
    adata, found = read(make_foreign_screen(tmp_path / "a.h5ad"))
    assert (found["n_genes"], found["n_mapped"]) == (60, 59)
    assert found["n_dropped_genes"] == 1
    assert found["n_perturbations"] == 17
    assert found["targets"] == sorted(list_perturbations()[:12])
    assert found["cell_lines"] == ["left", "right"]
    assert found["n_controls"] == 80
    ids = set(adata.obs[names.PERTURBATION_ID])
    assert ids == {names.NOT_APPLICABLE, *list_perturbations()}
    strategies = adata.obs.groupby(names.PERTURBATION_STRATEGY, observed=True).size()
    assert strategies.to_dict() == {"CRISPRa": 680, "control": 80}


def test_scaled_values_are_refused(tmp_path):
    with pytest.raises(CountsError, match=r"negative values .* it looks scaled"):
        read(make_foreign_screen(tmp_path / "a.h5ad", "scaled"))


@pytest.mark.parametrize(
    ("value", "message"), [(40.5, "holds 40.5, too large"), (np.nan, "NaN or infinite")]
)
def test_other_values_are_refused(tmp_path, value, message):
    path = make_foreign_screen(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(path)
    adata.X.data[0] = value
    adata.write_h5ad(path)
    with pytest.raises(CountsError, match=message):
        read(path)


def test_a_place_that_is_not_there_is_named(tmp_path):
    path = make_foreign_screen(tmp_path / "a.h5ad")
    with pytest.raises(CountsError, match="no `layers/nowhere` in the file; it has X"):
        read(path, ROW.model_copy(update={"values": "nowhere"}))


def test_a_screen_without_controls_is_refused(tmp_path):
    path = make_foreign_screen(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match="no control cell: no value of `guide` is one of mock"):
        read(path, control_labels=("mock",))


@pytest.mark.parametrize("key", ["perturbation", "strategy", "cell_line"])
def test_a_column_that_is_not_there_is_named(tmp_path, key):
    path = make_foreign_screen(tmp_path / "a.h5ad")
    with pytest.raises(InputError, match=f"`{key}: nowhere` is no column of obs"):
        read(path, ROW.model_copy(update={key: "nowhere"}))


def test_two_screens_of_one_name_are_refused():
    with pytest.raises(ValueError, match="`s` names two screens"):
        PerturbSettings(datasets=(ROW, ROW))


@pytest.mark.parametrize("path", ["simulate:demo_screen", "s3://bucket/x.h5ad"])
def test_a_path_that_nobody_reads_is_refused(path):
    with pytest.raises(ValueError, match=r"belongs into `datasets`|only http"):
        ScreenRow(dataset_id="s", path=path)
