"""h5ad files block by block: memory follows the cells, never their counts."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import scipy.sparse as sp
from anndata.io import read_elem, write_elem

from tabatlas.blocks import iterate_blocks
from tabatlas.counts import COMPRESSION, check_structure, open_h5ad
from tabatlas.provenance import atomic_path

CHUNK = 1 << 16  # entries that are compressed together
MOST_SHORT = np.iinfo(np.int32).max  # entries that pointers of 4 bytes reach
AXES = ("obs", "var")
# What an AnnData may hold beside them.
MAPPINGS = ("obsm", "varm", "obsp", "varp", "layers", "uns")


def read_axes(path: Path) -> ad.AnnData:
    """obs, var and uns of an h5ad that a stage of ours wrote; the structure of its X is verified.

    Raises `InputError` where the file is damaged.
    """
    with open_h5ad(path) as file:
        parts = {name: read_elem(file[name]) for name in (*AXES, "uns") if name in file}
        check_structure(file, "X", len(parts["var"]))
    return ad.AnnData(**parts)


def read_blocks(
    path: Path,
    place: str = "X",
    source: str | None = None,
    first: int = 0,
    stop: int | None = None,
) -> Iterator[tuple[int, sp.csr_matrix]]:
    """The rows from `first` to `stop` in blocks: the number of the first, canonical CSR float32.

    `place` is that of a matrix whose structure was verified, `source` what the user calls the
    file. Raises `InputError` where it is damaged.
    """
    with open_h5ad(path, source) as file:
        for start, counts in iterate_blocks(file[place], first, stop):
            counts.sum_duplicates()
            counts.eliminate_zeros()
            yield start, counts


@contextlib.contextmanager
def write_blocks(path: Path, n_genes: int, dtype: type) -> Iterator["BlockWriter"]:
    """Write an h5ad atomically, block by block; equal content gives equal bytes.

    Raises `OSError` where the disk does not take it.
    """
    with atomic_path(path) as temporary:
        file = h5py.File(temporary, "w")
        try:
            writer = BlockWriter(file, n_genes, dtype)
            yield writer
            assert writer.is_finished
        finally:
            close(file, path)


def close(file: h5py.File, path: Path) -> None:
    """Close a file that was written. Raises `OSError` where what waits cannot be written."""
    try:
        file.close()
    except RuntimeError as error:  # h5py's, and with it the system's is lost
        number = re.search(r"errno = (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from None


class BlockWriter:
    """Writes rows of counts as they come, and in the end the cells and genes that they are of."""

    def __init__(self, file: h5py.File, n_genes: int, dtype: type) -> None:
        self.file, self.n_genes, self.is_finished = file, n_genes, False
        self.matrix = file.create_group("X")
        kinds = {"data": np.dtype(dtype), "indices": np.dtype(np.int32)}
        self.waiting = {name: np.empty(0, kind) for name, kind in kinds.items()}
        for name, kind in kinds.items():
            shape = {"shape": (0,), "maxshape": (None,), "chunks": (CHUNK,)}
            self.matrix.create_dataset(name, dtype=kind, **shape, **COMPRESSION)
        self.pointers = [np.zeros(1, np.int64)]

    def append(self, counts: sp.csr_matrix) -> None:
        """Write the next rows (n, genes), canonical CSR."""
        self.pointers.append(self.pointers[-1][-1] + counts.indptr[1:].astype(np.int64))
        for name, values in self.waiting.items():
            new = getattr(counts, name).astype(values.dtype, copy=False)
            self.waiting[name] = np.concatenate([values, new])
        # Whole chunks, in turn: where they lie in the file must not depend on the blocks.
        for _ in range(len(self.waiting["data"]) // CHUNK):
            self.write_chunk()

    def write_chunk(self) -> None:
        """Write a chunk, or what is left, of what waits."""
        for name, values in self.waiting.items():
            stored, part = self.matrix[name], values[:CHUNK]
            start = stored.shape[0]
            stored.resize(start + len(part), axis=0)
            stored[start:] = part
            self.waiting[name] = values[CHUNK:]

    def finish(self, axes: ad.AnnData) -> None:
        """Complete the file by `axes`, an AnnData of the appended cells without a matrix."""
        self.write_chunk()
        pointers = np.concatenate(self.pointers)
        pointers = pointers.astype(np.int32 if pointers[-1] <= MOST_SHORT else np.int64)
        self.matrix.create_dataset("indptr", data=pointers, maxshape=(None,), **COMPRESSION)
        shape = np.array([axes.n_obs, axes.n_vars])
        assert shape.tolist() == [len(pointers) - 1, self.n_genes]
        stated = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape}
        self.matrix.attrs.update(stated)
        self.file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        axes.strings_to_categoricals()  # as AnnData.write_h5ad does
        for name in AXES:
            write_elem(self.file, name, getattr(axes, name), dataset_kwargs=COMPRESSION)
        for name in MAPPINGS:
            write_elem(self.file, name, dict(getattr(axes, name)), dataset_kwargs=COMPRESSION)
        self.is_finished = True
