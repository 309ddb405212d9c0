"""Search the samples of a file for doublets, with few of them in memory at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from tabatlas import blocks
from tabatlas.h5ad import read_blocks
from tabatlas.qc.doublets import Doublets, find_doublets, refuse_library
from tabatlas.qc.settings import QCSettings


def search_samples(
    path: Path, rows: dict[str, np.ndarray], n_genes_n: np.ndarray, settings: QCSettings
) -> Iterator[tuple[str, Doublets]]:
    """The doublets of each sample of an h5ad, by name; `rows` are those of its cells, rising.

    `n_genes_n` is the number of genes that each cell of the file shows.
    """
    wanted = {}
    for name, row_m in rows.items():
        obstacle = refuse_library(len(row_m), settings)
        if obstacle:
            yield name, Doublets.unsearched(len(row_m), obstacle)
        else:
            wanted[name] = row_m
    for group in group_samples(wanted, n_genes_n):
        for name, counts in read_samples(path, group):
            yield name, find_doublets(counts, settings)


def group_samples(
    rows: dict[str, np.ndarray], n_genes_n: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Samples that are read together: neighbors in the file, as many as memory is meant for."""
    group, n_entries = {}, 0
    for name in sorted(rows, key=lambda name: rows[name][0]):
        n_own = int(n_genes_n[rows[name]].sum())
        if group and n_entries + n_own > blocks.PASS_BLOCKS * blocks.BLOCK:
            yield group
            group, n_entries = {}, 0
        group[name] = rows[name]
        n_entries += n_own
    if group:
        yield group


def read_samples(path: Path, rows: dict[str, np.ndarray]) -> Iterator[tuple[str, sp.csr_matrix]]:
    """The counts of each sample's rows, all in one pass over the file."""
    parts = {name: [] for name in rows}
    ends = [row for row_m in rows.values() for row in (row_m[0], row_m[-1])]
    for start, counts in read_blocks(path, first=min(ends), stop=max(ends) + 1):
        for name, row_m in rows.items():
            within = slice(*np.searchsorted(row_m, [start, start + counts.shape[0]]))
            parts[name].append(counts[row_m[within] - start])
    for name in rows:
        yield name, sp.vstack(parts.pop(name), format="csr")
