"""The training cache: memory-mapped CSR shards, written by `pack`, verified when opened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tabatlas import names
from tabatlas.errors import IntegrityError, ModelError
from tabatlas.provenance import digest_file, read_json
from tabatlas.stream.columns import Covariate, encode_labels, encode_levels, take_numbers
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import order_minibatches

FORMAT = 1
ARRAYS = ("indptr", "gene", "count")


@dataclass(frozen=True)
class Shard:
    """Cells of one shard: `indptr` (n + 1,) int64, `gene` u16, `count` u8, u16 or u32."""

    indptr: np.ndarray
    gene: np.ndarray
    count: np.ndarray


class PackedSource:
    """Cells of one part (train or validation) of a pack.

    `presence` (datasets, g) says which genes each dataset measured; `cells` is the table of the
    cells in stored order. Raises `ModelError` or `IntegrityError` where the pack is not whole.
    """

    def __init__(
        self,
        manifest: Path,
        part: str,
        labels: Sequence[str] = (),
        covariates: Sequence[Covariate] = (),
    ) -> None:
        about = read_manifest(manifest)
        self.folder = manifest.parent / about["folder"]
        self.digest: str = about["digest"]
        verify_files(self.folder, about["files"], part)
        self.genes = pd.read_parquet(self.folder / "genes.parquet")
        self.presence = torch.from_numpy(np.load(self.folder / "presence.npy"))
        self.cells = pd.read_parquet(self.folder / part / "cells.parquet")
        shards = about["parts"][part]
        self.shards = [open_shard(self.folder / part / f"{i:05d}") for i in range(shards)]
        self.starts = np.cumsum([0] + [len(shard.indptr) - 1 for shard in self.shards])
        self.label_n = encode_labels(self.cells, labels)
        self.covariates = tuple(covariates)
        self.level_nk = encode_levels(self.cells, covariates)
        self.number_nj = take_numbers(self.cells, covariates)
        self.total_n = self.cells[names.TOTAL_N].to_numpy(dtype=np.int64)
        self.dataset_n = self.cells["dataset"].to_numpy(dtype=np.int64)
        self.joinid_n = self.cells[names.JOINID].to_numpy(dtype=np.int64)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def n_genes(self) -> int:
        """Number of training genes."""
        return len(self.genes)

    def keep_labelled(self) -> np.ndarray:
        """Rows of the cells that have one of the labels."""
        return np.flatnonzero(self.label_n >= 0)

    def iterate(self, rows: np.ndarray, batch_size: int) -> Iterator[Minibatch]:
        """Minibatches over `rows` in their order, for validation and prediction."""
        for start in range(0, len(rows), batch_size):
            yield self.read(rows[start : start + batch_size])

    def shuffle(
        self, rows: np.ndarray, batch_size: int, seed: int, epoch: int, first: int = 0
    ) -> Iterator[Minibatch]:
        """Minibatches of one epoch over `rows` from number `first` on, in the one order."""
        for chosen in order_minibatches(len(rows), batch_size, seed, epoch)[first:]:
            yield self.read(rows[chosen])

    def read(self, rows: np.ndarray) -> Minibatch:
        """The cells at stored positions `rows`, in that order."""
        indptr, gene, count = self.gather(rows)
        return Minibatch(
            indptr=torch.from_numpy(indptr),
            gene=torch.from_numpy(gene.astype(np.int32)),
            count=torch.from_numpy(count.astype(np.float32)),
            total_n=torch.from_numpy(self.total_n[rows]),
            dataset=torch.from_numpy(self.dataset_n[rows]),
            label=torch.from_numpy(self.label_n[rows]),
            level=torch.from_numpy(self.level_nk[rows]),
            number=torch.from_numpy(self.number_nj[rows]),
            joinid=torch.from_numpy(self.joinid_n[rows]),
        )

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """CSR arrays of `rows`: row pointers, genes, counts."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        lengths = np.zeros(len(rows), dtype=np.int64)
        for number in np.unique(owner):
            mine = owner == number
            local = rows[mine] - self.starts[number]
            indptr = self.shards[number].indptr
            lengths[mine] = indptr[local + 1] - indptr[local]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        gene = np.empty(indptr[-1], dtype=np.uint16)
        count = np.empty(indptr[-1], dtype=np.uint32)
        for number in np.unique(owner):
            shard = self.shards[number]
            mine = np.flatnonzero(owner == number)
            begin = shard.indptr[rows[mine] - self.starts[number]]
            source, target = spread(begin, lengths[mine]), spread(indptr[mine], lengths[mine])
            gene[target], count[target] = shard.gene[source], shard.count[source]
        return indptr, gene, count


def spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions start, start + 1, … of several runs, one after the other."""
    offsets = np.cumsum(lengths) - lengths
    return np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())


def open_shard(folder: Path) -> Shard:
    """Map the arrays of a shard; nothing is read before it is asked for."""
    return Shard(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS})


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a pack."""
    if not path.is_file():
        raise ModelError(f"{path}: no pack there. Run `tabatlas pack` (it is derived).")
    about = read_json(path)
    if about.get("format") != FORMAT:
        raise ModelError(f"{path}: pack of format {about.get('format')}, not {FORMAT}. Pack again.")
    return about


def verify_files(folder: Path, files: dict[str, str], part: str) -> None:
    """Compare the files of a part, and those of all parts, with the digests of the manifest."""
    for name, digest in files.items():
        if "/" in name and not name.startswith(f"{part}/"):
            continue
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path}: this file of the pack is missing. Pack again.")
        if digest_file(path) != digest:
            raise IntegrityError(f"{path}: its bytes are not those that were packed. Pack again.")
