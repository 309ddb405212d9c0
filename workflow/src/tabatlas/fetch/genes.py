"""Genes of a source file: which names it uses and which gene of the table each one is."""

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import GeneMismatchError, InputError
from tabatlas.fetch.settings import DatasetRow
from tabatlas.genes import GeneMapping, load_gene_table, map_names

GENE_EXPRESSION = "gene expression"


def map_genes(var: pd.DataFrame, row: DatasetRow, least: float) -> tuple[pd.DataFrame, GeneMapping]:
    """The var table of a source h5ad, and how its genes were found.

    Raises `GeneMismatchError` where fewer than the share `least` of the genes are known.
    """
    mapping, source = choose_mapping(var, row)
    if mapping.n_mapped < max(1, least * len(var)):
        first = ", ".join(map(str, var.index[:3]))
        raise GeneMismatchError(
            f"{row.dataset_id}: only {mapping.n_mapped} of {len(var)} genes are genes of "
            f"{row.organism} (best: {source}; first: {first}). Check `gene_id` and `organism`."
        )
    table = load_gene_table(row.organism)
    known = table.reindex(mapping.feature_id)
    own = var.index.astype(str).to_numpy()
    described = pd.DataFrame(
        {
            names.FEATURE_ID: mapping.feature_id,
            names.FEATURE_NAME: np.where(
                mapping.feature_id == "", own, known[names.FEATURE_NAME].to_numpy()
            ),
            names.FEATURE_TYPE: known[names.FEATURE_TYPE].fillna("").to_numpy(),
        },
        index=unique_names(own),
    )
    return described, mapping


def choose_mapping(var: pd.DataFrame, row: DatasetRow) -> tuple[GeneMapping, str]:
    """The mapping of the column that the row names, else of the one that finds most genes."""
    if row.gene_id is not None and row.gene_id != "index" and row.gene_id not in var:
        raise InputError(
            f"{row.dataset_id}: `gene_id: {row.gene_id}` is no column of var; it has "
            f"{', '.join(map(str, var.columns)) or 'none'}. The names themselves are `index`."
        )
    if row.gene_id is not None:
        candidates = [row.gene_id]
    else:
        text = [name for name in var if not pd.api.types.is_numeric_dtype(var[name].dtype)]
        candidates = ["index", *text]
    mappings = {
        name: map_names(var.index if name == "index" else var[name], row.organism)
        for name in candidates
    }
    best = max(candidates, key=lambda name: mappings[name].n_mapped)
    return mappings[best], best


def find_expression(var: pd.DataFrame) -> np.ndarray:
    """Which features are genes: all, unless 10x's `feature_types` says otherwise (g,)."""
    if names.FEATURE_TYPES not in var:
        return np.ones(len(var), dtype=bool)
    return var[names.FEATURE_TYPES].astype(str).str.lower().eq(GENE_EXPRESSION).to_numpy()


def unique_names(own: np.ndarray) -> pd.Index:
    """The file's own names; a repeated one gets its place as a suffix."""
    repeated = pd.Index(own).duplicated()
    return pd.Index([f"{name}#{i}" if repeated[i] else name for i, name in enumerate(own)])
