"""Divide the cells of the experiment and prove that the parts do not meet."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from tabatlas import names
from tabatlas.errors import ConfigError, InputError
from tabatlas.experiment import Experiment, open_experiment
from tabatlas.provenance import write_json
from tabatlas.split.assign import TRAIN, VALIDATION, assign_parts
from tabatlas.split.duplicates import confirm_pairs, pair_barcodes, put_best_first
from tabatlas.split.perturbations import fold_perturbations
from tabatlas.split.prove import prove_disjoint, summarize_parts
from tabatlas.split.settings import SplitSettings
from tabatlas.tables import write_table

logger = logging.getLogger(__name__)

COLUMNS = (
    names.OBS_ID,
    names.BARCODE,
    names.DATASET_ID,
    names.COLLECTION_ID,
    names.DONOR_ID,
    names.BATCH,
    names.CELL_TYPE,
    names.PERTURBATION_ID,
    names.PERTURBATION_STRATEGY,
)


def run(
    manifest: Annotated[Path, "ingest/manifest.json"],
    settings: Annotated[Path, "settings/split.json"],
    cells: Annotated[Path, "table to write: part and reason of every cell"],
    perturbations: Annotated[Path, "table to write: fold of every perturbation"],
    proof: Annotated[Path, "JSON to write: sizes, classes, and what was proved"],
) -> None:
    """Divide cells into train, validation and test by whole donors."""
    chosen = SplitSettings.read(settings)
    with open_experiment(manifest) as experiment:
        obs = experiment.read_cells(COLUMNS)
        check_datasets(chosen, experiment.dataset_ids)
        duplicates = find_duplicates(experiment, obs, chosen.held_out_datasets)
        digest = experiment.digest
    folds = fold_perturbations(
        obs, chosen.perturbation_folds, np.random.default_rng([chosen.seed, 1])
    )
    assigned, units = assign_parts(obs, duplicates, folds, chosen)
    summary = summarize_parts(assigned, units, chosen)
    summary |= {"experiment": digest, "disjoint": prove_disjoint(assigned, units)}
    log_summary(summary)
    check_parts(summary, obs)
    write_table(assigned[[names.JOINID, names.OBS_ID, names.SPLIT, "reason", "donor"]], cells)
    write_table(folds, perturbations)
    write_json(summary, proof)


def check_datasets(settings: SplitSettings, known: list[str]) -> None:
    """Raise `ConfigError` for a dataset that the settings name and the atlas lacks."""
    tied = [name for group in settings.same_people for name in group]
    for name in [*settings.held_out_datasets, *tied]:
        if name not in known:
            raise ConfigError(
                f"split: `{name}` is no dataset of the atlas; it has {', '.join(known)}."
            )
    if set(settings.held_out_datasets) >= set(known):
        raise ConfigError("split.held_out_datasets: all datasets are held out; none would train.")


def find_duplicates(
    experiment: Experiment, obs: pd.DataFrame, held_out: Sequence[str]
) -> np.ndarray:
    """Row pairs (m, 2) of one cell in two datasets, the copy that is kept first."""
    presence_mg = experiment.read_presence()
    dataset_n = obs["dataset"].to_numpy()
    joinid_n = obs[names.JOINID].to_numpy()
    pairs = confirm_pairs(
        pair_barcodes(obs),
        lambda rows: experiment.read_counts(joinid_n[rows]),
        lambda a, b: presence_mg[dataset_n[a]] & presence_mg[dataset_n[b]],
    )
    return put_best_first(pairs, obs, presence_mg.sum(axis=1)[dataset_n], held_out)


def log_summary(summary: dict[str, Any]) -> None:
    """Say how the cells were divided."""
    sizes = ", ".join(f"{part} {one['n_cells']}" for part, one in summary["parts"].items())
    units = (summary["unit"], summary["validation_unit"])
    logger.info("cells: %s; test drawn by %s, validation by %s", sizes, *units)
    for note in summary["notes"]:
        logger.info("%s", note)


def check_parts(summary: dict[str, Any], obs: pd.DataFrame) -> None:
    """Raise `InputError` where nothing is left to train on or to validate with."""
    for part in (TRAIN, VALIDATION):
        if not summary["parts"][part]["n_cells"]:
            raise InputError(
                f"no cell is left for {part} of {len(obs)}: held-out datasets, perturbation "
                "screens and what qc dropped do not count. Add an unperturbed dataset or check "
                "split.held_out_datasets."
            )
