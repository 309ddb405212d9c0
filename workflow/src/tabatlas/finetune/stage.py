"""Train the classifier from the encoder, calibrate it, test it on held-out cells."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch

from tabatlas import names
from tabatlas.errors import InputError
from tabatlas.experiment import check_sealed, open_experiment
from tabatlas.finetune.calibrate import calibrate
from tabatlas.finetune.classes import CellClass, choose_classes, repeat_classes, weigh_classes
from tabatlas.finetune.evaluate import LOGISTIC, MAJORITY, TABNET, evaluate_methods
from tabatlas.finetune.predictions import Predictions, fit_logistic, predict_cells
from tabatlas.finetune.profiles import learn_profiles
from tabatlas.finetune.rejection import (
    find_unseen,
    judge_test,
    measure_confidence,
    score_rejection,
)
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.thresholds import learn_thresholds
from tabatlas.finetune.typical import Typicality
from tabatlas.provenance import read_json, write_json
from tabatlas.scores.baselines import predict_majority
from tabatlas.stream.layout import read_manifest
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.prefetch import Reading
from tabatlas.stream.soma import SomaSource
from tabatlas.tables import read_table, write_table
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariate
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.engine import Progress, Trainer, key_run
from tabatlas.train.model import (
    Model,
    check_pack,
    read_model,
    restore_encoder,
    write_model,
)
from tabatlas.train.tensors import name_part

logger = logging.getLogger(__name__)

TEST = names.PARTS[2]
LABELS, CALIBRATION = "labels.json", "calibration.json"


@dataclass(frozen=True)
class Cells:
    """The pack's two parts with labels as class numbers, and the rows that have one."""

    train: PackedSource
    validation: PackedSource
    train_rows: np.ndarray
    validation_rows: np.ndarray


@dataclass(frozen=True)
class Training:
    """A trained classifier, what it came from, and how its training went."""

    pretrained: Model
    task: CellTypes
    cells: Cells
    classes: list[CellClass]
    progress: Progress

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in their order."""
        return [one.label for one in self.classes]


def run(
    encoder: Annotated[Path, "folder of the pretrained encoder"],
    pack: Annotated[Path, "pack/manifest.json"],
    manifest: Annotated[Path, "ingest/manifest.json"],
    split: Annotated[Path, "split/cells.parquet"],
    proof: Annotated[Path, "split/split.json"],
    settings: Annotated[Path, "settings/finetune.json"],
    checkpoints: Annotated[Path, "folder of checkpoints, kept over interruptions"],
    model: Annotated[Path, "folder of the classifier to write"],
) -> None:
    """Learn cell types from labelled donors and score them on cells never seen."""
    chosen = FinetuneSettings.read(settings)
    check_sealed(manifest, read_manifest(pack)["experiment"], pack)
    training = train_classifier(encoder, pack, chosen, checkpoints)
    cells, classes = training.cells, training.classes
    temperature, rule = calibrate_task(training.task, cells, chosen)
    logistic = fit_logistic(cells.train, cells.train_rows, len(classes), chosen.seed)
    with open_experiment(manifest) as experiment:
        parts = read_table(split, [names.JOINID, names.SPLIT, "donor"])
        tested = parts[parts[names.SPLIT] == TEST]
        source = SomaSource(
            experiment,
            tested[names.JOINID].to_numpy(),
            training.pretrained.genes[names.FEATURE_ID],
            training.labels,
            training.pretrained.covariates,
        )
        found = predict_cells(training.task, rule, logistic, source, chosen.batch_size)
        judged = judge_test(training.task, rule, source, found.judged, chosen.seed)
    donors = tested.set_index(names.JOINID)["donor"]
    scores = score_test(found, donors, cells, classes, temperature, chosen.seed)
    scores |= {
        "n_classes": len(classes),
        "temperature": temperature,
        "best_epoch": training.progress.best_epoch,
        "early_stop_unit": read_json(proof)["validation_unit"],
        "n_unseen_test_cells": int(find_unseen(found.judged.label_n, source.obs).sum()),
        "rejection": rule.thresholds | {"sets": score_rejection(judged, rule, temperature)},
    }
    write_predictions(found, source.obs, classes, temperature, rule, model)
    calibration = {"method": "temperature", "temperature": temperature} | rule.thresholds
    write_json(calibration, model / CALIBRATION)
    write_classifier(training, scores, model, rule)


def train_classifier(
    encoder: Path, pack: Path, chosen: FinetuneSettings, checkpoints: Path
) -> Training:
    """Train from the encoder, or go on where the checkpoints of such a run stand."""
    device = choose_device(chosen.device, chosen.threads)
    pretrained = read_model(encoder)
    classes = choose_classes(
        PackedSource(pack, "train").cells.table(names.LABELS), chosen.min_class_cells
    )
    reading = chosen.reading(device.type)
    cells = select_cells(pack, classes, pretrained.covariates, chosen, reading)
    check_pack(pretrained, cells.train.digest, encoder)
    task = build_task(pretrained, classes, cells, chosen, device)
    inputs = {"encoder": pretrained.digest, "pack": cells.train.digest}
    folder = checkpoints / key_run("finetune", chosen.model_dump(mode="json"), device, inputs)
    repeats_c = repeat_classes(classes, chosen.max_repeats)
    order = cells.train.order(chosen.batch_size, chosen.seed, repeats_c)
    progress = Trainer(task, cells.train, order, chosen, device, folder).run()
    return Training(pretrained, task, cells, classes, progress)


def select_cells(
    pack: Path,
    classes: list[CellClass],
    covariates: Sequence[Covariate],
    chosen: FinetuneSettings,
    reading: Reading,
) -> Cells:
    """Open both parts of the pack with these classes and covariates."""
    labels = [one.label for one in classes]
    train, validation = (
        PackedSource(pack, part, labels, covariates, reading) for part in ("train", "validation")
    )
    rows = validation.keep_labeled()[: chosen.validation_cells]
    if not len(rows):
        raise InputError(
            "no labelled validation cell, so nothing says when to stop. Raise "
            "split.validation_fraction or choose another split.seed."
        )
    return Cells(train, validation, train.keep_labeled(), rows)


def build_task(
    pretrained: Model,
    classes: list[CellClass],
    cells: Cells,
    chosen: FinetuneSettings,
    device: torch.device,
) -> CellTypes:
    """The classifier on its device, its encoder as pretraining left it."""
    generator = seed_generator("cpu", chosen.seed)
    encoder = restore_encoder(pretrained, generator)
    weight_c, balance_c = (
        torch.from_numpy(weigh_classes(classes, repeat_classes(classes, repeats))).to(device)
        for repeats in (chosen.max_repeats, 0)
    )
    classifier = Classifier(encoder, len(classes), generator).to(device)
    logger.info("%d labelled cells, %d classes on %s", len(cells.train_rows), len(classes), device)
    return CellTypes(
        classifier,
        cells.train.presence.to(device),
        weight_c,
        balance_c,
        cells.validation,
        cells.validation_rows,
        chosen.batch_size,
        chosen.hidden_ratio,
        chosen.unknown_ratio,
        chosen.lambda_sparse,
    )


def calibrate_task(
    task: CellTypes, cells: Cells, chosen: FinetuneSettings
) -> tuple[float, Typicality]:
    """The temperature that fits the validation cells, and which cells are to get no label."""
    n_classes = len(task.weight_c)
    profile_cg = learn_profiles(cells.train, cells.train_rows, n_classes, chosen.seed)
    return learn_thresholds(task, cells.validation, cells.validation_rows, profile_cg, chosen)


def score_test(
    found: Predictions,
    donors: pd.Series,
    cells: Cells,
    classes: list[CellClass],
    temperature: float,
    seed: int,
) -> dict[str, Any]:
    """Scores of all methods on the test cells whose label is one of the classes."""
    known = found.judged.label_n >= 0
    label_n = found.judged.label_n[known]
    if not len(label_n):
        logger.warning("no labelled test cell: nothing is scored")
        return {"n_test_cells": 0, "methods": None}
    train_n = cells.train.cells.find_classes(cells.train_rows)
    probability = {
        TABNET: calibrate(found.judged.logits_nc[known], temperature),
        LOGISTIC: found.logistic_nc[known],
        MAJORITY: predict_majority(train_n, len(label_n), len(classes)),
    }
    donor_n = pd.factorize(donors.loc[found.joinid_n[known]])[0]
    scores = evaluate_methods(probability, label_n, donor_n, classes, seed)
    for method, values in scores["methods"].items():
        logger.info("%s: macro-F1 %.3f on test cells", method, values["macro_f1"]["value"])
    return scores


def write_predictions(
    found: Predictions,
    cells: pd.DataFrame,
    classes: list[CellClass],
    temperature: float,
    rule: Typicality,
    folder: Path,
) -> None:
    """Write the test cells with their labels, predictions, confidence and status."""
    judged = found.judged
    labels = np.array([one.label for one in classes], dtype=object)
    table = cells[[names.OBS_ID, names.JOINID, names.CELL_TYPE, names.CELL_TYPE_ID]].assign(
        predicted=labels[judged.class_n],
        confidence=measure_confidence(judged, rule, temperature).astype(np.float32),
        typicality=judged.typicality_n.astype(np.float32),
        status=rule.judge(judged.typicality_n, judged.counts_n),
        logistic_regression=labels[found.logistic_nc.argmax(axis=1)],
    )
    write_table(table, folder / "predictions.parquet")


def write_classifier(
    training: Training, scores: dict[str, Any], folder: Path, rule: Typicality | None = None
) -> None:
    """Write the classifier and its rule; the weights, which a reader looks for, last."""
    write_json([one.describe() for one in training.classes], folder / LABELS)
    write_json(scores, folder / "scores.json")
    training.progress.metrics.write(folder)
    tensors = name_part(training.task.model.state_dict(), "classifier")
    tensors |= rule.tensors if rule else {}
    pretrained = training.pretrained
    about = pretrained.about | {"encoder": pretrained.digest, "n_classes": len(training.classes)}
    write_model(Model(about, pretrained.genes, tensors), folder)
