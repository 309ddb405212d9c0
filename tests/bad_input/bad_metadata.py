"""Columns of cells: absent, empty, wrong, hostile, or simply odd."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from desk import Case, Desk

from foreign import make_foreign, write_foreign
from tabatlas import names

ODD = (
    "</script><script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "🧬 細胞",
    "a\nb\tc",
    "../../x",
    "-rf",
)
MANY = 100_000


def label_cells(*labels: object, **row: object) -> tuple[ad.AnnData, dict[str, object]]:
    """A file with these labels in turn, and the row that names their column."""
    column = [labels[number % len(labels)] for number in range(8)]
    return make_foreign(label=column), {"cell_type": "label", **row}


def fetch_labels(desk: Desk, *labels: object, **row: object) -> list[str]:
    adata, about = label_cells(*labels, **row)
    return desk.fetch(adata, **about)


def repeat_column(desk: Desk) -> list[str]:
    write_foreign(desk.file, make_foreign(label=["a", "b"] * 4))
    with h5py.File(desk.file, "r+") as file:
        file["obs"].attrs["column-order"] = ["label", "label"]
    return desk.fetch()


def store_records(desk: Desk) -> list[str]:
    write_foreign(desk.file, make_foreign(label=range(8)))
    with h5py.File(desk.file, "r+") as file:
        del file["obs/label"]
        file["obs/label"] = np.zeros(8, dtype=[("a", int), ("b", int)])
    return desk.fetch()


def store_latin_1(desk: Desk) -> list[str]:
    write_foreign(desk.file, make_foreign(label=["a", "b"] * 4))
    with h5py.File(desk.file, "r+") as file:
        del file["obs/label"]
        file["obs/label"] = np.array(["Größe".encode("latin-1"), b"b"] * 4)
    return desk.fetch()


def fill_file(desk: Desk) -> list[str]:
    """All that an analysis leaves in a file beside the counts."""
    adata = make_foreign(
        index=[f"i{n}" for n in range(8)],
        barcode=["same"] * 8,
        obs_id=["same"] * 8,
        passed=[True, False] * 4,
        donor_id=pd.Categorical(["p", None] * 4),
        cell_type=pd.array(["B cell", None] * 4, dtype="string"),
        **{"c" * 3000: range(8)},
    )
    adata.obsm["table"] = pd.DataFrame({"a": range(8)}, index=adata.obs_names)
    adata.obsp["distances"] = adata.X @ adata.X.T
    adata.uns = {"a": {"b": np.zeros(3), "none": None}, "table": pd.DataFrame({"a": [1]})}
    with ad.settings.override(allow_write_nullable_strings=True):
        return desk.fetch(adata)


def fetch_many(desk: Desk) -> list[str]:
    labels = [f"type {number}" for number in range(MANY)]
    return desk.fetch(make_foreign(MANY, 2, cell_type=labels))


def lose_all_labels(desk: Desk) -> None:
    assert (desk.facts["n_labelled"], desk.facts["labels"]) == (0, {})
    assert set(desk.cells.obs[names.CELL_TYPE]) == {names.UNKNOWN}


def keep_odd_labels(desk: Desk) -> None:
    assert desk.cells.obs[names.CELL_TYPE].tolist() == [*ODD, *ODD[:2]]
    assert set(desk.facts["labels"]) == set(ODD)
    assert sorted(path.name for path in desk.left()) == ["cells.h5ad", "facts.json"]


def keep_odd_donors(desk: Desk) -> None:
    for column in (names.DONOR_ID, names.BATCH, names.TISSUE):
        assert set(desk.cells.obs[column]) == set(ODD)
    assert sorted(path.name for path in desk.left()) == ["cells.h5ad", "facts.json"]


def keep_many(desk: Desk) -> None:
    assert len(desk.facts["labels"]) == desk.facts["n_labelled"] == MANY


def name_b_cells(desk: Desk) -> None:
    assert set(desk.cells.obs[names.CELL_TYPE]) == {"B cell"}
    assert set(desk.cells.obs[names.CELL_TYPE_ID]) == {"CL:0000236"}


def read_filled(desk: Desk) -> None:
    cells = desk.cells.obs
    assert cells[names.BARCODE].tolist() == [f"BC{number}" for number in range(8)]
    assert cells[names.DONOR_ID].tolist() == ["p", names.UNKNOWN] * 4
    assert cells[names.CELL_TYPE].tolist() == ["B cell", names.UNKNOWN] * 4


def miss(key: str) -> Case:
    """A row about a column that the dataset table names and the file lacks."""
    says = (f"mine: `{key}: nope` is no column of obs", "it has age")
    return Case(
        f"{key} that is absent",
        lambda d: d.fetch(make_foreign(age=range(8)), **{key: "nope"}),
        says,
    )


CASES = (
    *map(miss, ("donor", "batch", "cell_type", "assay", "disease", "tissue", "perturbation")),
    Case(
        "column name with a line break",
        lambda d: d.fetch(make_foreign(age=range(8)), donor="a\nb\x1b[31m"),
        ("mine: `donor: a\\nb\\x1b[31m` is no column", "it has age"),
    ),
    Case(
        "500 columns",
        lambda d: d.fetch(make_foreign(**{f"c{n}": range(8) for n in range(500)}), donor="nope"),
        ("`donor: nope` is no column of obs", "c9 and 490 more"),
    ),
    Case("all-NaN labels", lambda d: fetch_labels(d, np.nan), (), 0, lose_all_labels),
    Case(
        "labels that mean none",
        lambda d: fetch_labels(d, "N/A", "", " none ", "Unknown"),
        (),
        0,
        lose_all_labels,
    ),
    Case(
        "obsolete ontology id",
        lambda d: fetch_labels(d, "CL:0000054"),
        (
            "mine: cell type `CL:0000054`",
            "is obsolete; use CL:0000062",
            "map it in `fetch.cell_types`",
        ),
    ),
    Case(
        "unknown ontology id",
        lambda d: fetch_labels(d, "CL:9999999"),
        (
            "mine: cell type `CL:9999999` is no Cell Ontology id",
            "look it up",
            "map it in `fetch.cell_types`",
        ),
    ),
    Case(
        "ontology id too short",
        lambda d: fetch_labels(d, "CL:236"),
        ("mine: cell type `CL:236` is no Cell Ontology id", "look it up"),
    ),
    Case(
        "id of another ontology",
        lambda d: fetch_labels(d, "UBERON:0000178"),
        ("mine: cell type `UBERON:0000178` is no Cell Ontology id", "look it up"),
    ),
    Case(
        "obsolete id in the config",
        lambda d: fetch_labels(d, "x", settings={"cell_types": {"x": "CL:0000054"}}),
        ("fetch.cell_types: `x`: `CL:0000054`", "use CL:0000062"),
        2,
    ),
    Case(
        "no id in the config",
        lambda d: fetch_labels(d, "x", settings={"cell_types": {"x": "B cell"}}),
        ("fetch.json: `cell_types", "`x: B cell` is no Cell Ontology id such as CL:0000236"),
        2,
    ),
    Case(
        "ids and names as others write them",
        lambda d: fetch_labels(
            d, "CL_0000236", "cl:0000236", "http://purl.obolibrary.org/obo/CL_0000236", " b Cell "
        ),
        (),
        0,
        name_b_cells,
    ),
    Case("odd labels", lambda d: fetch_labels(d, *ODD), (), 0, keep_odd_labels),
    Case(
        "odd donors, batches and tissues",
        lambda d: fetch_labels(d, *ODD, donor="label", batch="label", tissue="label"),
        (),
        0,
        keep_odd_donors,
    ),
    Case("100,000 labels", fetch_many, (), 0, keep_many),
    Case("a file full of other things", fill_file, (), 0, read_filled),
    Case(
        "one column twice",
        repeat_column,
        ("mine.h5ad: `obs` has the column `label` twice", "Keep one"),
    ),
    Case(
        "records in a column",
        store_records,
        ("mine.h5ad: column `label` of `obs` holds records", "Split it up"),
    ),
    Case(
        "text of another encoding",
        store_latin_1,
        ("mine.h5ad: not a readable h5ad", "codec can't decode", "'label'", "/obs"),
    ),
)
