"""Build a pack in a folder of its own: genes, columns, shards, and sums that prove them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import InputError
from tabatlas.experiment import Experiment
from tabatlas.pack.genes import choose_genes, describe_genes
from tabatlas.pack.moments import GeneMoments
from tabatlas.pack.settings import PackSettings
from tabatlas.pack.shards import (
    copy_entries,
    read_spill,
    spill_cells,
    write_columns,
    write_shard,
)
from tabatlas.pack.variable import Sample, rank_variable_genes
from tabatlas.provenance import write_json
from tabatlas.stream import layout
from tabatlas.stream.columns import WHOLE, encode_cells
from tabatlas.stream.entries import EntryReader
from tabatlas.stream.gather import group_rows, sum_rows

TRAIN, VALIDATION, _ = names.PARTS
PACKED = (TRAIN, VALIDATION)
COLUMNS = tuple(dict.fromkeys([*WHOLE, *names.LABELS, *names.COVARIATES]))
HVG_SAMPLE = 20_000  # cells of a dataset; its variable genes do not change with more
LEAST_CELLS = 10  # of a dataset that takes part in their choice


def shuffle_cells(cells: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The cells of all packed parts, part by part, each in random order.

    Neighbors on disk are strangers, and any first cells of a part are a random sample.
    """
    rng = np.random.default_rng([seed, 0])
    parts = [cells[cells[names.SPLIT] == part] for part in PACKED]
    return pd.concat([one.iloc[rng.permutation(len(one))] for one in parts], ignore_index=True)


def build_pack(
    experiment: Experiment, cells: pd.DataFrame, chosen: PackSettings, folder: Path
) -> dict[str, dict[str, int]]:
    """Write all files of a pack of these cells, in stored order; return the size of its parts."""
    presence_mg = experiment.read_presence()
    genes = select_genes(experiment, cells[cells[names.SPLIT] == TRAIN], chosen, presence_mg)
    np.save(folder / layout.PRESENCE, presence_mg[:, genes])
    columns, levels = encode_cells(cells[list(COLUMNS)])
    write_json(levels, folder / layout.LEVELS)
    rows = {part: np.flatnonzero(cells[names.SPLIT] == part) for part in PACKED}
    shards = number_shards({part: len(own) for part, own in rows.items()}, chosen.shard_cells)
    length_n = spill_cells(
        EntryReader(experiment, genes),
        *(columns[name] for name in (names.JOINID, names.TOTAL_N)),
        np.concatenate(list(shards.values())),
        chosen.memory_bytes,
        folder,
    )
    moments, parts = GeneMoments(presence_mg[:, genes]), {}
    for part, own in rows.items():
        own_columns = {name: values[own] for name, values in columns.items()}
        into = moments if part == TRAIN else None
        parts[part] = write_part(folder, part, shards[part], own_columns, length_n[own], into)
    described = describe_genes(experiment.read_var().iloc[genes], moments.describe())
    described.to_parquet(folder / layout.GENES, index=False)
    return parts


def number_shards(n_cells: dict[str, int], shard_cells: int) -> dict[str, np.ndarray]:
    """Shard of each cell of each part, in stored order, counted over all parts."""
    shards, first = {}, 0
    for part, n in n_cells.items():
        shards[part] = first + np.arange(n) // shard_cells
        first += -(-n // shard_cells)
    return shards


def write_part(
    folder: Path,
    part: str,
    shard_n: np.ndarray,
    columns: dict[str, np.ndarray],
    length_n: np.ndarray,
    moments: GeneMoments | None,
) -> dict[str, int]:
    """Write shards and columns of a part whose cells were spilled; return its size."""
    (folder / part).mkdir()
    check_n = np.empty(len(shard_n), dtype=np.uint64)
    for number, (spill, rows) in enumerate(group_rows(shard_n)):
        held = read_spill(folder, spill, columns[names.JOINID][rows], length_n[rows])
        indptr, gene, count = copy_entries(held, np.arange(len(rows)))
        check_n[rows] = sum_rows(indptr, gene, count)
        write_shard(folder, part, number, gene, count)
        if moments:
            own = (columns[name][rows] for name in (names.TOTAL_N, "dataset"))
            moments.add(indptr, gene, count, *own)
    indptr = np.concatenate([[0], np.cumsum(length_n)])
    write_columns(folder, part, columns | {layout.INDPTR: indptr, layout.CHECK: check_n})
    return {"n_cells": len(shard_n), "n_entries": int(indptr[-1])}


def select_genes(
    experiment: Experiment, train: pd.DataFrame, settings: PackSettings, presence_mg: np.ndarray
) -> np.ndarray:
    """Positions of the training genes; variable ones are found on training cells.

    Raises `InputError` where there is no such cell.
    """
    if train.empty:
        raise InputError(
            "no cell is left for training. Lower split.validation_fraction and "
            "split.test_fraction, or hold out fewer datasets."
        )
    measured = presence_mg[np.unique(train["dataset"])].any(axis=0)
    atlas = pd.Index(experiment.read_var()[names.FEATURE_ID])
    genes = choose_genes(settings, atlas, measured, experiment.about["organism"])
    if settings.genes != "hvg":
        return genes
    samples = sample_datasets(experiment, train, genes, presence_mg[:, genes])
    return genes[rank_variable_genes(samples, len(genes), settings.n_hvg)]


def sample_datasets(
    experiment: Experiment, train: pd.DataFrame, genes: np.ndarray, presence_mg: np.ndarray
) -> Iterator[Sample]:
    """Training cells of one dataset after the other, with the genes that it measured."""
    # A dataset of a few cells has no dispersion to rank by.
    least = min(LEAST_CELLS, train["dataset"].value_counts().max())
    for dataset, cells in train.groupby("dataset"):
        if len(cells) < least:
            continue
        chosen = cells.iloc[:HVG_SAMPLE]  # the table is shuffled
        counts = experiment.read_counts(chosen[names.JOINID].to_numpy())[:, genes]
        yield Sample(counts, chosen[names.TOTAL_N].to_numpy(), presence_mg[dataset])
