"""A small atlas with cell types that can be learnt, up to its pack."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from synthetic import make_experiment, make_normalized, write_normalized
from tabatlas import names
from tabatlas.pack import stage as pack
from tabatlas.provenance import read_json
from tabatlas.split import stage as split
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.packed import PackedSource

N_GENES = 60
UNMEASURED = (50, 51, 52)


def make_typed(path: Path, dataset_id: str, n_cells: int, **options: object) -> Path:
    """A normalized h5ad in which each of three types expresses ten genes of its own."""
    adata = make_normalized(path, dataset_id, n_cells, N_GENES, density=0.3, **options)
    counts = adata.X.tolil()
    for cell, label in enumerate(adata.obs[names.CELL_TYPE].astype(str)):
        own = 10 * int(label[-1])
        counts[cell, own : own + 10] = 1000 + 10 * np.arange(10)
    adata.X = sp.csr_matrix(counts)
    adata.obs[names.TOTAL_N] = np.asarray(adata.X.sum(axis=1), dtype=np.int64).ravel()
    write_normalized(adata, path)
    return path


@dataclass(frozen=True)
class Atlas:
    """Paths of a small atlas up to its pack."""

    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "ingest" / "manifest.json"

    @property
    def cells(self) -> Path:
        return self.folder / "split" / "cells.parquet"

    @property
    def proof(self) -> Path:
        return self.folder / "split" / "split.json"

    @property
    def pack(self) -> Path:
        return self.folder / "pack" / "manifest.json"

    @property
    def packed(self) -> Path:
        """The folder of the pack's files."""
        return self.pack.parent / read_json(self.pack)["folder"]

    def read_packed(self, part: str = "train") -> tuple[PackedSource, Minibatch]:
        """A part of the pack, and all its cells in stored order."""
        source = PackedSource(self.pack, part)
        return source, source.read(np.arange(len(source)))

    def settings(self, stage: str, **knobs: object) -> Path:
        """Write the settings of a stage."""
        path = self.folder / "settings" / f"{stage}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(knobs))
        return path

    def run_split(self, **knobs: object) -> None:
        perturbations = self.folder / "split" / "perturbations.parquet"
        settings = self.settings("split", **knobs)
        split.run(self.manifest, settings, self.cells, perturbations, self.proof)

    def run_pack(self, **knobs: object) -> None:
        shards = self.folder / "pack" / "shards"
        pack.run(self.manifest, self.cells, self.settings("pack", **knobs), shards, self.pack)


def make_atlas(folder: Path) -> Atlas:
    """Three datasets of one collection, twelve donors, three types."""
    sources = [
        make_typed(folder / "a.h5ad", "a", 120, n_donors=4),
        make_typed(folder / "b.h5ad", "b", 90, n_donors=6, unmeasured=UNMEASURED),
        make_typed(folder / "c.h5ad", "c", 60, n_donors=2),
    ]
    make_experiment(folder / "ingest", sources)
    return Atlas(folder)
