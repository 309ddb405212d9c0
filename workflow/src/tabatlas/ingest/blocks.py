"""Rows of an experiment's matrix as CSR, written and read block by block."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from tiledbsoma import SparseNDArray, TileDBWriteOptions

from tabatlas.blocks import divide_rows
from tabatlas.ingest.context import share_context

# Counts read back at once: more take fresh memory each time, fewer take more queries.
READ_ENTRIES = 2**20

# TileDB copies what it is given. Copies of a whole block are fresh memory each time: 105 µs a cell
# (CPU); of a megabyte or two, they are the same pages again: 60.
BATCH_ENTRIES = 2**18


def read_rows(array: SparseNDArray, start: int, stop: int) -> sp.csr_matrix:
    """The stored rows `start` … `stop` - 1 as canonical CSR; rows never written are empty."""
    table = array.read((slice(start, stop - 1),)).tables().concat()
    row_n, gene_n, value_n = (column.to_numpy() for column in table.columns)
    rows = np.arange(start, stop + 1)
    pointers = np.searchsorted(row_n, rows)
    # TileDB promises no order; where tiles span all genes, as ours, it gives that of the rows.
    if (row_n[1:] < row_n[:-1]).any() or not genes_rise(pointers, gene_n):
        order = np.lexsort((gene_n, row_n))
        row_n, gene_n, value_n = row_n[order], gene_n[order], value_n[order]
        pointers = np.searchsorted(row_n, rows)
    shape = (stop - start, array.shape[1])
    return sp.csr_matrix((value_n, gene_n.astype(np.int32), pointers), shape=shape)


def genes_rise(pointers: np.ndarray, genes: np.ndarray) -> bool:
    """Whether column indices rise strictly within every row of row pointers (n + 1,)."""
    rising = genes[1:] > genes[:-1]
    starts = pointers[1:-1]
    rising[starts[(starts > 0) & (starts < len(genes))] - 1] = True
    return bool(rising.all())


def store_rows(array: SparseNDArray, start: int, values: sp.csr_matrix) -> None:
    """Make the rows from `start` on hold `values` (canonical CSR); what is there already stays.

    `array` is open for reading. A block lands whole or not at all, so a repeat after a kill
    writes what is missing. Blocks of other rows may be written at the same time.
    """
    if holds_rows(array, start, values):
        return
    table = tabulate_rows(start, values)
    # Opened for each block: a timestamp of its own.
    with SparseNDArray.open(array.uri, "w", context=share_context()) as target:
        # One tile spans all genes, so canonical CSR is TileDB's global order.
        target.write(table, platform_config=TileDBWriteOptions(sort_coords=False))


def holds_rows(array: SparseNDArray, start: int, values: sp.csr_matrix) -> bool:
    """Whether the rows from `start` on are stored as `values` (canonical CSR)."""
    return all(
        same_rows(read_rows(array, start + first, start + stop), values[first:stop])
        for first, stop in divide_rows(values.indptr, READ_ENTRIES)
    )


def tabulate_rows(start: int, values: sp.csr_matrix) -> pa.Table:
    """The entries of rows from `start` on as SOMA takes them, in batches."""
    row_n = np.repeat(np.arange(start, start + values.shape[0]), np.diff(values.indptr))
    gene_n = values.indices.astype(np.int64)
    table = pa.table([row_n, gene_n, values.data], names=["soma_dim_0", "soma_dim_1", "soma_data"])
    return pa.Table.from_batches(table.to_batches(BATCH_ENTRIES), table.schema)


def same_rows(one: sp.csr_matrix, other: sp.csr_matrix, rtol: float = 0.0) -> bool:
    """Whether two canonical CSR matrices of one shape are equal, values within `rtol`."""
    return (
        one.nnz == other.nnz
        and np.array_equal(one.indptr, other.indptr)
        and np.array_equal(one.indices, other.indices)
        and np.allclose(one.data, other.data, rtol=rtol, atol=0)
    )
