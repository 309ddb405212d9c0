"""Matrices that hold no raw counts, and those that do in a form of their own."""

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from desk import Case, Desk

from foreign import make_foreign, normalize, replace_array, write_foreign

NEXT = "name their place: `counts` of a dataset"


def put_value(value: float, dtype: str = "float64") -> ad.AnnData:
    """Counts of which one is another value."""
    adata = make_foreign()
    dense = np.minimum(adata.X.toarray(), 9).astype(dtype)
    dense[3, 2] = value
    adata.X = sp.csr_matrix(dense)
    return adata


def put_zeros(rows: object, columns: object) -> ad.AnnData:
    """Counts of which some are zero."""
    adata = make_foreign()
    dense = adata.X.toarray()
    dense[rows, columns] = 0
    adata.X = sp.csr_matrix(dense)
    return adata


def store(form: type, dtype: str) -> ad.AnnData:
    """The same counts in another form."""
    adata = make_foreign()
    adata.X = form(adata.X.toarray().astype(dtype))
    return adata


def drop_x(**places: object) -> ad.AnnData:
    """No X, counts elsewhere."""
    adata = make_foreign()
    for name in places.pop("layers", ()):
        adata.layers[name] = adata.X
    if places.pop("raw", False):
        adata.raw = adata.copy()
    adata.X = None
    return adata


def write_text(desk: Desk) -> list[str]:
    write_foreign(desk.file)
    replace_array(desk.file, "X/data", ["one"] * make_foreign().X.nnz)
    return desk.fetch()


def write_cube(desk: Desk) -> list[str]:
    write_foreign(desk.file)
    with h5py.File(desk.file, "r+") as file:
        del file["X"]
        file["X"] = np.ones(8)
    return desk.fetch()


def keep_all(desk: Desk) -> None:
    assert np.array_equal(desk.cells.X.toarray(), make_foreign().X.toarray())


def drop_the_empty(desk: Desk) -> None:
    kept = desk.cells
    assert kept.n_obs == 7
    assert "mine:BC3" not in kept.obs_names
    assert (desk.facts["n_kept"], desk.facts["reasons"]["low_counts"]) == (7, 1)


def keep_the_empty_gene(desk: Desk) -> None:
    """It was measured: its zeros are data."""
    assert desk.cells.var["measured"].sum() == 12
    assert (desk.facts["n_measured"], desk.facts["n_lost_genes"]) == (12, 0)


def refuse(name: str, value: float, verdict: str) -> Case:
    """A row about one value that is no count."""
    says = (f"mine.h5ad: no raw counts: X holds {verdict}", "The file has X", NEXT)
    return Case(name, lambda desk: desk.fetch(put_value(value)), says)


CASES = (
    refuse("NaN", np.nan, "NaN or infinite values"),
    refuse("infinite", np.inf, "NaN or infinite values"),
    refuse("negative", -1, "negative values (-1); it looks scaled"),
    refuse("fractional", 99.5, "fractions (99.5); it looks normalised"),
    refuse("above the exact integers", 2**24 + 2, "16777218.0, above 16777216"),
    refuse("above int32", 2**31, "2147483648.0, above 16777216"),
    Case(
        "above int64's half",
        lambda d: d.fetch(put_value(2**62, "int64")),
        ("X holds 4611686018427387904, above 16777216", NEXT),
    ),
    Case(
        "log-normalized only",
        lambda d: d.fetch(normalize(make_foreign())),
        ("mine.h5ad: no raw counts: X holds fractions", "it looks log-normalised", NEXT),
    ),
    Case(
        "which genes were seen",
        lambda d: d.fetch(put_value(True, "bool")),
        ("X holds true and false: which genes were seen, not how often", NEXT),
    ),
    Case(
        "text for numbers",
        write_text,
        ("mine.h5ad: no raw counts: X holds object, not numbers", NEXT),
    ),
    Case(
        "nothing but zeros",
        lambda d: d.fetch(put_zeros(slice(None), slice(None))),
        ("mine.h5ad: no raw counts: X holds nothing but zeros", NEXT),
    ),
    Case("matrix of one axis", write_cube, ("mine.h5ad: no raw counts: X is no matrix", NEXT)),
    Case(
        "no matrix at all",
        lambda d: d.fetch(drop_x()),
        ("mine.h5ad: no raw counts: no matrix", "Give a file with raw counts"),
    ),
    Case(
        "integers that need not be counts",
        lambda d: d.fetch(drop_x(layers=["spliced"])),
        ("mine.h5ad: no raw counts", "The file has layers/spliced", NEXT),
    ),
    Case(
        "named place that is absent",
        lambda d: d.fetch(make_foreign(), counts="umi"),
        ("mine.h5ad: `umi` is not in the file", "it has X"),
    ),
    Case(
        "named place outside the matrices",
        lambda d: d.fetch(make_foreign(), counts="../obs"),
        ("mine.h5ad: `../obs` is not in the file", "it has X"),
    ),
    Case(
        "empty name of a place",
        lambda d: d.fetch(make_foreign(), counts=""),
        ('row.json: `counts: ""`', "at least 1 character"),
        code=2,
    ),
    Case("counts in a layer", lambda d: d.fetch(drop_x(layers=["counts"])), (), 0, keep_all),
    Case("counts in raw alone", lambda d: d.fetch(drop_x(raw=True)), (), 0, keep_all),
    Case("int64", lambda d: d.fetch(store(sp.csr_matrix, "int64")), (), 0, keep_all),
    Case("float64 by columns", lambda d: d.fetch(store(sp.csc_matrix, "float64")), (), 0, keep_all),
    Case("uint16, dense", lambda d: d.fetch(store(np.asarray, "uint16")), (), 0, keep_all),
    Case("float16, dense", lambda d: d.fetch(store(np.asarray, "float16")), (), 0, keep_all),
    Case(
        "all-zero cell",
        lambda d: d.qc(d.fetch_before(put_zeros(3, slice(None)))),
        (),
        0,
        drop_the_empty,
    ),
    Case(
        "all-zero gene",
        lambda d: d.normalize(d.fetch_before(put_zeros(slice(None), 2))),
        (),
        0,
        keep_the_empty_gene,
    ),
)
