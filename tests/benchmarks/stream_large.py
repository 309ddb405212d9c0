"""A pack of many random cells, made without an experiment, for what grows with the data."""

import shutil
from pathlib import Path

import numpy as np
from stream_data import LABELS, Atlas, draw_counts, list_genes

from tabatlas import names
from tabatlas.pack.shards import write_columns, write_shard
from tabatlas.provenance import digest_files, read_json, write_json
from tabatlas.stream import layout
from tabatlas.stream.gather import sum_rows

TRAIN = names.PARTS[0]


def write_large_pack(small: Atlas, large: Atlas, n_cells: int) -> None:
    """Write training cells that are no cell of `small`, whose pack lends genes, columns and form.

    Their counts are drawn; their columns are those of other cells, but for what must be true.
    """
    about = read_json(small.pack)
    model, folder = small.pack.parent / about["folder"], large.pack.with_name("shards")
    assert np.load(model / layout.PRESENCE).shape[1] == len(list_genes())
    (folder / TRAIN).mkdir(parents=True)
    for name in (layout.GENES, layout.PRESENCE, layout.LEVELS):
        shutil.copy(model / name, folder / name)
    own = write_shards(folder, n_cells, about["shard_cells"])
    lender = np.random.default_rng(0).integers(about["parts"][TRAIN]["n_cells"], size=n_cells)
    lent = {name: np.load(model / TRAIN / f"{name}.npy")[lender] for name in about["columns"]}
    write_columns(folder, TRAIN, lent | own)
    about["parts"] = {TRAIN: {"n_cells": n_cells, "n_entries": int(own[layout.INDPTR][-1])}}
    about["files"] = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in digest_files(folder).items()
    }
    write_json(layout.seal(about) | {"folder": folder.name}, large.pack)


def write_shards(folder: Path, n_cells: int, shard_cells: int) -> dict[str, np.ndarray]:
    """Draw the cells shard by shard; return the columns that are theirs."""
    rng, length_n, check_n, total_n = np.random.default_rng(0), [], [], []
    for number, first in enumerate(range(0, n_cells, shard_cells)):
        rows = np.arange(first, min(first + shard_cells, n_cells)) + (1 << 32)
        counts = draw_counts(rows, rng.integers(len(LABELS), size=len(rows)))
        gene, count = counts.indices.astype(np.uint16), counts.data.astype(np.uint32)
        write_shard(folder, TRAIN, number, gene, count)
        check_n.append(sum_rows(counts.indptr, gene, count))
        length_n.append(np.diff(counts.indptr))
        total_n.append(counts.sum(axis=1, dtype=np.int64).A1)
    columns = (np.concatenate(one) for one in (length_n, check_n, total_n))
    length_n, check_n, total_n = columns
    return {
        names.JOINID: np.arange(n_cells),
        names.TOTAL_N: total_n,
        layout.INDPTR: np.append(0, np.cumsum(length_n)),
        layout.CHECK: check_n,
    }
