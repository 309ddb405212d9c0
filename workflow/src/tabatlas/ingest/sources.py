"""Read what `normalize` wrote: facts, cells, genes, and counts block by block."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import read_elem

from tabatlas.blocks import divide_rows
from tabatlas.counts import open_h5ad
from tabatlas.errors import InputError
from tabatlas.ingest.blocks import genes_rise
from tabatlas.names import DATASET_ID, FEATURE_ID, FEATURE_NAME, JOINID, MEASURED, OBS_ID
from tabatlas.provenance import read_json


@dataclass(frozen=True)
class Source:
    """A normalized h5ad and what `normalize` states about it."""

    path: Path
    dataset_id: str
    organism: str
    n_cells: int
    n_genes: int
    n_measured: int
    n_entries: int
    total: int
    genes_digest: str
    digest: str


def read_source(path: Path, facts: Path) -> Source:
    """Read the facts of a normalized h5ad. Raises `InputError` where one is missing."""
    stated = read_json(facts)
    wanted = [field.name for field in fields(Source) if field.name != "path"]
    missing = [name for name in wanted if name not in stated]
    if missing:
        raise InputError(f"{facts}: no `{missing[0]}` in it. Run `normalize` again.")
    return Source(path=path, **{name: stated[name] for name in wanted})


def read_cells(source: Source, first_joinid: int) -> pd.DataFrame:
    """The obs of a source with `soma_joinid` and `obs_id` as its first columns, rows in order.

    Raises `InputError` where the file is not that of its facts or a value is missing.
    """
    with open_h5ad(source.path) as file:
        cells = read_elem(file["obs"])
    expect(source, "cells", len(cells), source.n_cells)
    strangers = cells.loc[cells[DATASET_ID] != source.dataset_id, DATASET_ID]
    if len(strangers):
        raise InputError(
            f"{source.path}: holds cells of `{strangers.iloc[0]}`, but its facts are those of "
            f"`{source.dataset_id}`. Give sources and facts in the same order."
        )
    empty = [name for name in cells if cells[name].isna().any()]
    if empty:
        raise InputError(
            f"{source.path}: obs column `{empty[0]}` has missing values. "
            "Encode them as `unknown`; run `normalize` again."
        )
    joinids = np.arange(first_joinid, first_joinid + len(cells))
    cells.insert(0, OBS_ID, cells.index.astype(str))
    cells.insert(0, JOINID, joinids)
    return cells.reset_index(drop=True)


def read_genes(source: Source) -> pd.DataFrame:
    """The genes of a source in order: `feature_id`, `feature_name`, `measured`."""
    with open_h5ad(source.path) as file:
        genes = read_elem(file["var"])
    expect(source, "genes", len(genes), source.n_genes)
    expect(source, "measured genes", int(genes[MEASURED].sum()), source.n_measured)
    ids, symbols = genes.index.astype(str), genes[FEATURE_NAME].astype(str)
    return pd.DataFrame(
        {
            FEATURE_ID: ids.to_numpy(dtype=object),
            FEATURE_NAME: symbols.to_numpy(dtype=object),
            MEASURED: genes[MEASURED].to_numpy(dtype=bool),
        }
    )


def var_of(genes: pd.DataFrame) -> pd.DataFrame:
    """The experiment's var from `read_genes`: `soma_joinid`, `feature_id`, `feature_name`."""
    var = genes[[FEATURE_ID, FEATURE_NAME]].copy()
    var.insert(0, JOINID, np.arange(len(var)))
    return var


def read_blocks(source: Source, block_entries: int) -> Iterator[tuple[int, sp.csr_matrix]]:
    """First row and counts (CSR int32, canonical) of whole rows, `block_entries` at once.

    Raises `InputError` where the stored matrix is damaged or not canonical.
    """
    with open_h5ad(source.path) as file:
        stored = file["X"]
        starts = read_row_starts(source, stored)
        for start, stop in divide_rows(starts, block_entries):
            entries = slice(starts[start], starts[stop])
            data, genes = stored["data"][entries], stored["indices"][entries]
            pointers = starts[start : stop + 1] - starts[start]
            check_canonical(source, pointers, genes, data)
            shape = (stop - start, source.n_genes)
            counts = data.astype(np.int32, copy=False)
            yield int(start), sp.csr_matrix((counts, genes, pointers), shape=shape)


def read_row_starts(source: Source, stored: h5py.Group) -> np.ndarray:
    """Row pointers (n + 1,) of the stored matrix, checked against its lengths and the facts."""
    if not isinstance(stored, h5py.Group) or stored.attrs.get("encoding-type") != "csr_matrix":
        raise InputError(f"{source.path}: X is no CSR matrix. Run `normalize` again.")
    starts = stored["indptr"][:].astype(np.int64)
    expect(source, "rows in X", len(starts) - 1, source.n_cells)
    expect(source, "entries in X", int(starts[-1]), source.n_entries)
    expect(source, "values in X", stored["data"].shape[0], source.n_entries)
    expect(source, "column indices in X", stored["indices"].shape[0], source.n_entries)
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise InputError(f"{source.path}: row pointers of X are damaged. Run `normalize` again.")
    return starts


def check_canonical(
    source: Source, pointers: np.ndarray, genes: np.ndarray, data: np.ndarray
) -> None:
    """Prove rising genes in every row, within range, and positive integers.

    The experiment is written in this order without a sort and without checks of its own.
    """
    problem = ""
    if data.dtype.kind not in "iu":
        problem = f"holds {data.dtype}, not integers"
    elif len(data) and (data.min() < 1 or data.max() > np.iinfo(np.int32).max):
        problem = f"stores values from {data.min()} to {data.max()}, beyond 1 … 2³¹ - 1"
    elif len(genes) and (genes.min() < 0 or genes.max() >= source.n_genes):
        problem = f"has a column index beyond its {source.n_genes} genes"
    elif not genes_rise(pointers, genes):
        problem = "has column indices that do not rise within a row"
    if problem:
        raise InputError(f"{source.path}: X {problem}. Run `normalize` again.")


def expect(source: Source, quantity: str, found: int, stated: int) -> None:
    """Raise `InputError` where a file differs from its facts."""
    if found != stated:
        raise InputError(
            f"{source.path}: {found} {quantity}, but its facts state {stated}. "
            "The two do not belong together; run `normalize` again."
        )
