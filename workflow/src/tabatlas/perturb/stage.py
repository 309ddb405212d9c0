"""Read screens outside the atlas; predict perturbation effects and score them.

`read` verifies one screen; `predict` audits what training saw, predicts and scores.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from tabatlas import names
from tabatlas.counts import read_counts
from tabatlas.errors import ConfigError
from tabatlas.experiment import Experiment, check_sealed, open_experiment
from tabatlas.fetch.download import verify_file
from tabatlas.fetch.isolate import allow_seconds, call_isolated
from tabatlas.fetch.settings import FetchSettings
from tabatlas.fetch.stage import bring_file
from tabatlas.perturb.audit import audit_cells, audit_fits, list_yielded
from tabatlas.perturb.reading import convert_screen
from tabatlas.perturb.records import EFFECTS, FORMAT, name_tensors
from tabatlas.perturb.screens import Unit, find_atlas_units, find_file_units
from tabatlas.perturb.settings import PerturbSettings
from tabatlas.perturb.units import Genome, Outcome, predict_unit, prepare_genome
from tabatlas.provenance import read_json, write_json
from tabatlas.stream.layout import read_manifest
from tabatlas.stream.packed import PackedSource
from tabatlas.tables import open_table, read_table
from tabatlas.tabnet.decoder import Decoder
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.model import (
    Model,
    check_pack,
    gene_statistics,
    read_model,
    restore_encoder,
)
from tabatlas.train.tensors import load_weights, pick, write_tensors

logger = logging.getLogger(__name__)


def read(
    screen: Annotated[str, "dataset_id of a row of perturb.datasets"],
    settings: Annotated[Path, "settings/perturb.json"],
    fetch: Annotated[Path, "settings/fetch.json: control labels, least share of known genes"],
    source: Annotated[list[Path], "the file on this machine; none where the row has a URL"],
    cells: Annotated[Path, "h5ad of the screen to write"],
    facts: Annotated[Path, "JSON to write: what was found, used and lost"],
) -> None:
    """Verify a screen outside the atlas: counts or log1p(CP10k), genes, perturbations."""
    row = PerturbSettings.read(settings).find_row(screen)
    if row is None:
        raise ConfigError(f"--screen {screen}: perturb.datasets has no such row. Add it.")
    cells.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cells.parent, prefix=".read.") as folder:
        path = bring_file(row.to_dataset(), source, Path(folder))
        sha256 = verify_file(path, row.sha256, row.path)
        seconds = allow_seconds(path)
        written = Path(folder, "cells.h5ad")
        chosen = FetchSettings.read(fetch)
        found = call_isolated(row.path, seconds, convert_screen, path, row, chosen, written)
        os.replace(written, cells)
    found |= {"dataset_id": screen, "source": row.path, "sha256": sha256}
    logger.info(
        "%s: %d cells, %s in %s, %d of %d genes known, %d perturbations of %d genes",
        *(screen, found["n_cells"], found["expression"], found["place"], found["n_mapped"]),
        *(found["n_genes"], found["n_perturbations"], len(found["targets"])),
    )
    write_json(found, facts)


@dataclass(frozen=True)
class Inputs:
    """What `predict` reads besides cells."""

    folds: pd.DataFrame
    proof: dict[str, Any]
    cells: pd.DataFrame
    screens: list[Path]
    screen_facts: list[Path]


def predict(
    encoder: Annotated[Path, "folder of the pretrained encoder"],
    pack: Annotated[Path, "pack/manifest.json"],
    manifest: Annotated[Path, "ingest/manifest.json"],
    split: Annotated[Path, "split/cells.parquet"],
    perturbations: Annotated[Path, "split/perturbations.parquet"],
    proof: Annotated[Path, "split/split.json: seed and number of folds, for outside screens"],
    screens: Annotated[list[Path], "perturb/screens/SCREEN.h5ad of every screen outside"],
    facts: Annotated[list[Path], "perturb/screens/SCREEN.json of every screen outside"],
    settings: Annotated[Path, "settings/perturb.json"],
    model: Annotated[Path, "folder to write: scores, predictions, heads"],
) -> None:
    """Audit what training saw, predict effects, score them beside baselines and a ceiling."""
    chosen = PerturbSettings.read(settings)
    check_sealed(manifest, read_manifest(pack)["experiment"], pack)
    device = choose_device(chosen.device, chosen.threads)
    train, validation = PackedSource(pack, "train"), PackedSource(pack, "validation")
    inputs = Inputs(read_table(perturbations), read_json(proof), read_table(split), screens, facts)
    # The bits of BLAS depend on its number of threads.
    with open_experiment(manifest) as experiment, threadpool_limits(1, user_api="blas"):
        obs = experiment.read_obs([names.PERTURBATION_ID])
        audit = audit_cells(list_yielded(train, validation, chosen.seed), obs, inputs.folds)
        pretrained = read_model(encoder)
        check_pack(pretrained, train.digest, encoder)
        genome = prepare_genome(*build_network(pretrained, device), pretrained.genes, train, chosen)
        units = list_units(experiment, inputs, pretrained.genes)
        outcomes = predict_units(units, genome, chosen, model / "predictions.parquet")
    sets = [one for outcome in outcomes for one in outcome.sets]
    audit["n_leaked_perturbations"] = audit_fits(sets)
    write_outcomes(outcomes, audit, [read_json(path) for path in facts], model)


def predict_units(
    units: Iterator[Unit], genome: Genome, settings: PerturbSettings, table: Path
) -> list[Outcome]:
    """Predict unit by unit; the effects are written to `table` and not kept."""
    outcomes = []
    with open_table(table, EFFECTS) as append:
        # No name for a unit: its reader holds a screen in memory, which goes before the next.
        for outcome in map(partial(predict_unit, genome=genome, settings=settings), units):
            for effects in outcome.tables:
                append(effects)
            outcomes.append(replace(outcome, tables=[]))
    return outcomes


def build_network(pretrained: Model, device: torch.device) -> tuple[torch.nn.Module, Decoder]:
    """Encoder and decoder on their device, as pretraining left them."""
    generator = seed_generator("cpu", 0)  # every weight is loaded
    encoder = restore_encoder(pretrained, generator)
    decoder = Decoder(pretrained.architecture, *gene_statistics(pretrained.genes), generator)
    load_weights(decoder, pick(pretrained.tensors, "decoder"), "decoder")
    return encoder.to(device).eval(), decoder.to(device).eval()


def list_units(experiment: Experiment, inputs: Inputs, genes: pd.DataFrame) -> Iterator[Unit]:
    """Units of the screens in the atlas, then of those outside it."""
    yield from find_atlas_units(experiment, inputs.cells, inputs.folds, genes)
    seed, n_folds = inputs.proof["seed"], inputs.proof["perturbation_folds"]
    for path, facts in zip(inputs.screens, inputs.screen_facts, strict=True):
        # The same draw as in `split`: (seed, 1).
        yield from find_file_units(
            read_json(facts)["dataset_id"],
            read_counts(path),
            n_folds,
            lambda: np.random.default_rng([seed, 1]),
        )


def write_outcomes(
    outcomes: Sequence[Outcome], audit: dict[str, int], facts: list[dict[str, Any]], folder: Path
) -> None:
    """Write scores and heads; the weights, which a reader looks for, last."""
    heads, tensors = [], {}
    for number, outcome in enumerate(one for one in outcomes if one.head is not None):
        heads.append({"number": number} | outcome.about_head)
        tensors |= name_tensors(outcome.head, number)
    if not outcomes:
        logger.info("no screen: nothing is predicted")
    scores = {
        "audit": audit,
        "screens": [outcome.about for outcome in outcomes],
        "sources": [
            {key: one[key] for key in ("dataset_id", "sha256", "expression")} for one in facts
        ],
    }
    write_json({"format": FORMAT, "heads": heads}, folder / "heads.json")
    write_json(scores, folder / "scores.json")
    write_tensors(tensors, {}, folder / "model.safetensors")
