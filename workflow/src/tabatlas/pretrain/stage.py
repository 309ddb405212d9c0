"""Train encoder and decoder on the pack and write them with their genes and architecture."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from tabatlas.pretrain.settings import PretrainSettings
from tabatlas.pretrain.task import MaskedGenes, Validation
from tabatlas.provenance import write_json
from tabatlas.stream.packed import PackedSource
from tabatlas.tabnet.decoder import Decoder
from tabatlas.train.covariates import describe_covariates
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.engine import Progress, Trainer, key_run
from tabatlas.train.model import (
    Model,
    build_encoder,
    describe_model,
    gene_statistics,
    write_model,
)
from tabatlas.train.tensors import name_parts

logger = logging.getLogger(__name__)


def run(
    pack: Annotated[Path, "pack/manifest.json"],
    settings: Annotated[Path, "settings/pretrain.json"],
    checkpoints: Annotated[Path, "folder of checkpoints, kept over interruptions"],
    model: Annotated[Path, "folder of the encoder and decoder to write"],
) -> None:
    """Learn to predict hidden genes from the others."""
    chosen = PretrainSettings.read(settings)
    device = choose_device(chosen.device, chosen.threads)
    covariates = describe_covariates(chosen.covariates, PackedSource(pack, "train").cells)
    train, validation = (
        PackedSource(pack, part, covariates=covariates, reading=chosen.reading(device.type))
        for part in ("train", "validation")
    )
    logger.info("%d cells × %d genes on %s", len(train), train.n_genes, device)
    task = build_task(chosen, train, validation, device)
    key = key_run("pretrain", chosen.model_dump(mode="json"), device, {"pack": train.digest})
    folder = checkpoints / key
    progress = Trainer(
        task, train, train.order(chosen.batch_size, chosen.seed), chosen, device, folder
    ).run()
    write_json(score_pretraining(task, progress), model / "scores.json")
    progress.metrics.write(model)
    organism = train.about["organism"]
    architecture = chosen.choose_architecture()
    about = describe_model(architecture, train.genes, covariates, organism, train.digest)
    write_model(Model(about, train.genes, name_parts(task.model)), model)


def build_task(
    chosen: PretrainSettings, train: PackedSource, validation: PackedSource, device: torch.device
) -> MaskedGenes:
    """The network on its device, and its cells for validation."""
    architecture = chosen.choose_architecture()
    generator = seed_generator("cpu", chosen.seed)
    # The pack is shuffled: its first cells are a random sample.
    rows = np.arange(min(len(validation), chosen.validation_cells))
    task = MaskedGenes(
        build_encoder(architecture, train.genes, train.covariates, generator),
        Decoder(architecture, *gene_statistics(train.genes), generator),
        train.presence.to(device),
        Validation(validation, rows, chosen.batch_size, chosen.seed),
        chosen.pretraining_ratio,
        chosen.unknown_ratio,
        chosen.lambda_sparse,
    )
    task.model.to(device)
    return task


def score_pretraining(task: MaskedGenes, progress: Progress) -> dict[str, Any]:
    """How well hidden genes of validation cells are predicted, beside predicting the mean."""
    task.model.eval()
    found = task.validate()
    ratio = found["validation_loss"] / found["gene_mean_loss"]
    logger.info("masked loss %.3f of that of predicting the gene's mean", ratio)
    return {
        "masked_loss": found["validation_loss"],
        "gene_mean_loss": found["gene_mean_loss"],
        "ratio": ratio,
        "n_validation_cells": len(task.validation.rows),
        "n_genes": task.presence_mg.shape[1],
        "n_parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
    }
