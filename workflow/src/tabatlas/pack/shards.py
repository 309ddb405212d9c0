"""Write cells as shards, in an order that has nothing of the experiment's.

The experiment is read once, in its own order. What was read of a shard goes into a file of its
own, its spill; when all is read, each spill is put into stored order. So any permutation costs the
same, whatever the memory.
"""

from pathlib import Path

import numpy as np

from tabatlas.stream import layout
from tabatlas.stream.entries import EntryReader, Held
from tabatlas.stream.gather import copy_held, group_rows
from tabatlas.stream.prefetch import read_ahead

# The smallest type that holds a shard's largest count: nearly always two bytes.
COUNT_TYPES = (np.uint8, np.uint16, np.uint32)
SPILLED = ((".genes", np.uint16), (".counts", np.uint32))
# Bytes of memory that an entry takes while it is read and spilled, twice over: one window is
# read while another is written.
ENTRY_MEMORY = 32


def spill_cells(
    reader: EntryReader,
    joinid_n: np.ndarray,
    total_n: np.ndarray,
    shard_n: np.ndarray,
    memory_bytes: int,
    folder: Path,
) -> np.ndarray:
    """Read cells by joinid, with their totals, and append them to the spills of their shards.

    Returns the number of entries of each cell (n,) int64.
    """
    size = max(1, int(memory_bytes / ENTRY_MEMORY / max(1, reader.experiment.entries_per_cell)))
    by_joinid = np.argsort(joinid_n)
    windows = [by_joinid[one : one + size] for one in range(0, len(by_joinid), size)]
    loaded = read_ahead(lambda own: reader.load(joinid_n[own], total_n[own]), windows, 1, 1)
    length_n = np.empty(len(joinid_n), dtype=np.int64)
    for own, held in zip(windows, loaded, strict=True):
        length_n[own] = held.length
        spill_window(held, shard_n[own], folder)
        reader.give_back(held)
    return length_n


def spill_window(held: Held, shard_n: np.ndarray, folder: Path) -> None:
    """Append cells in memory to the spills of their shards."""
    for number, rows in group_rows(shard_n):
        arrays = copy_entries(held, rows)[1:]
        for (suffix, _), values in zip(SPILLED, arrays, strict=True):
            with open(folder / f"{number}{suffix}", "ab") as file:
                values.tofile(file)


def copy_entries(held: Held, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row pointers, genes and counts of rows in that order, in the types of a spill."""
    indptr = np.concatenate([[0], np.cumsum(held.length[rows])])
    gene, count = (np.empty(indptr[-1], kind) for _, kind in SPILLED)
    copy_held(indptr, gene, count, np.arange(len(rows)), held.begin[rows], held.gene, held.count)
    return indptr, gene, count


def read_spill(folder: Path, number: int, joinid_n: np.ndarray, length_n: np.ndarray) -> Held:
    """Take up a shard's spill and delete it; its cells came by joinid. In stored order."""
    came = np.argsort(joinid_n)
    begin_n = np.empty(len(came), dtype=np.int64)
    begin_n[came] = np.cumsum(length_n[came]) - length_n[came]
    arrays = []
    for suffix, kind in SPILLED:
        path = folder / f"{number}{suffix}"
        arrays.append(np.fromfile(path, kind) if path.exists() else np.empty(0, kind))
        path.unlink(missing_ok=True)
    return Held(joinid_n, begin_n, length_n, *arrays)


def write_shard(folder: Path, part: str, number: int, gene: np.ndarray, count: np.ndarray) -> None:
    """Write the entries of one shard."""
    largest = int(count.max(initial=0))
    kind = next(kind for kind in COUNT_TYPES if largest <= np.iinfo(kind).max)
    for name, values in zip(
        layout.name_shard(part, number), (gene, count.astype(kind)), strict=True
    ):
        values.tofile(folder / name)


def write_columns(folder: Path, part: str, columns: dict[str, np.ndarray]) -> None:
    """Write arrays over the cells of a part."""
    for name, values in columns.items():
        np.save(folder / part / f"{name}.npy", values)
