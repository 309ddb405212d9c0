"""Cell metadata: a user's columns → the columns of the CELLxGENE schema, with no gaps."""

import logging
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import InputError
from tabatlas.fetch.settings import Column, Constant, DatasetRow, FetchSettings
from tabatlas.ontology import check_term, ids_by_label, name_term

logger = logging.getLogger(__name__)

# What files write where they mean "no value".
MISSING = frozenset({"", "nan", "na", "n/a", "none", "null", "<na>", "unknown", "unassigned"})
TERM = re.compile(r"CL:\d{7}")
SEPARATORS = re.compile(r"\s*(?:\|\||[+|;,])\s*")


def standardize_cells(obs: pd.DataFrame, row: DatasetRow, settings: FetchSettings) -> pd.DataFrame:
    """All obs columns of a source h5ad, categorical and never missing.

    Raises `InputError` for a column that was named and is absent, and for repeated barcodes.
    """
    barcodes = obs.index.astype(str)
    for place in np.flatnonzero(barcodes.duplicated())[:1]:
        raise InputError(
            f"{row.dataset_id}: obs name {barcodes[place]!r} stands there twice. "
            "Make obs names unique."
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
    index = pd.Index(row.dataset_id + ":" + barcodes, name=names.OBS_ID)
    cells = pd.DataFrame(columns, index=index).astype("category")
    cells[names.BARCODE] = barcodes
    return cells


def read_column(obs: pd.DataFrame, row: DatasetRow, key: str, default: str) -> np.ndarray | str:
    """Values of one column as text: the one that the row names, else `default` if it is there."""
    named: Column = getattr(row, key)
    if isinstance(named, Constant):
        return named.constant
    if named is not None and named not in obs:
        raise InputError(
            f"{row.dataset_id}: `{key}: {named}` is no column of obs; it has "
            f"{', '.join(map(str, obs.columns)) or 'none'}."
        )
    column = named or default
    return clean_text(obs[column]) if column in obs else names.UNKNOWN


def clean_text(values: pd.Series) -> np.ndarray:
    """Values as text, whatever means "no value" as `unknown`."""
    text = values.astype(object).where(values.notna(), names.UNKNOWN).astype(str)
    return np.where(text.str.strip().str.lower().isin(MISSING), names.UNKNOWN, text)


def read_batch(obs: pd.DataFrame, row: DatasetRow) -> np.ndarray | str:
    """The library of each cell; where none is known, its donor; else the whole dataset."""
    batch = read_column(obs, row, "batch", names.BATCH)
    if not isinstance(batch, str) or batch != names.UNKNOWN:
        return batch
    donor = read_column(obs, row, "donor", names.DONOR_ID)
    return row.dataset_id if isinstance(donor, str) and donor == names.UNKNOWN else donor


def read_with_term(
    obs: pd.DataFrame, row: DatasetRow, key: str, name: str, term: str
) -> dict[str, np.ndarray | str]:
    """A described column and its ontology id, which is kept where the file's own names are used."""
    values = read_column(obs, row, key, name)
    own = getattr(row, key) in (None, name)
    ids = clean_text(obs[term]) if own and term in obs else names.UNKNOWN
    return {name: values, term: ids}


def read_cell_types(
    obs: pd.DataFrame, row: DatasetRow, table: Mapping[str, str | None]
) -> dict[str, np.ndarray | str]:
    """`cell_type` and its ontology id. A label without a term keeps its own name as its class."""
    default = names.CELL_TYPE_ID if names.CELL_TYPE_ID in obs else names.CELL_TYPE
    labels = np.broadcast_to(read_column(obs, row, "cell_type", default), len(obs))
    terms = {label: find_term(label, table, row.dataset_id) for label in np.unique(labels)}
    own_names = {
        label: name_term(term) if TERM.fullmatch(term) else label for label, term in terms.items()
    }
    dropped = {label for label in terms if label in table and table[label] is None}
    own_names |= dict.fromkeys(dropped, names.UNKNOWN)
    return {
        names.CELL_TYPE: np.array([own_names[label] for label in labels], dtype=object),
        names.CELL_TYPE_ID: np.array([terms[label] for label in labels], dtype=object),
    }


def find_term(label: str, table: Mapping[str, str | None], place: str) -> str:
    """Cell Ontology id of a label: the user's table, an id, or an exact name; else `unknown`."""
    if label in table:
        term = table[label]
        return names.UNKNOWN if term is None else check_term(term, f"fetch.cell_types: {label}")
    if TERM.fullmatch(label):
        return check_term(label, f"{place}: cell type")
    return ids_by_label().get(label.lower(), names.UNKNOWN)


def read_perturbations(
    obs: pd.DataFrame, row: DatasetRow, controls: tuple[str, ...]
) -> dict[str, np.ndarray | str]:
    """Perturbed genes, sorted and joined as the schema joins them, and the strategy."""
    values = read_column(obs, row, "perturbation", names.PERTURBATION_ID)
    if isinstance(values, str):  # no column, or one value for all cells
        values = np.full(len(obs), values, dtype=object)
    strategy = names.PERTURBATION_STRATEGY
    own = clean_text(obs[strategy]) if strategy in obs and row.perturbation is None else None
    targets = {value: split_targets(value, controls) for value in np.unique(values)}
    ids = np.array([targets[value] for value in values], dtype=object)
    if own is not None:
        return {names.PERTURBATION_ID: ids, strategy: own}
    unperturbed = (ids == names.NOT_APPLICABLE) & (values == names.UNKNOWN)
    is_control = (ids == names.NOT_APPLICABLE) & ~unperturbed
    kinds = np.select(
        [unperturbed, is_control], [names.NO_PERTURBATIONS, names.CONTROL], names.UNKNOWN
    )
    return {names.PERTURBATION_ID: ids, strategy: kinds}


def split_targets(value: str, controls: tuple[str, ...]) -> str:
    """`KLF1+ctrl` → `KLF1`, `B,A` → `A || B`, a control or no value → `na`."""
    silent = {control.lower() for control in controls} | MISSING
    targets = {target for target in SEPARATORS.split(value) if target.lower() not in silent}
    return names.PERTURBATION_DELIMITER.join(sorted(targets)) or names.NOT_APPLICABLE
