"""A foreign h5ad in the atlas's own form, and what was found in it."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.counts import check_size, check_structure, find_counts, open_h5ad, read_frame
from tabatlas.fetch.genes import find_expression, map_genes
from tabatlas.fetch.labels import standardize_cells
from tabatlas.fetch.settings import DatasetRow, FetchSettings


def standardize_file(
    path: Path, row: DatasetRow, settings: FetchSettings
) -> tuple[ad.AnnData, np.ndarray, dict[str, Any]]:
    """Cells and genes of a foreign h5ad in the form of a source h5ad, and what was found.

    The counts stay in the file, verified: `counts` of what was found is their place, the mask
    (g,) says which of its features are the genes. Raises `InputError` and its kinds, with the
    file's name, for all that makes it unusable.
    """
    with open_h5ad(path, row.path) as file:
        check_size(file)
        place = find_counts(file, row.counts)
        frame = "raw/var" if place == "raw/X" else "var"
        obs, var = read_frame(file, "obs"), read_frame(file, frame)
        check_structure(file, place, len(var))
    expressed = find_expression(var, row.dataset_id)
    genes, mapping = map_genes(
        var[expressed], row.dataset_id, row.organism, row.gene_id, settings.min_mapped_genes
    )
    cells = standardize_cells(obs, row, settings)
    axes = ad.AnnData(obs=cells, var=genes, uns={names.ORGANISM: row.organism})
    mapped = genes[names.FEATURE_ID]
    found = {
        "organism": row.organism,
        "counts": place,
        "gene_ids": mapping.kind,
        "n_cells": axes.n_obs,
        "n_genes": axes.n_vars,
        "n_other_features": int((~expressed).sum()),
        "n_mapped": mapping.n_mapped,
        "n_unmapped": int((mapped == "").sum()),
        "n_merged": int(mapped[mapped != ""].duplicated().sum()),
        **describe_labels(cells),
    }
    return axes, expressed, found


def describe_labels(cells: pd.DataFrame) -> dict[str, Any]:
    """Counts of labels, donors and batches for the report."""
    labels = cells[names.CELL_TYPE].value_counts()
    labels = labels[labels.index != names.UNKNOWN].sort_index()
    terms = cells.groupby(names.CELL_TYPE, observed=True)[names.CELL_TYPE_ID].first()
    return {
        "n_labelled": int(labels.sum()),
        "labels": {str(label): int(n) for label, n in labels.items()},
        "unmapped_labels": [label for label in labels.index if terms[label] == names.UNKNOWN],
        "n_donors": int((cells[names.DONOR_ID].cat.categories != names.UNKNOWN).sum()),
        "n_batches": len(cells[names.BATCH].cat.categories),
    }
