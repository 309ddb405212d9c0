"""Read one row of the dataset table and write its verified source h5ad."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import anndata as ad
import numpy as np
from anndata.io import read_elem

from tabatlas import names
from tabatlas.counts import find_counts, open_h5ad, read_matrix, write_h5ad
from tabatlas.errors import InputError, TabatlasError
from tabatlas.fetch.download import download_file, verify_file
from tabatlas.fetch.genes import find_expression, map_genes
from tabatlas.fetch.labels import standardize_cells
from tabatlas.fetch.settings import DatasetRow, FetchSettings
from tabatlas.provenance import write_json

logger = logging.getLogger(__name__)


def run(
    row: Annotated[Path, "settings/fetch/DATASET.json: the row of the dataset table"],
    settings: Annotated[Path, "settings/fetch.json"],
    source: Annotated[list[Path], "the file on this machine; none where the row has a URL"],
    cells: Annotated[Path, "source h5ad to write"],
    facts: Annotated[Path, "JSON to write: what was found, used and lost"],
) -> None:
    """Verify a source file, find its raw counts, map its genes and cells to the atlas's names."""
    chosen, about = FetchSettings.read(settings), DatasetRow.read(row)
    with local_file(about, source, cells.parent) as path:
        sha256 = verify_file(path, about.sha256, about.path)
        adata, found = standardize_file(path, about, chosen)
    found |= {"dataset_id": about.dataset_id, "source": about.path, "sha256": sha256}
    log_findings(found)
    write_h5ad(adata, cells)
    write_json(found, facts)


@contextlib.contextmanager
def local_file(row: DatasetRow, source: list[Path], folder: Path) -> Iterator[Path]:
    """The row's file on this machine; a download lives only as long as the block."""
    if not row.is_remote:
        yield source[0] if source else Path(row.path)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "download.h5ad"
        download_file(row.path, path)
        yield path


def standardize_file(
    path: Path, row: DatasetRow, settings: FetchSettings
) -> tuple[ad.AnnData, dict[str, Any]]:
    """Read a foreign h5ad; return it in the form of a source h5ad, and what was found."""
    with open_h5ad(path) as file, name_file(path):
        place = find_counts(file, row.counts)
        frame = "raw/var" if place == "raw/X" else "var"
        obs, var = read_elem(file["obs"]), read_elem(file[frame])
        if not len(obs) or not len(var):
            raise InputError(f"it holds {len(obs)} cells and {len(var)} genes; both are needed.")
        counts = read_matrix(file, place, len(var))
    expressed = find_expression(var)
    genes, mapping = map_genes(var[expressed], row, settings.min_mapped_genes)
    cells = standardize_cells(obs, row, settings)
    counts = counts if expressed.all() else counts[:, expressed]
    adata = ad.AnnData(X=counts, obs=cells, var=genes, uns={names.ORGANISM: row.organism})
    mapped = genes[names.FEATURE_ID]
    found = {
        "organism": row.organism,
        "counts": place,
        "gene_ids": mapping.kind,
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_other_features": int((~expressed).sum()),
        "n_mapped": mapping.n_mapped,
        "n_unmapped": int((mapped == "").sum()),
        "n_merged": int(mapped[mapped != ""].duplicated().sum()),
        **describe_labels(adata),
    }
    return adata, found


@contextlib.contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Put the file's name before a message that comes from within it."""
    try:
        yield
    except TabatlasError as error:
        message = str(error)
        raise error if message.startswith(str(path)) else type(error)(f"{path}: {message}") from None


def describe_labels(adata: ad.AnnData) -> dict[str, Any]:
    """Counts of labels, donors and batches for the report."""
    labels = adata.obs[names.CELL_TYPE].value_counts()
    labels = labels[labels.index != names.UNKNOWN]
    terms = adata.obs.groupby(names.CELL_TYPE, observed=True)[names.CELL_TYPE_ID].first()
    return {
        "n_labelled": int(labels.sum()),
        "labels": {str(label): int(n) for label, n in labels.sort_index().items()},
        "unmapped_labels": sorted(label for label in labels.index if terms[label] == names.UNKNOWN),
        "n_donors": int(np.sum(adata.obs[names.DONOR_ID].cat.categories != names.UNKNOWN)),
        "n_batches": len(adata.obs[names.BATCH].cat.categories),
    }


def log_findings(found: dict[str, Any]) -> None:
    """Say in one line what was found and used, and warn of what was lost."""
    logger.info(
        "%s: %d cells, counts in %s, %s ids: %d of %d genes known, %d cells labelled, %d donors",
        found["dataset_id"],
        found["n_cells"],
        found["counts"],
        found["gene_ids"],
        found["n_mapped"],
        found["n_genes"],
        found["n_labelled"],
        found["n_donors"],
    )
    if found["unmapped_labels"]:
        logger.warning(
            "%s: labels without a Cell Ontology term keep their own name: %s "
            "(map them in fetch.cell_types)",
            found["dataset_id"],
            ", ".join(found["unmapped_labels"]),
        )
