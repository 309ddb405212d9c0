"""The training cache: memory-mapped CSR shards, written by `pack`, proven as they are read."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import torch

from tabatlas.errors import IntegrityError
from tabatlas.provenance import read_json
from tabatlas.stream import layout
from tabatlas.stream.columns import Cells, Covariate
from tabatlas.stream.gather import copy_rows, group_rows
from tabatlas.stream.minibatch import ENTRY_BYTES, Memory, Minibatch
from tabatlas.stream.order import Order, Plan, Share
from tabatlas.stream.prefetch import Reading, read_ahead
from tabatlas.stream.source import Source

# Shards that are mapped at once: each holds two of the files that a process may have open.
N_MAPPED = 256


class PackedSource(Source):
    """Cells of one part (train or validation) of a pack.

    `presence` (datasets, g) says which genes each dataset measured. Counts and columns stay in
    their files, mapped; every row that is read is compared with the sum that was written with it.
    Raises `ModelError` or `IntegrityError` where the pack is not whole.
    """

    def __init__(
        self,
        manifest: Path,
        part: str,
        labels: Sequence[str] = (),
        covariates: Sequence[Covariate] = (),
        reading: Reading | None = None,
    ) -> None:
        about = layout.read_manifest(manifest)
        self.about, self.part = about, part
        self.folder = manifest.parent / about["folder"]
        self.digest: str = about["digest"]
        self.plan = Plan(**about["plan"])
        self.reading, self.covariates = reading or Reading(), tuple(covariates)
        self.watch = layout.Watch(self.folder, about["files"], part)
        self.genes = pd.read_parquet(self.folder / layout.GENES)
        self.presence = torch.from_numpy(np.load(self.folder / layout.PRESENCE))
        columns = layout.Columns(self.watch, part, about["columns"])
        levels = read_json(self.folder / layout.LEVELS)
        self.cells = Cells(columns, levels, labels, covariates)
        self.rows = layout.Columns(self.watch, part, (layout.INDPTR, layout.CHECK))
        self.shard_cells: int = about["shard_cells"]
        self.map_shard = lru_cache(N_MAPPED)(self.open_shard)

    def open_shard(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Genes and counts of a shard, mapped."""
        bounds = np.minimum(np.array([number, number + 1]) * self.shard_cells, len(self))
        n_entries = int(np.diff(self.rows[layout.INDPTR][bounds])[0])
        gene, count = layout.name_shard(self.part, number)
        return tuple(layout.map_entries(self.folder / one, n_entries) for one in (gene, count))

    @property
    def n_genes(self) -> int:
        """Number of training genes."""
        return len(self.genes)

    def keep_labeled(self) -> np.ndarray:
        """Rows of the cells that have one of the labels."""
        return np.flatnonzero(self.cells.find_classes(slice(None)) >= 0)

    def iterate(self, rows: np.ndarray, batch_size: int) -> Iterator[Minibatch]:
        """Minibatches over `rows` in their order, for validation and prediction."""
        starts = range(0, len(rows), batch_size)
        return self.read_all((rows[one : one + batch_size] for one in starts), batch_size)

    def shuffle(
        self, order: Order, epoch: int, first: int = 0, share: Share | None = None
    ) -> Iterator[Minibatch]:
        """The micro-batches of a share of each minibatch of one epoch, from number `first` on."""
        own = share or Share()
        wanted = chain.from_iterable(map(own.cut, order.draw(epoch).minibatches(first)))
        return self.read_all(wanted, order.batch_size / own.world, own.n_own)

    def read_all(
        self, wanted: Iterator[np.ndarray], n_cells: float, n_parts: int = 1
    ) -> Iterator[Minibatch]:
        """`read` of each of the wanted rows ahead of its use; `n_parts` make up `n_cells`."""
        n_entries = self.rows[layout.INDPTR][-1] / max(1, len(self))
        n_ahead = self.reading.count_ahead("minibatches", n_cells * n_entries * ENTRY_BYTES)
        memory = Memory(self.n_genes)
        return read_ahead(
            lambda rows: self.deliver(self.read(rows, memory)),
            wanted,
            self.reading.threads,
            n_ahead * n_parts,
        )

    def read(self, rows: np.ndarray, memory: Memory | None = None) -> Minibatch:
        """The cells at stored positions `rows`, in that order, in memory of that pool.

        Raises `IntegrityError` where a file changed since it was opened, or where what is read is
        not what was written.
        """
        pointers, check = self.rows[layout.INDPTR], self.rows[layout.CHECK]
        begin = pointers[rows]
        indptr, gene, count = (memory or Memory(self.n_genes)).make_rows(pointers[rows + 1] - begin)
        copy = partial(copy_rows, indptr, check[rows], gene.numpy(), count.numpy())
        for number, place in group_rows(rows // self.shard_cells):
            self.watch.prove(layout.name_shard(self.part, number))
            first = pointers[number * self.shard_cells]
            wrong = copy(place, begin[place] - first, *self.map_shard(number))
            if wrong >= 0:
                self.refuse(number, int(rows[wrong]))
        fields = self.cells.describe(rows)
        return Minibatch(indptr=torch.from_numpy(indptr), gene=gene, count=count, **fields)

    def refuse(self, number: int, row: int) -> NoReturn:
        """Raise `IntegrityError` for a row of a shard that is not what was written."""
        path = self.folder / layout.name_shard(self.part, number)[0]
        raise IntegrityError(
            f"{path}: the counts of cell {row % self.shard_cells} are not those that were packed. "
            f"{layout.AGAIN}"
        )
