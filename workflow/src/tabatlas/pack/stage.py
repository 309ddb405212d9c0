"""Write the training cache: what training reads, and nothing of the test."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import UsageError
from tabatlas.experiment import Experiment, open_experiment
from tabatlas.pack.genes import GeneMoments, choose_genes, describe_genes
from tabatlas.pack.settings import PackSettings
from tabatlas.pack.shards import read_shards, shuffle_cells, write_shard
from tabatlas.pack.variable import Sample, rank_variable_genes
from tabatlas.provenance import digest_file, digest_json, write_json
from tabatlas.stream.packed import FORMAT
from tabatlas.tables import read_table

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, _ = names.PARTS
PRESENCE = "presence.npy"
HVG_SAMPLE = 20_000  # cells of a dataset; its variable genes do not change with more
LEAST_CELLS = 10  # of a dataset that takes part in their choice


def run(
    manifest: Annotated[Path, "ingest/manifest.json"],
    split: Annotated[Path, "split/cells.parquet"],
    settings: Annotated[Path, "settings/pack.json"],
    shards: Annotated[Path, "folder of the cache to write"],
    pack: Annotated[Path, "manifest.json to write, last"],
) -> None:
    """Write shuffled CSR shards of the training genes, and the statistics of the genes."""
    chosen = PackSettings.read(settings)
    clear_folder(shards)
    with open_experiment(manifest) as experiment:
        cells = read_cells(experiment, split)
        rng = np.random.default_rng([chosen.seed, 0])
        parts = {part: shuffle_cells(cells, part, rng) for part in (TRAIN, VALIDATION)}
        genes = select_genes(experiment, parts[TRAIN], chosen)
        np.save(shards / PRESENCE, experiment.read_presence()[:, genes])
        write_parts(experiment, parts, genes, chosen.shard_cells, shards)
        about = {"experiment": experiment.digest, "organism": experiment.about["organism"]}
    files = {
        str(path.relative_to(shards)): digest_file(path)
        for path in sorted(shards.rglob("*"))
        if path.is_file()
    }
    counts = {part: -(-len(table) // chosen.shard_cells) for part, table in parts.items()}
    about |= {"format": FORMAT, "folder": shards.name, "parts": counts, "files": files}
    write_json(about | {"digest": digest_json(files)}, pack)
    logger.info(
        "%d training and %d validation cells × %d genes", *map(len, parts.values()), len(genes)
    )


def clear_folder(shards: Path) -> None:
    """An empty folder in place of an older pack; whatever else stands there is not ours."""
    if shards.exists():
        if any(shards.iterdir()) and not (shards / PRESENCE).is_file():
            raise UsageError(f"--shards {shards}: not empty and no pack. Name another folder.")
        shutil.rmtree(shards)
    shards.mkdir(parents=True)


def read_cells(experiment: Experiment, split: Path) -> pd.DataFrame:
    """Every cell with its part and all that a model may learn from."""
    stored = [name for name in names.COVARIATES if name != names.DONOR]
    cells = experiment.read_cells([*names.LABELS, *stored])
    parts = read_table(split, [names.JOINID, names.SPLIT])
    return cells.merge(parts, on=names.JOINID, validate="one_to_one")


def select_genes(experiment: Experiment, train: pd.DataFrame, settings: PackSettings) -> np.ndarray:
    """Positions of the training genes; variable ones are found on training cells."""
    presence_mg = experiment.read_presence()
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


def write_parts(
    experiment: Experiment,
    parts: dict[str, pd.DataFrame],
    genes: np.ndarray,
    shard_cells: int,
    folder: Path,
) -> None:
    """Write the shards and tables of all parts, and `genes.parquet` of the training part."""
    moments = GeneMoments(len(genes))
    presence_mg = experiment.read_presence()[:, genes]
    for part, table in parts.items():
        (folder / part).mkdir()
        for number, (cells, counts) in enumerate(read_shards(experiment, table, shard_cells)):
            chosen = counts[:, genes]
            write_shard(chosen, folder / part / f"{number:05d}")
            if part == TRAIN:
                moments.add(chosen, cells[names.TOTAL_N].to_numpy(), presence_mg[cells["dataset"]])
        table.drop(columns=names.SPLIT).to_parquet(folder / part / "cells.parquet", index=False)
    described = describe_genes(experiment.read_var().iloc[genes], moments)
    described.to_parquet(folder / "genes.parquet", index=False)
