"""Genes of a source file: which names it uses and which gene of the table each one is."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import InputError, show, show_some
from tabatlas.fetch.mismatch import explain_mismatch, refuse_two_organisms
from tabatlas.genes import GeneMapping, load_gene_table, map_names

GENE_EXPRESSION = "gene expression"
INDEX = "index"


@dataclass(frozen=True)
class GeneColumn:
    """The names in one column of var (its index is `index`), and the genes that they stand for."""

    name: str
    values: list[str]
    mapping: GeneMapping


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
    column = best_column(choose_columns(var, place, gene_id), organism)
    mapping = column.mapping
    refuse_two_organisms(column.values, mapping, place, organism)
    if mapping.n_mapped < max(1, least * len(var)):
        step = "Check `gene_id` and `organism` of the dataset."
        raise explain_mismatch(column.values, place, organism, step)
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
) -> list[tuple[str, pd.Index | pd.Series]]:
    """Where gene names may stand: in the column `gene_id`, else in any with text."""
    if gene_id == INDEX:
        return [(INDEX, var.index)]
    if gene_id is None:
        text = [name for name in var if not pd.api.types.is_numeric_dtype(var[name].dtype)]
        return [(INDEX, var.index), *((str(name), var[name]) for name in text)]
    if gene_id not in var:
        raise InputError(
            f"{place}: `gene_id: {show(gene_id)}` is no column of var; it has "
            f"{show_some(var.columns)}. The names themselves are `{INDEX}`."
        )
    return [(gene_id, var[gene_id])]


def best_column(columns: list[tuple[str, pd.Index | pd.Series]], organism: str) -> GeneColumn:
    """The column that finds most genes, each counted once; the first of equals.

    A column that says something else of the genes may name a known gene in every row.
    """
    named = [(name, [str(value) for value in column]) for name, column in columns]
    found = [GeneColumn(name, values, map_names(values, organism)) for name, values in named]
    return max(found, key=lambda one: one.mapping.n_genes)


def unique_names(own: np.ndarray) -> pd.Index:
    """The file's own names; a repeated one gets its place as a suffix."""
    repeated = pd.Index(own).duplicated()
    return pd.Index([f"{name}#{i}" if repeated[i] else name for i, name in enumerate(own)])
