"""Which of a model's genes a query measured, by whatever names it uses."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas.errors import GeneMismatchError, UsageError, show_some
from tabatlas.fetch.genes import GeneColumn, best_column, choose_columns, find_expression
from tabatlas.fetch.mismatch import count_known, explain_mismatch, refuse_two_organisms
from tabatlas.stream.query import QueryGenes


@dataclass(frozen=True)
class ModelGenes:
    """Genes of a model (g,) and of the atlas that it was trained on, as Ensembl ids."""

    organism: str
    own: pd.Index
    atlas: pd.Index


@dataclass(frozen=True)
class GeneMatch:
    """A query's genes on a model's; `kind` is "ensembl" or "symbol", `column` one of var."""

    genes: QueryGenes
    kind: str
    column: str
    n_found: int
    n_genes: int

    @property
    def share(self) -> float:
        """Share of the model's genes that the query measured."""
        return self.n_found / self.n_genes


def match_genes(var: pd.DataFrame, model: ModelGenes, least: float, place: str) -> GeneMatch:
    """Find a model's genes among those of a query.

    Raises `GeneMismatchError` for genes of another organism, and where fewer than the share
    `least` of the model's genes are there: labels would come from the few others. Raises
    `UsageError` for a share beyond 0 and 1.
    """
    if not 0 <= least <= 1:
        raise UsageError(f"--min-genes {least}: a share lies between 0 and 1.")
    expressed = find_expression(var, place)
    column = best_column(choose_columns(var[expressed], place, None), model.organism)
    refuse_two_organisms(column.values, column.mapping, place, model.organism)
    refuse_other_organism(column, place, model.organism)
    feature_id = np.full(len(var), "", dtype=object)
    feature_id[expressed] = column.mapping.feature_id
    genes = select_genes(feature_id, model)
    sizes = int(genes.found.sum()), len(model.own)
    match = GeneMatch(genes, column.mapping.kind, column.name, *sizes)
    if match.share < max(least, 1 / match.n_genes):
        raise explain_few(match, column, least, place, model.organism)
    return match


def select_genes(feature_id: np.ndarray, model: ModelGenes) -> QueryGenes:
    """How genes with these ids (f,), "" where unknown, lie on a model's."""
    place_f = model.own.get_indexer(feature_id)
    known = np.flatnonzero(place_f >= 0)
    entries = (np.ones(len(known), dtype=np.float32), (known, place_f[known]))
    selection = sp.csr_matrix(entries, shape=(len(feature_id), len(model.own)))
    return QueryGenes(selection, pd.Index(feature_id).isin(model.atlas))


def refuse_other_organism(column: GeneColumn, place: str, organism: str) -> None:
    """Raise `GeneMismatchError` where more names are genes of another organism."""
    n_own = column.mapping.n_mapped
    for other, n_other in count_known(column.values).items():
        if n_other > n_own:
            raise GeneMismatchError(
                f"{place}: its genes (first: {show_some(column.values[:3])}) are those of {other} "
                f"({n_other} known) and not of {organism} ({n_own} known), as the model's. Use a "
                "model of that organism."
            )


def explain_few(
    match: GeneMatch, column: GeneColumn, least: float, place: str, organism: str
) -> GeneMismatchError:
    """The error about a query that lacks the model's genes: for its names, or for itself."""
    if column.mapping.n_mapped < len(column.values) / 2:
        step = f"Give Ensembl ids or symbols of {organism}."
        return explain_mismatch(column.values, place, organism, step)
    return GeneMismatchError(
        f"{place}: only {match.n_found} of the model's {match.n_genes} genes are there; at least "
        f"{max(1, math.ceil(least * match.n_genes))} are wanted (--min-genes {least:g}). Give all "
        "measured genes, not a selection."
    )
