"""Train an embedding from the encoder, embed every cell, compare with other methods."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch

from tabatlas import names
from tabatlas.experiment import Experiment, check_sealed, open_experiment
from tabatlas.integrate.embed import read_embedding, write_embedding
from tabatlas.integrate.evaluate import evaluate_embedding
from tabatlas.integrate.model import CountDecoder, Embedder
from tabatlas.integrate.obsm import check_shape, write_obsm
from tabatlas.integrate.sample import count_left_out, sample_cells
from tabatlas.integrate.settings import IntegrateSettings
from tabatlas.integrate.task import ConditionalCounts
from tabatlas.provenance import write_json
from tabatlas.stream.layout import read_manifest
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource
from tabatlas.tables import write_table
from tabatlas.tabnet.covariates import CONDITION, Covariate
from tabatlas.train.covariates import describe_covariates
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.engine import Trainer, key_run
from tabatlas.train.model import (
    Model,
    check_pack,
    read_model,
    restore_encoder,
    write_model,
)
from tabatlas.train.predict import predict
from tabatlas.train.settings import CovariateSettings
from tabatlas.train.tensors import name_parts

logger = logging.getLogger(__name__)

SHARE_CELLS = 20_000  # enough to know which genes are high and which are low


def run(
    encoder: Annotated[Path, "folder of the pretrained encoder"],
    pack: Annotated[Path, "pack/manifest.json"],
    manifest: Annotated[Path, "ingest/manifest.json"],
    settings: Annotated[Path, "settings/integrate.json"],
    checkpoints: Annotated[Path, "folder of checkpoints, kept over interruptions"],
    embedding: Annotated[Path, "table to write: the embedding of every cell"],
    layout: Annotated[Path, "table to write: two dimensions of the scored cells, for the eye"],
    model: Annotated[Path, "folder of the model to write"],
) -> None:
    """Learn an embedding without the marks of library and assay, and embed every cell."""
    chosen = IntegrateSettings.read(settings)
    check_sealed(manifest, read_manifest(pack)["experiment"], pack)
    check_obsm(manifest, chosen)
    device = choose_device(chosen.device, chosen.threads)
    pretrained = read_model(encoder)
    conditions = choose_conditions(PackedSource(pack, "train"), chosen)
    train, validation = (
        PackedSource(pack, part, covariates=conditions, reading=chosen.reading(device.type))
        for part in ("train", "validation")
    )
    check_pack(pretrained, train.digest, encoder)
    task = build_task(pretrained, train, validation, chosen, device)
    inputs = {"encoder": pretrained.digest, "pack": train.digest}
    folder = checkpoints / key_run("integrate", chosen.model_dump(mode="json"), device, inputs)
    progress = Trainer(
        task, train, train.order(chosen.batch_size, chosen.seed), chosen, device, folder
    ).run()
    task.model.eval()
    with open_experiment(manifest) as experiment:
        embed_cells(task, experiment, pretrained, chosen, embedding)
        scores, places = score_embedding(experiment, chosen, embedding)
        if chosen.obsm is not None:
            write_obsm(experiment, chosen.obsm, chosen.n_latent, embedding)
    scores["best_epoch"] = progress.best_epoch
    write_table(places, layout)
    write_json(scores, model / "scores.json")
    progress.metrics.write(model)
    write_embedder(task, pretrained, conditions, chosen, model)


def check_obsm(manifest: Path, chosen: IntegrateSettings) -> None:
    """Before the training: whether the experiment takes the embedding that it will be given."""
    if chosen.obsm is not None:
        with open_experiment(manifest) as experiment:
            check_shape(experiment, chosen.obsm, chosen.n_latent)


def choose_conditions(train: PackedSource, chosen: IntegrateSettings) -> tuple[Covariate, ...]:
    """The conditions that vary over the training cells; the others have nothing to tell."""
    varies = {name: len(train.cells.count_levels(name)) > 1 for name in chosen.conditions}
    told_apart = {"as": CONDITION, "width": chosen.condition_width}
    wishes = [CovariateSettings(column=name, **told_apart) for name in varies if varies[name]]
    told = ", ".join(wish.column for wish in wishes) or "nothing"
    left_out = ", ".join(name for name in varies if not varies[name]) or "none"
    logger.info("the decoder is told %s; one value only: %s", told, left_out)
    return describe_covariates(wishes, train.cells)


def build_task(
    pretrained: Model,
    train: PackedSource,
    validation: PackedSource,
    chosen: IntegrateSettings,
    device: torch.device,
) -> ConditionalCounts:
    """The network on its device, its encoder as pretraining left it."""
    generator = seed_generator("cpu", chosen.seed)
    embedder = Embedder(restore_encoder(pretrained, generator), chosen.n_latent, generator)
    decoder = CountDecoder(
        chosen.n_latent, train.covariates, chosen.decoder_width, measure_shares(train), generator
    )
    logger.info("%d cells on %s", len(train), device)
    task = ConditionalCounts(
        embedder,
        decoder,
        train.presence.to(device),
        validation,
        np.arange(min(len(validation), chosen.validation_cells)),
        chosen.batch_size,
        chosen.hidden_ratio,
        chosen.unknown_ratio,
        chosen.kl_weight,
    )
    task.model.to(device)
    return task


def measure_shares(train: PackedSource) -> torch.Tensor:
    """Each gene's share of the training counts (g,), over the cells that measured it."""
    rows = np.arange(min(len(train), SHARE_CELLS))  # the pack is shuffled
    minibatch = train.read(rows)
    total_g = np.asarray(minibatch.to_csr(train.n_genes).sum(axis=0)).ravel()
    n_measured_g = train.presence.numpy()[minibatch.dataset.numpy()].sum(axis=0)
    mean_g = total_g / np.maximum(n_measured_g, 1)
    return torch.from_numpy((mean_g / mean_g.sum()).astype(np.float32))


def embed_cells(
    task: ConditionalCounts,
    experiment: Experiment,
    pretrained: Model,
    chosen: IntegrateSettings,
    path: Path,
) -> None:
    """Write the embedding of every cell of the experiment, test and excluded ones included."""
    joinid_n = experiment.read_obs(())[names.JOINID].to_numpy()
    source = SomaSource(experiment, joinid_n, pretrained.genes[names.FEATURE_ID])
    presence_mg = source.presence.to(task.presence_mg.device)
    embedded = predict(task.embed, source.iterate(chosen.batch_size), presence_mg)
    write_embedding(embedded, source.obs[names.OBS_ID], chosen.n_latent, path)
    logger.info("%d cells embedded in %d dimensions", len(source), chosen.n_latent)


def score_embedding(
    experiment: Experiment, chosen: IntegrateSettings, embedding: Path
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores of our embedding and its baselines on labeled cells, and their layout."""
    cells = experiment.read_cells([names.CELL_TYPE, names.TOTAL_N])
    rng = np.random.default_rng([chosen.seed, 0])
    rows = sample_cells(cells, chosen.score_cells, rng)
    scored = cells.iloc[rows].reset_index(drop=True)
    joinid_n = scored[names.JOINID].to_numpy()
    scores, layout = evaluate_embedding(
        read_embedding(embedding, joinid_n),
        scored,
        experiment.read_counts(joinid_n),
        scored[names.TOTAL_N].to_numpy(),
        experiment.read_presence()[np.unique(scored["dataset"])].all(axis=0),
        chosen.seed,
    )
    return scores | {"left_out": count_left_out(cells, rows)}, layout


def write_embedder(
    task: ConditionalCounts,
    pretrained: Model,
    conditions: Sequence[Covariate],
    chosen: IntegrateSettings,
    folder: Path,
) -> None:
    """Write the model: the embedder and the decoder that it was trained with."""
    about = pretrained.about | {
        "encoder": pretrained.digest,
        "n_latent": chosen.n_latent,
        "decoder_width": chosen.decoder_width,
        "conditions": [asdict(one) for one in conditions],
    }
    tensors = name_parts(task.model, "embedding/")
    write_model(Model(about, pretrained.genes, tensors), folder)
