"""Read one row of the dataset table and write its verified source h5ad."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tabatlas.errors import show_some
from tabatlas.fetch.download import download_file, verify_file
from tabatlas.fetch.isolate import allow_seconds, call_isolated
from tabatlas.fetch.settings import DatasetRow, FetchSettings
from tabatlas.fetch.standardize import standardize_file
from tabatlas.h5ad import read_blocks, write_blocks
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
    cells.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cells.parent, prefix=".fetch.") as folder:
        path = bring_file(about, source, Path(folder))
        sha256 = verify_file(path, about.sha256, about.path)
        # A damaged file can crash the HDF5 library or lock it in an endless loop.
        seconds = allow_seconds(path)
        written = Path(folder, "cells.h5ad")
        found = call_isolated(about.path, seconds, convert_file, path, about, chosen, written)
        os.replace(written, cells)
    found |= {"dataset_id": about.dataset_id, "source": about.path, "sha256": sha256}
    log_findings(found)
    write_json(found, facts)


def bring_file(row: DatasetRow, source: list[Path], folder: Path) -> Path:
    """The row's file on this machine, downloaded into `folder` where it is elsewhere."""
    if not row.is_remote:
        return source[0] if source else Path(row.path)
    path = folder / "download.h5ad"
    download_file(row.path, path)
    return path


def convert_file(
    path: Path, row: DatasetRow, settings: FetchSettings, cells: Path
) -> dict[str, Any]:
    """Write a foreign h5ad as a source h5ad; return what was found."""
    axes, expressed_g, found = standardize_file(path, row, settings)
    with write_blocks(cells, axes.n_vars, np.float32) as written:
        for _, counts in read_blocks(path, found["counts"], row.path):
            written.append(counts if expressed_g.all() else counts[:, expressed_g])
        written.finish(axes)
    return found


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
            show_some(found["unmapped_labels"]),
        )
