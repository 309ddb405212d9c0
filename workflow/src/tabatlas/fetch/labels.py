"""Cell metadata: a user's columns → the columns of the CELLxGENE schema, with no gaps."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import ConfigError, InputError, show, show_some
from tabatlas.fetch.settings import Column, Constant, DatasetRow, FetchSettings
from tabatlas.ontology import ids_by_label, judge_term, name_term

# What files write where they mean "no value".
MISSING = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>", "unknown", "unassigned"})
# An ontology id, also as a part of a URL, with another separator or case: CL_0000236.
TERM = re.compile(r"(?:\S*/)?([A-Za-z]+)[:_](\d{7})|(CL):(\d+)")
SEPARATORS = re.compile(r"\s*(?:\|\||[+|;,])\s*")


def standardize_cells(obs: pd.DataFrame, row: DatasetRow, settings: FetchSettings) -> pd.DataFrame:
    """All obs columns of a source h5ad, categorical and never missing.

    Raises `InputError` for a column that was named and is absent, and for repeated barcodes.
    """
    barcodes = obs.index.astype(str)
    for name in barcodes[barcodes.duplicated()][:1]:
        raise InputError(
            f"{row.dataset_id}: obs name '{show(name)}' stands there twice. Make obs names unique."
        )
    columns = {
        names.DATASET_ID: row.dataset_id,
        names.COLLECTION_ID: row.collection or row.dataset_id,
        names.DONOR_ID: read_column(obs, row, "donor", names.DONOR_ID),
        names.BATCH: read_batch(obs, row),
        **read_cell_types(obs, row, settings.cell_types),
        **read_with_term(obs, row, "assay", names.ASSAY, names.ASSAY_ID),
        **read_with_term(obs, row, "disease", names.DISEASE, names.DISEASE_ID),
        **read_with_term(obs, row, "tissue", names.TISSUE, names.TISSUE_ID),
        **read_perturbations(obs, row, settings.control_labels),
    }
    index = pd.Index(f"{row.dataset_id}:" + barcodes, name=names.OBS_ID)
    cells = pd.DataFrame(columns, index=index).astype("category")
    cells[names.BARCODE] = barcodes
    return cells


def read_column(obs: pd.DataFrame, row: DatasetRow, key: str, default: str) -> np.ndarray:
    """Values of one column as text (n,): the one that the row names, else `default`."""
    named: Column = getattr(row, key)
    if isinstance(named, Constant):
        return np.full(len(obs), named.constant, dtype=object)
    if named is not None and named not in obs:
        raise InputError(
            f"{row.dataset_id}: `{key}: {show(named)}` is no column of obs; it has "
            f"{show_some(obs.columns)}."
        )
    return read_text(obs, named or default)


def read_text(obs: pd.DataFrame, column: str) -> np.ndarray:
    """Values of a column as text (n,), `unknown` for what means "no value" or is not there."""
    if column not in obs:
        return np.full(len(obs), names.UNKNOWN, dtype=object)
    values = obs[column]
    if pd.api.types.is_float_dtype(values.dtype):
        values = values.convert_dtypes()  # whole numbers that stand beside NaN: 1, not 1.0
    text = values.astype(object).where(values.notna(), names.UNKNOWN).astype(str)
    missing = text.str.strip().str.lower().isin(MISSING)
    return text.mask(missing, names.UNKNOWN).to_numpy(dtype=object)


def fill_unknown(values: np.ndarray, others: np.ndarray | str) -> np.ndarray:
    """`others` in place of `unknown` (n,)."""
    return np.where(values == names.UNKNOWN, others, values)


def read_batch(obs: pd.DataFrame, row: DatasetRow) -> np.ndarray:
    """The library of each cell (n,); where it is not known the donor, else the dataset."""
    batch = read_column(obs, row, "batch", names.BATCH)
    donor = read_column(obs, row, "donor", names.DONOR_ID)
    return fill_unknown(fill_unknown(batch, donor), row.dataset_id)


def read_with_term(
    obs: pd.DataFrame, row: DatasetRow, key: str, name: str, term: str
) -> dict[str, np.ndarray]:
    """A described column and its ontology id, which is kept where the file's own names are used."""
    own = getattr(row, key) in (None, name)
    unknown = np.full(len(obs), names.UNKNOWN, dtype=object)
    return {
        name: read_column(obs, row, key, name),
        term: read_text(obs, term) if own else unknown,
    }


def read_cell_types(
    obs: pd.DataFrame, row: DatasetRow, table: Mapping[str, str | None]
) -> dict[str, np.ndarray]:
    """`cell_type` and its ontology id. A label without a term keeps its own name as its class."""
    labels = read_column(obs, row, "cell_type", names.CELL_TYPE)
    if row.cell_type is None:
        labels = fill_unknown(read_text(obs, names.CELL_TYPE_ID), labels)
    found = {label: name_label(label, table, row.dataset_id) for label in np.unique(labels)}
    return {
        names.CELL_TYPE: np.array([found[label][0] for label in labels], dtype=object),
        names.CELL_TYPE_ID: np.array([found[label][1] for label in labels], dtype=object),
    }


def name_label(label: str, table: Mapping[str, str | None], place: str) -> tuple[str, str]:
    """Name and Cell Ontology id of a label: by the user's table, as an id, or by its exact name.

    Raises `ConfigError` for a wrong id in the table, `InputError` for one in the file.
    """
    if label in table:
        term = table[label]
        if term is None:
            return names.UNKNOWN, names.UNKNOWN
        problem = judge_term(term)
        if problem:
            raise ConfigError(f"fetch.cell_types: `{show(label)}`: {problem}.")
    elif TERM.fullmatch(label):
        term = ":".join(filter(None, TERM.fullmatch(label).groups())).upper()
        problem = judge_term(term)
        if problem:
            raise InputError(f"{place}: cell type {problem}, or map it in `fetch.cell_types`.")
    else:
        term = ids_by_label().get(label.strip().lower(), names.UNKNOWN)
    return (label if term == names.UNKNOWN else name_term(term)), term


def read_perturbations(
    obs: pd.DataFrame, row: DatasetRow, controls: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Perturbed genes, sorted and joined as the schema joins them, and the strategy."""
    values = read_column(obs, row, "perturbation", names.PERTURBATION_ID)
    targets = {value: split_targets(value, controls) for value in np.unique(values)}
    ids = np.array([targets[value] for value in values], dtype=object)
    none, unperturbed = ids == names.NOT_APPLICABLE, values == names.UNKNOWN
    strategy = np.select(
        [unperturbed, none], [names.NO_PERTURBATIONS, names.CONTROL], names.UNKNOWN
    )
    if row.perturbation is None:
        strategy = fill_unknown(read_text(obs, names.PERTURBATION_STRATEGY), strategy)
    return {names.PERTURBATION_ID: ids, names.PERTURBATION_STRATEGY: strategy}


def split_targets(value: str, controls: tuple[str, ...]) -> str:
    """`KLF1+ctrl` → `KLF1`, `B,A` → `A || B`, a control or no value → `na`."""
    silent = {control.lower() for control in controls} | MISSING
    targets = {one for one in SEPARATORS.split(value.strip()) if one.lower() not in silent}
    return names.PERTURBATION_DELIMITER.join(sorted(targets)) or names.NOT_APPLICABLE
