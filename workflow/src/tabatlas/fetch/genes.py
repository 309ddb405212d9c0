"""Genes of a source file: which names it uses and which gene of the table each one is."""

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import InputError, show, show_some
from tabatlas.fetch.mismatch import explain_mismatch, refuse_two_organisms
from tabatlas.genes import GeneMapping, load_gene_table, map_names

GENE_EXPRESSION = "gene expression"
INDEX = "index"


def find_expression(var: pd.DataFrame, place: str) -> np.ndarray:
    """Which features are genes: all, unless 10x's `feature_types` says otherwise (g,) bool."""
    if names.FEATURE_TYPES not in var:
        return np.ones(len(var), dtype=bool)
    types = var[names.FEATURE_TYPES].astype(str)
    expressed = types.str.lower().eq(GENE_EXPRESSION).to_numpy()
    if not expressed.any():
        raise InputError(
            f"{place}: no feature is of the type `Gene Expression`; `feature_types` of "
            f"var says {show_some(sorted(set(types)), 5)}. Give the file with the genes."
        )
    return expressed


def map_genes(
    var: pd.DataFrame, place: str, organism: str, gene_id: str | None, least: float
) -> tuple[pd.DataFrame, GeneMapping]:
    """The var table of a source h5ad, and how its genes were found.

    `gene_id` names the column of var, or is None to look for it.

    Raises `GeneMismatchError` where fewer than the share `least` of the genes are known, or where
    they are those of two organisms.
    """
    columns = choose_columns(var, place, gene_id)
    column, mapping = best_mapping(columns, organism)
    refuse_two_organisms(column, mapping, place, organism)
    if mapping.n_mapped < max(1, least * len(var)):
        step = "Check `gene_id` and `organism` of the dataset."
        raise explain_mismatch(column, place, organism, step)
    known = load_gene_table(organism).reindex(mapping.feature_id)
    own = var.index.astype(str).to_numpy()
    unmapped = mapping.feature_id == ""
    described = pd.DataFrame(
        {
            names.FEATURE_ID: mapping.feature_id,
            names.FEATURE_NAME: np.where(unmapped, own, known[names.FEATURE_NAME].to_numpy()),
            names.FEATURE_TYPE: known[names.FEATURE_TYPE].fillna("").to_numpy(),
        },
        index=unique_names(own),
    )
    return described, mapping


def choose_columns(
    var: pd.DataFrame, place: str, gene_id: str | None
) -> list[pd.Index | pd.Series]:
    """Where gene names may stand: in the column `gene_id`, else in any with text."""
    if gene_id == INDEX:
        return [var.index]
    if gene_id is None:
        text = [name for name in var if not pd.api.types.is_numeric_dtype(var[name].dtype)]
        return [var.index, *(var[name] for name in text)]
    if gene_id not in var:
        raise InputError(
            f"{place}: `gene_id: {show(gene_id)}` is no column of var; it has "
            f"{show_some(var.columns)}. The names themselves are `{INDEX}`."
        )
    return [var[gene_id]]


def best_mapping(
    columns: list[pd.Index | pd.Series], organism: str
) -> tuple[list[str], GeneMapping]:
    """Names and mapping of the column that finds most genes, the first of equals."""
    named = [[str(name) for name in column] for column in columns]
    mappings = [(names_g, map_names(names_g, organism)) for names_g in named]
    return max(mappings, key=lambda one: one[1].n_mapped)


def unique_names(own: np.ndarray) -> pd.Index:
    """The file's own names; a repeated one gets its place as a suffix."""
    repeated = pd.Index(own).duplicated()
    return pd.Index([f"{name}#{i}" if repeated[i] else name for i, name in enumerate(own)])
