"""Read a screen outside the atlas: raw counts or log-normalized values, genes, perturbations."""

from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names
from tabatlas.counts import (
    check_size,
    find_counts,
    iterate_values,
    judge_values,
    list_places,
    log1p_cp10k,
    open_h5ad,
    read_frame,
    read_matrix,
    write_h5ad,
)
from tabatlas.errors import CountsError, InputError, show, show_some
from tabatlas.fetch.genes import find_expression, map_genes
from tabatlas.fetch.labels import read_perturbations, read_text
from tabatlas.fetch.settings import Column, Constant, FetchSettings
from tabatlas.perturb.settings import ScreenRow

COUNTS, LOGARITHMS = "counts", "log-normalized"
# log1p(CP10k) of a cell whose every molecule is one gene's is 9.2; natural logarithms stay below.
LARGEST_LOGARITHM = 15.0


def convert_screen(
    path: Path, row: ScreenRow, settings: FetchSettings, cells: Path
) -> dict[str, Any]:
    """Write a foreign h5ad as a screen: log1p(CP10k) of known genes; return what was found."""
    adata, found = standardize_screen(path, row, settings)
    write_h5ad(adata, cells)
    return found


def standardize_screen(
    path: Path, row: ScreenRow, settings: FetchSettings
) -> tuple[ad.AnnData, dict[str, Any]]:
    """Read a foreign h5ad of a screen, and say what was found in it.

    Raises `InputError` and its kinds for all that makes it unusable.
    """
    with open_h5ad(path, row.path) as file:
        check_size(file)
        place, kind = find_values(file, row.values)
        obs = read_frame(file, "obs")
        var = read_frame(file, "raw/var" if place == "raw/X" else "var")
        matrix = read_matrix(file, place, len(var))
        expressed = np.flatnonzero(find_expression(var, row.dataset_id))
        genes, mapping = map_genes(
            var.iloc[expressed],
            row.dataset_id,
            row.organism,
            row.gene_id,
            settings.min_mapped_genes,
        )
        cells = describe_cells(obs, row, settings)
    # Logarithms cannot be added up: of several names of one gene the first is kept.
    feature_ids = genes[names.FEATURE_ID]
    kept = np.flatnonzero((feature_ids != "") & ~feature_ids.duplicated())
    adata = ad.AnnData(
        X=scale_values(matrix[:, expressed], kind)[:, kept],
        obs=cells,
        var=genes.iloc[kept].set_index(names.FEATURE_ID)[[names.FEATURE_NAME]],
        uns={names.ORGANISM: row.organism, "expression": kind},
    )
    found = {
        "organism": row.organism,
        "place": place,
        "expression": kind,
        "gene_ids": mapping.kind,
        "n_genes": len(expressed),
        "n_dropped_genes": len(expressed) - adata.n_vars,
    }
    return adata, found | describe_screen(adata)


def describe_screen(adata: ad.AnnData) -> dict[str, Any]:
    """What a screen consists of."""
    perturbed = adata.obs[names.PERTURBATION_ID].astype(str)
    return {
        "n_cells": adata.n_obs,
        "n_mapped": adata.n_vars,
        "n_controls": int((adata.obs[names.PERTURBATION_STRATEGY] == names.CONTROL).sum()),
        "n_perturbations": int(perturbed[perturbed != names.NOT_APPLICABLE].nunique()),
        "targets": list_targets(perturbed),
        "cell_lines": sorted(map(str, adata.obs[names.CELL_LINE].unique())),
    }


def find_values(file: h5py.File, wanted: str | None) -> tuple[str, str]:
    """Place of the expression, and whether it is counts or log-normalized.

    Raises `CountsError` for what is neither, such as scaled values.
    """
    try:
        return find_counts(file, wanted), COUNTS
    except CountsError:
        place = wanted or "X"
    if place not in ("X", "raw/X"):
        place = f"layers/{place.removeprefix('layers/')}"
    if place not in file:
        raise CountsError(f"no `{place}` in the file; it has {list_places(file)}.")
    problem = judge_logarithms(file[place])
    if problem:
        raise CountsError(
            f"`{place}` {problem}. A screen needs raw counts or log1p(CP10k); the file has "
            f"{list_places(file)}. Name their place in `values`."
        )
    return place, LOGARITHMS


def judge_logarithms(matrix: h5py.Group | h5py.Dataset) -> str:
    """What keeps a stored matrix from being log1p(CP10k), or "" if nothing is seen that does."""
    largest = 0.0
    for values in iterate_values(matrix):
        if values.dtype.kind not in "iufb":
            return f"holds {values.dtype}, not numbers"
        if not np.isfinite(values).all():
            return "holds NaN or infinite values"
        if values.size and values.min() < 0:
            return f"holds negative values ({values.min():g}); it looks scaled"
        largest = max(largest, float(values.max(initial=0)))
    if largest > LARGEST_LOGARITHM:
        return f"holds {largest:g}, too large for a logarithm of counts per 10,000"
    return "" if largest else judge_values(matrix)


def scale_values(matrix: sp.csr_matrix, kind: str) -> sp.csr_matrix:
    """log1p(CP10k): counts are scaled by the sum over all genes of the file."""
    if kind == LOGARITHMS:
        return matrix.tocsr()
    counts = matrix.tocsr()
    return log1p_cp10k(counts, np.asarray(counts.sum(axis=1)).ravel())


def describe_cells(obs: pd.DataFrame, row: ScreenRow, settings: FetchSettings) -> pd.DataFrame:
    """Perturbation, strategy and cell line of every cell; the rest of obs is not needed."""
    barcodes = obs.index.astype(str)
    for name in barcodes[barcodes.duplicated()][:1]:
        raise InputError(f"obs name {name!r} stands there twice. Make obs names unique.")
    perturbed = read_perturbations(obs, row.to_dataset(), settings.control_labels)
    ids = perturbed[names.PERTURBATION_ID]
    is_control = perturbed[names.PERTURBATION_STRATEGY] == names.CONTROL
    unperturbed = perturbed[names.PERTURBATION_STRATEGY] == names.NO_PERTURBATIONS
    if not is_control.any():
        raise InputError(
            f"no control cell: no value of `{row.perturbation}` is one of "
            f"{', '.join(settings.control_labels)}. Add the screen's to fetch.control_labels."
        )
    strategy = read_named(obs, row.strategy, "strategy", names.PERTURBATION_STRATEGY)
    strategy = np.select(
        [is_control, unperturbed], [names.CONTROL, names.NO_PERTURBATIONS], strategy
    )
    columns = {
        names.PERTURBATION_ID: ids,
        names.PERTURBATION_STRATEGY: strategy,
        names.CELL_LINE: read_named(obs, row.cell_line, "cell_line", names.CELL_LINE),
    }
    index = pd.Index(f"{row.dataset_id}:" + barcodes, name=names.OBS_ID)
    return pd.DataFrame(columns, index=index).astype("category")


def read_named(obs: pd.DataFrame, named: Column, key: str, default: str) -> np.ndarray:
    """Values of a column that a row names, or its constant (n,)."""
    if isinstance(named, Constant):
        return np.full(len(obs), named.constant, dtype=object)
    if named is not None and named not in obs:
        raise InputError(
            f"`{key}: {show(named)}` is no column of obs; it has {show_some(obs.columns)}."
        )
    return read_text(obs, named or default)


def list_targets(ids: pd.Series) -> list[str]:
    """All perturbed genes of a screen, each once."""
    found = {target for one in ids.unique() for target in one.split(names.PERTURBATION_DELIMITER)}
    return sorted(found - {names.NOT_APPLICABLE})
