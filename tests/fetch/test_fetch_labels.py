import numpy as np
import pandas as pd
import pytest

from tabatlas import names
from tabatlas.fetch.labels import standardize_cells
from tabatlas.fetch.settings import DatasetRow, FetchSettings

B_CELL, T_CELL, PLATELET = "CL:0000236", "CL:0000084", "CL:0000233"
OBSOLETE, REPLACEMENT = "CL:0000054", "CL:0000062"

CATEGORICAL = (
    names.DATASET_ID,
    names.COLLECTION_ID,
    names.DONOR_ID,
    names.BATCH,
    names.CELL_TYPE,
    names.CELL_TYPE_ID,
    names.ASSAY,
    names.ASSAY_ID,
    names.DISEASE,
    names.DISEASE_ID,
    names.TISSUE,
    names.TISSUE_ID,
    names.PERTURBATION_ID,
    names.PERTURBATION_STRATEGY,
)


def standardize(
    obs: dict[str, object], table: dict[str, str | None] | None = None, **row: object
) -> pd.DataFrame:
    """Standardized cells of a dataset `d` of which `obs` gives the columns."""
    n_cells = len(next(iter(obs.values()), "abc"))
    frame = pd.DataFrame(obs, index=[f"BC{number}" for number in range(n_cells)])
    row = DatasetRow.parse({"dataset_id": "d", "path": "d.h5ad", **row}, "row")
    return standardize_cells(frame, row, FetchSettings(cell_types=table or {}))


def test_cells_have_every_column_even_where_the_file_has_none() -> None:
    cells = standardize({})
    assert list(cells.columns) == [*CATEGORICAL, names.BARCODE]
    assert cells.index.tolist() == ["d:BC0", "d:BC1", "d:BC2"]
    assert cells.index.name == names.OBS_ID
    assert cells[names.BARCODE].tolist() == ["BC0", "BC1", "BC2"]
    assert (cells[list(CATEGORICAL)].dtypes == "category").all()
    assert cells.iloc[0, :-1].to_dict() == {
        **dict.fromkeys(CATEGORICAL, names.UNKNOWN),
        names.DATASET_ID: "d",
        names.COLLECTION_ID: "d",
        names.BATCH: "d",
        names.PERTURBATION_ID: names.NOT_APPLICABLE,
        names.PERTURBATION_STRATEGY: names.NO_PERTURBATIONS,
    }


# values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["x", "y"], ["x", "y"]),
        (pd.Categorical(["x", None]), ["x", "unknown"]),
        ([np.nan, np.nan], ["unknown", "unknown"]),
        ([1, 2], ["1", "2"]),
        ([1.0, np.nan], ["1", "unknown"]),
        ([1.5, 2.0], ["1.5", "2.0"]),
        ([True, False], ["True", "False"]),
        (pd.array([1, None], dtype="Int64"), ["1", "unknown"]),
        (pd.array([True, None], dtype="boolean"), ["True", "unknown"]),
        (pd.array(["x", None], dtype="string"), ["x", "unknown"]),
        (["N/A", " None "], ["unknown", "unknown"]),
        (["", "unassigned"], ["unknown", "unknown"]),
        (["a\nb 🧬", "</script>"], ["a\nb 🧬", "</script>"]),
        (["=cmd()", "x" * 1000], ["=cmd()", "x" * 1000]),
    ],
)
def test_values_of_any_type_become_text(values: object, text: list[str]) -> None:
    cells = standardize({"person": values, "label": values}, donor="person", cell_type="label")
    assert cells[names.DONOR_ID].tolist() == text
    assert cells[names.CELL_TYPE].tolist() == text


def test_constant_holds_for_every_cell() -> None:
    constants = ("donor", "batch", "cell_type", "assay", "disease", "tissue", "perturbation")
    cells = standardize(
        {"donor_id": ["x", "y"], names.CELL_TYPE_ID: [B_CELL, T_CELL]},
        **{key: {"constant": "platelet"} for key in constants},
    )
    assert cells[names.DONOR_ID].tolist() == ["platelet"] * 2
    assert cells[names.CELL_TYPE_ID].tolist() == [PLATELET] * 2
    assert cells[names.PERTURBATION_ID].tolist() == ["platelet"] * 2


def test_library_is_the_donor_where_it_is_not_known_and_else_the_dataset() -> None:
    cells = standardize({"batch": ["b", None, None], "donor_id": ["x", "y", None]})
    assert cells[names.BATCH].tolist() == ["b", "y", "d"]


def test_collection_is_that_of_the_row() -> None:
    assert set(standardize({}, collection="study")[names.COLLECTION_ID]) == {"study"}


# ontology ids


def test_ontology_id_is_kept_beside_the_column_it_describes() -> None:
    obs = {"assay": ["10x"], "assay_ontology_term_id": ["EFO:0009922"], "other": ["smart"]}
    assert standardize(obs)[names.ASSAY_ID].tolist() == ["EFO:0009922"]
    assert standardize(obs, assay="assay")[names.ASSAY_ID].tolist() == ["EFO:0009922"]
    assert standardize(obs, assay="other")[names.ASSAY_ID].tolist() == ["unknown"]
    assert standardize(obs, assay={"constant": "x"})[names.ASSAY_ID].tolist() == ["unknown"]


def cell_types(*labels: str | None, **options: object) -> list[tuple[str, str]]:
    """(name, id) of each cell that has one of `labels`."""
    cells = standardize({"label": labels}, cell_type="label", **options)
    return list(zip(cells[names.CELL_TYPE], cells[names.CELL_TYPE_ID], strict=True))


def test_label_becomes_a_term_by_its_id_its_name_or_the_table() -> None:
    table = {"my Bs": B_CELL, "b cell ": B_CELL}
    found = cell_types(B_CELL, "B cell", "b CELL", "my Bs", table=table)
    assert found == [("B cell", B_CELL)] * 4


def test_label_without_a_term_keeps_its_own_name() -> None:
    assert cell_types("my type") == [("my type", "unknown")]


def test_label_that_the_table_sets_to_null_is_no_label() -> None:
    assert cell_types("doublets", "B cell", table={"doublets": None}) == [
        ("unknown", "unknown"),
        ("B cell", B_CELL),
    ]


def test_table_corrects_the_ids_of_a_file() -> None:
    assert cell_types(OBSOLETE, table={OBSOLETE: B_CELL}) == [("B cell", B_CELL)]


def test_ids_of_a_file_are_used_before_its_names() -> None:
    cells = standardize(
        {names.CELL_TYPE: ["bee", "tee", None], names.CELL_TYPE_ID: [B_CELL, None, "unknown"]}
    )
    assert cells[names.CELL_TYPE].tolist() == ["B cell", "tee", "unknown"]
    assert cells[names.CELL_TYPE_ID].tolist() == [B_CELL, "unknown", "unknown"]


# perturbations


@pytest.mark.parametrize(
    ("value", "genes", "strategy"),
    [
        ("KLF1", "KLF1", "unknown"),
        ("KLF1+ctrl", "KLF1", "unknown"),
        ("ctrl+KLF1", "KLF1", "unknown"),
        ("B,A", "A || B", "unknown"),
        ("A || B", "A || B", "unknown"),
        (" A ; B|C ", "A || B || C", "unknown"),
        ("A+A", "A", "unknown"),
        ("A_B", "A_B", "unknown"),
        ("HLA-A", "HLA-A", "unknown"),
        ("control", "na", "control"),
        ("Non-Targeting", "na", "control"),
        ("ctrl+ctrl", "na", "control"),
        (None, "na", "no perturbations"),
        ("na", "na", "no perturbations"),
    ],
)
def test_perturbed_genes_are_sorted_and_joined_as_the_schema_says(
    value: str | None, genes: str, strategy: str
) -> None:
    cells = standardize({"guide": [value, "Z"]}, perturbation="guide")
    assert cells[names.PERTURBATION_ID].iloc[0] == genes
    assert cells[names.PERTURBATION_STRATEGY].iloc[0] == strategy


def test_strategy_of_the_file_is_kept_where_its_own_perturbations_are_used() -> None:
    obs = {
        names.PERTURBATION_ID: ["A", "na", None],
        names.PERTURBATION_STRATEGY: ["CRISPR knockout screen", "control", None],
        "guide": ["A", "B", None],
    }
    own = standardize(obs)[names.PERTURBATION_STRATEGY].tolist()
    assert own == ["CRISPR knockout screen", "control", "no perturbations"]
    named = standardize(obs, perturbation="guide")[names.PERTURBATION_STRATEGY].tolist()
    assert named == ["unknown", "unknown", "no perturbations"]
