from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from anndata.io import read_elem

from foreign import claim_size, make_foreign, normalize, replace_array, write_foreign
from tabatlas import counts
from tabatlas.errors import CountsError, InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound foreign h5ad."""
    return write_foreign(tmp_path / "foreign.h5ad")


def read(path: Path, wanted: str | None = None) -> tuple[str, sp.csr_matrix]:
    """Place and values of the raw counts of a file."""
    with counts.open_h5ad(path) as file:
        place = counts.find_counts(file, wanted)
        frame = "raw/var" if place == "raw/X" else "var"
        return place, counts.read_matrix(file, place, len(read_elem(file[frame])))


# finding them


def test_counts_are_found_in_x(path: Path) -> None:
    place, matrix = read(path)
    assert place == "X"
    assert (matrix != make_foreign().X).nnz == 0


def test_counts_are_found_in_raw_with_the_genes_of_raw(tmp_path: Path) -> None:
    adata = make_foreign()
    chosen = normalize(adata)[:, :5].copy()
    chosen.raw = adata
    place, matrix = read(write_foreign(tmp_path / "a.h5ad", chosen))
    assert place == "raw/X"
    assert (matrix != adata.X).nnz == 0


def test_counts_are_found_in_a_layer(tmp_path: Path) -> None:
    adata = make_foreign()
    scaled = normalize(adata)
    scaled.layers["counts"] = adata.X
    place, matrix = read(write_foreign(tmp_path / "a.h5ad", scaled))
    assert place == "layers/counts"
    assert (matrix != adata.X).nnz == 0


@pytest.mark.parametrize("wanted", ["spliced", "layers/spliced"])
def test_integers_that_need_not_be_counts_are_used_only_by_name(
    tmp_path: Path, wanted: str
) -> None:
    adata = make_foreign()
    scaled = normalize(adata)
    scaled.layers["spliced"] = adata.X
    path = write_foreign(tmp_path / "a.h5ad", scaled)
    assert read(path, wanted)[0] == "layers/spliced"
    with pytest.raises(CountsError, match="no raw counts: X holds fractions"):
        read(path)


def test_named_place_that_is_absent_is_an_error_with_the_places_there_are(path: Path) -> None:
    with pytest.raises(CountsError, match=r"foreign.h5ad: `umi` is not .* it has X"):
        read(path, "umi")


def test_named_place_is_used_or_refused_but_never_replaced(tmp_path: Path) -> None:
    adata = normalize(make_foreign())
    adata.layers["counts"] = make_foreign().X
    with pytest.raises(CountsError, match="X holds fractions"):
        read(write_foreign(tmp_path / "a.h5ad", adata), "X")


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.5, "fractions (0.5); it looks log-normalised"),
        (99.5, "fractions (99.5); it looks normalised"),
        (-1, "negative values (-1); it looks scaled"),
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (2**31, "2147483648.0, above 16777216"),
        (2**24 + 2, "16777218.0, above 16777216"),
    ],
)
def test_values_that_are_no_counts_are_refused_in_a_dense_matrix_too(
    tmp_path: Path, value: float, verdict: str
) -> None:
    adata = make_foreign()
    dense = np.minimum(adata.X.toarray(), 9).astype(np.float64)
    dense[3, 2] = value
    adata.X = dense
    with pytest.raises(CountsError) as caught:
        read(write_foreign(tmp_path / "a.h5ad", adata))
    assert f"a.h5ad: no raw counts: X holds {verdict}" in str(caught.value)


def test_largest_exact_count_is_kept(tmp_path: Path) -> None:
    adata = make_foreign()
    adata.X.data[0] = 2**24
    assert read(write_foreign(tmp_path / "a.h5ad", adata))[1].max() == 2**24


# reading them


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint16"])
def test_counts_of_any_stored_form_read_the_same(tmp_path: Path, form: type, dtype: str) -> None:
    adata = make_foreign()
    expected = adata.X.toarray().astype(dtype).astype(np.float32)
    adata.X = form(adata.X.toarray().astype(dtype))
    _, matrix = read(write_foreign(tmp_path / "a.h5ad", adata))
    assert matrix.dtype == np.float32
    assert matrix.has_canonical_format
    assert np.array_equal(matrix.toarray(), expected)


def test_dense_counts_are_read_in_blocks_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "BLOCK", 30)  # two rows and a half
    adata = make_foreign()
    expected, adata.X = adata.X, adata.X.toarray()
    assert (read(write_foreign(tmp_path / "a.h5ad", adata))[1] != expected).nnz == 0


def test_repeated_entries_are_summed_and_stored_zeros_dropped(path: Path) -> None:
    n_cells = make_foreign().n_obs
    replace_array(path, "X/indptr", [0, 4] + [4] * (n_cells - 1))
    replace_array(path, "X/indices", [5, 2, 5, 3])
    replace_array(path, "X/data", [1, 2, 10, 0])
    _, matrix = read(path)
    assert matrix.indices.tolist() == [2, 5]
    assert matrix.data.tolist() == [2, 11]


DAMAGES = {
    "column beyond the last": ("X/indices", lambda x: np.r_[x[:-1], 12], "index beyond its 12"),
    "negative column": ("X/indices", lambda x: np.r_[-1, x[1:]], "index beyond its 12"),
    "column as fraction": ("X/indices", lambda x: x + 0.5, "not integers"),
    "pointers that fall": ("X/indptr", lambda x: np.r_[0, x[2], x[1], x[3:]], "do not rise"),
    "pointers not from 0": ("X/indptr", lambda x: np.r_[1, x[1:]], "do not rise from 0"),
    "pointers beyond the values": ("X/indptr", lambda x: np.r_[x[:-1], x[-1] + 1], "do not rise"),
    "a pointer too few": ("X/indptr", lambda x: x[:-1], "8 pointers for 8 rows"),
    "a value too few": ("X/data", lambda x: x[:-1], "differ in length"),
    "values in a table": ("X/data", lambda x: x[None], "differ in length"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix])
def test_damaged_structure_is_an_error_and_not_other_values(
    tmp_path: Path, damage: str, form: type
) -> None:
    adata = make_foreign(n_cells=12)  # square: rows and columns have the same limits
    adata.X = form(adata.X)
    path = write_foreign(tmp_path / "a.h5ad", adata)
    name, change, message = DAMAGES[damage]
    with h5py.File(path) as file:
        values = file[name][:]
    replace_array(path, name, change(values))
    with pytest.raises(InputError, match=message.replace("8", "12")) as caught:
        read(path)
    assert "a.h5ad: `X` is damaged" in str(caught.value)


def test_number_of_pointers_is_checked_before_they_are_read(path: Path) -> None:
    claim_size(path, "X/indptr", 30_000_000)  # small enough to be believed
    with pytest.raises(InputError, match="30000000 pointers for 8 rows"):
        read(path)


def test_table_in_place_of_the_matrix_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X"].attrs["encoding-type"] = "dataframe"
    with pytest.raises(InputError, match="`X` is a dataframe, not a matrix"):
        read(path)


# files that are no sound h5ad


@pytest.mark.parametrize("name", ["obs", "var"])
def test_hdf5_without_obs_or_var_is_no_h5ad(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
    with pytest.raises(InputError, match=f"no `{name}` in it, so it is no h5ad"):
        read(path)


def test_column_that_anndata_does_not_know_is_an_error(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["var/_index"].attrs["encoding-type"] = "string-of-pearls"
    with pytest.raises(InputError, match=r"not a readable h5ad .*string-of-pearls"):
        read(path)


def test_link_within_the_file_is_followed(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.move("X", "layers/kept")
        file["X"] = h5py.SoftLink("/layers/kept")
    assert read(path)[0] == "X"


def test_file_of_the_oldest_format_is_refused_with_the_way_to_convert_it(path: Path) -> None:
    table = np.array(
        [(f"BC{n}".encode(), n) for n in range(8)], dtype=[("index", "S4"), ("n", int)]
    )
    with h5py.File(path, "r+") as file:
        del file["obs"]
        file["obs"] = table
    with pytest.raises(InputError, match=r"before 0.7. Convert it: `anndata.read_h5ad\(old\)"):
        read(path)


def test_errors_name_the_source_that_the_user_gave(path: Path) -> None:
    path.write_bytes(b"")
    with (
        pytest.raises(InputError, match=r"^https://example\.org/a\.h5ad: the file is empty"),
        counts.open_h5ad(path, "https://example.org/a.h5ad"),
    ):
        pass


# our own files


def test_written_counts_read_back(tmp_path: Path) -> None:
    adata = make_foreign(cell_type=["B", "T"] * 4)
    counts.write_h5ad(adata, tmp_path / "a.h5ad")
    read_back = counts.read_counts(tmp_path / "a.h5ad")
    assert (read_back.X != adata.X).nnz == 0
    assert read_back.obs["cell_type"].tolist() == ["B", "T"] * 4
    assert read_back.var_names.equals(adata.var_names)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        counts.write_h5ad(make_foreign(cell_type=["B", "T"] * 4), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    adata = ad.AnnData(make_foreign().X, uns={"unwritable": object()})
    with pytest.raises(ad._io.specs.registry.IORegistryError):
        counts.write_h5ad(adata, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())


def test_check_names_the_place_of_a_value_that_is_no_count() -> None:
    counts.check_counts(make_foreign().X, "here")
    with pytest.raises(CountsError, match=r"^here: holds fractions"):
        counts.check_counts(make_foreign().X * 0.5, "here")


# scaling them


def test_log1p_cp10k_equals_scanpy() -> None:
    matrix = make_foreign(50, 40).X.tolil()
    matrix[7] = 0  # an empty cell stays one
    matrix = matrix.tocsr()
    adata = ad.AnnData(matrix.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    ours = counts.log1p_cp10k(matrix, np.asarray(matrix.sum(axis=1)).ravel())
    np.testing.assert_allclose(ours.toarray(), adata.X.toarray(), rtol=3e-7)


def test_cells_are_scaled_by_all_atlas_genes_when_a_subset_is_loaded() -> None:
    matrix = make_foreign().X
    total_n = np.asarray(matrix.sum(axis=1)).ravel()
    whole = counts.log1p_cp10k(matrix, total_n)
    assert (counts.log1p_cp10k(matrix[:, :4], total_n) != whole[:, :4]).nnz == 0


def test_size_factor_of_an_empty_cell_is_one() -> None:
    assert counts.size_factors(np.array([0, 10_000, 5_000])).tolist() == [1.0, 1.0, 0.5]
