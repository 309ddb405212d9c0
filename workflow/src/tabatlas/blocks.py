"""Rows of a matrix, in a file or in memory, block by block."""

from collections.abc import Iterator

import h5py
import numpy as np
import scipy.sparse as sp
from anndata.io import read_elem

BLOCK = 1 << 22  # stored values looked at at once: 16-32 MB
# Blocks held where each of them would mean another pass over the file: about 1 GB.
PASS_BLOCKS = 8
# A matrix in a file or in memory.
Stored = h5py.Group | h5py.Dataset | np.ndarray | sp.spmatrix


def iterate_rows(stored: Stored, n_rows: int) -> Iterator[sp.csr_matrix]:
    """Blocks of `n_rows` rows of a matrix in a file or in memory, as CSR float32.

    Only a block is in memory at a time, except of a matrix that is stored by columns.
    """
    if isinstance(stored, h5py.Group) and stored.attrs["encoding-type"] == "csr_matrix":
        yield from iterate_compressed(stored, n_rows)
        return
    if isinstance(stored, h5py.Group):
        stored = read_elem(stored)
    if sp.issparse(stored):
        stored = stored.tocsr()
    for start in range(0, stored.shape[0], n_rows):
        yield sp.csr_matrix(stored[start : start + n_rows], dtype=np.float32)


def iterate_compressed(stored: h5py.Group, n_rows: int) -> Iterator[sp.csr_matrix]:
    """Blocks of rows of a stored CSR matrix."""
    pointers = stored["indptr"][:].astype(np.int64)
    for start in range(0, len(pointers) - 1, n_rows):
        yield read_compressed(stored, start, pointers[start : start + n_rows + 1])


def iterate_blocks(
    stored: h5py.Group | h5py.Dataset, first: int = 0, stop: int | None = None
) -> Iterator[tuple[int, sp.csr_matrix]]:
    """The rows from `first` to `stop` of a matrix in a file, of verified structure, in blocks.

    Yields the number of a block's first row, and the block as CSR float32. Only a block is in
    memory at a time, except of a matrix that is stored by columns: eight of them.
    """
    if isinstance(stored, h5py.Dataset):
        pointers = np.arange(stored.shape[0] + 1) * stored.shape[1]
        read, most = read_dense, BLOCK
    elif stored.attrs["encoding-type"] == "csr_matrix":
        pointers = stored["indptr"][:].astype(np.int64)
        read, most = read_compressed, BLOCK
    else:
        pointers = point_rows(stored)
        read, most = read_columns, PASS_BLOCKS * BLOCK
    rows = pointers[first : None if stop is None else stop + 1]
    for start, end in divide_rows(rows, most):
        yield first + start, read(stored, first + start, rows[start : end + 1])


def divide_rows(starts: np.ndarray, block_entries: int) -> Iterator[tuple[int, int]]:
    """Divide rows, given by their pointers (n + 1,), into runs of at most `block_entries`.

    A row of its own may hold more.
    """
    start, n_rows = 0, len(starts) - 1
    while start < n_rows:
        most = int(starts[start]) + block_entries
        stop = max(int(np.searchsorted(starts, most, side="right")) - 1, start + 1)
        yield start, stop
        start = stop


def read_dense(stored: h5py.Dataset, start: int, pointers: np.ndarray) -> sp.csr_matrix:
    """The rows from `start` on, as many as `pointers` (n + 1,) has, of a dense matrix."""
    return sp.csr_matrix(stored[start : start + len(pointers) - 1], dtype=np.float32)


def read_compressed(stored: h5py.Group, start: int, pointers: np.ndarray) -> sp.csr_matrix:
    """The rows from `start` on of a stored CSR matrix; `pointers` (n + 1,) are theirs."""
    entries = slice(pointers[0], pointers[-1])
    values, columns = stored["data"][entries], stored["indices"][entries]
    arrays = (values.astype(np.float32), columns, pointers - pointers[0])
    return sp.csr_matrix(arrays, shape=(len(pointers) - 1, int(stored.attrs["shape"][1])))


def point_rows(stored: h5py.Group) -> np.ndarray:
    """Row pointers (n + 1,) that a stored CSC matrix would have as CSR."""
    n_rows = int(stored.attrs["shape"][0])
    length_n = np.zeros(n_rows, dtype=np.int64)
    for start in range(0, len(stored["indices"]), BLOCK):
        row = stored["indices"][start : start + BLOCK].astype(np.int64)
        length_n += np.bincount(row, minlength=n_rows)
    return np.concatenate([[0], np.cumsum(length_n)])


def read_columns(stored: h5py.Group, start: int, pointers: np.ndarray) -> sp.csr_matrix:
    """The rows from `start` on, as many as `pointers` (n + 1,) has, of a stored CSC matrix."""
    n_rows, parts = len(pointers) - 1, []
    column_starts = stored["indptr"][:].astype(np.int64)
    for first in range(0, max(1, len(stored["indices"])), BLOCK):
        row = stored["indices"][first : first + BLOCK].astype(np.int64) - start
        own = np.flatnonzero((row >= 0) & (row < n_rows))
        column = np.searchsorted(column_starts, first + own, side="right") - 1
        value = stored["data"][first : first + BLOCK][own].astype(np.float32)
        parts.append((value, row[own].astype(np.int32), column.astype(np.int32)))
    value, row, column = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sp.csr_matrix((value, (row, column)), (n_rows, int(stored.attrs["shape"][1])))


def rows_of_block(stored: h5py.Dataset | np.ndarray) -> int:
    """Number of rows of a dense matrix that make up a block."""
    return max(1, BLOCK // max(1, stored.shape[1]))
