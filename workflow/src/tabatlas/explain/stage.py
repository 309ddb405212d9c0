"""Explain the classifier by its masks, and say how far they can be believed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from tabatlas import names
from tabatlas.errors import ConfigError, InputError, IntegrityError
from tabatlas.experiment import Experiment, check_sealed, open_experiment
from tabatlas.explain.attribution import (
    Attributor,
    TypeMeans,
    TypeSums,
    list_importances,
    list_masks,
    name_inputs,
)
from tabatlas.explain.deletion import Deletion, DeletionTest, choose_sizes, rank_expression
from tabatlas.explain.markers import match_markers, score_markers
from tabatlas.explain.sample import sample_types
from tabatlas.explain.settings import ExplainSettings
from tabatlas.explain.summary import (
    average_stability,
    draw_heatmaps,
    find_own_genes,
    find_usable,
    summarize_deletion,
    summarize_selection,
    summarize_types,
    tabulate_steps,
    tabulate_types,
)
from tabatlas.finetune.evaluate import LOGISTIC
from tabatlas.finetune.predictions import fit_logistic
from tabatlas.finetune.settings import FinetuneSettings
from tabatlas.finetune.stage import CALIBRATION, LABELS, train_classifier, write_classifier
from tabatlas.provenance import read_json, write_json
from tabatlas.scores.baselines import LogisticBaseline
from tabatlas.stream.layout import read_manifest
from tabatlas.stream.packed import PackedSource
from tabatlas.stream.soma import SomaSource
from tabatlas.tables import open_table, read_table, write_table
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.importance import sum_steps
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.model import Model, read_model, restore_classifier
from tabatlas.train.predict import predict

logger = logging.getLogger(__name__)

_, VALIDATION, TEST = names.PARTS
MASKS = pa.schema(
    {names.JOINID: pa.int64(), "step": pa.int8(), "gene": pa.int32(), "mask": pa.float32()}
)
IMPORTANCES = pa.schema(
    {
        names.JOINID: pa.int64(),
        "gene": pa.int32(),
        "weighted": pa.float32(),
        "plain": pa.float32(),
    }
)


def replicate(
    seed: Annotated[int, "seed of head, order of cells and hidden genes"],
    encoder: Annotated[Path, "folder of the pretrained encoder"],
    pack: Annotated[Path, "pack/manifest.json"],
    training: Annotated[Path, "settings/finetune.json"],
    checkpoints: Annotated[Path, "folder of checkpoints, kept over interruptions"],
    model: Annotated[Path, "folder of the classifier to write"],
) -> None:
    """Train the classifier again, from the same encoder and cells, with another seed."""
    chosen = FinetuneSettings.read(training).model_copy(update={"seed": seed})
    trained = train_classifier(encoder, pack, chosen, checkpoints)
    write_classifier(trained, {"seed": seed, "best_epoch": trained.progress.best_epoch}, model)


def attribute(
    classifier: Annotated[Path, "folder of the classifier to explain"],
    replicates: Annotated[list[Path], "folders of classifiers trained with other seeds"],
    pack: Annotated[Path, "pack/manifest.json"],
    manifest: Annotated[Path, "ingest/manifest.json"],
    split: Annotated[Path, "split/cells.parquet"],
    markers: Annotated[list[Path], "TSV of known markers; none where there are none"],
    training: Annotated[Path, "settings/finetune.json"],
    settings: Annotated[Path, "settings/explain.json"],
    masks: Annotated[Path, "table to write: mask of every sampled cell, step and selected gene"],
    importances: Annotated[Path, "table to write: importance of every cell and selected gene"],
    types: Annotated[Path, "table to write: mean importance of every type and gene"],
    steps: Annotated[Path, "table to write: what each step adds to it"],
    scores: Annotated[Path, "JSON to write: stability, agreement with markers, deletion test"],
) -> None:
    """Write masks and importances of a sample of the test cells, and test them."""
    chosen, trained = ExplainSettings.read(settings), FinetuneSettings.read(training)
    check_sealed(manifest, read_manifest(pack)["experiment"], pack)
    study = open_study(classifier, replicates, pack, trained)
    with open_experiment(manifest) as experiment:
        sample = choose_cells(experiment, read_table(split), study, chosen)
        means, covariates = attribute_cells(study, sample.source, masks, importances)
        deletion, sizes = delete_genes(study, sample.source, means, chosen)
    coefficients_cg = study.logistic.coefficients_cg
    per_type, agreement = compare_markers(study, means, markers, chosen)
    genes = study.model.genes
    symbols = genes[names.FEATURE_NAME].to_numpy()
    own, shared = find_own_genes(means, chosen.n_top)
    rows = summarize_types(means, study.classes, symbols, own, per_type, chosen)
    found = {
        "part": sample.part,
        "n_cells": len(sample.donor_n),
        "n_donors": len(np.unique(sample.donor_n)),
        "n_top": chosen.n_top,
        "min_stability": chosen.min_stability,
        "accuracy": means.accuracy_k.tolist(),
        "selection": summarize_selection(means),
        "covariates": dict(zip(covariates, means.covariate_q.tolist(), strict=True)),
        "types": rows,
        "shared_genes": symbols[shared].tolist(),
        "stability": average_stability(rows),
        "markers": agreement,
        "deletion": summarize_deletion(deletion, sample.donor_n, sizes, chosen),
        "heatmaps": draw_heatmaps(means, rows, symbols, own, chosen),
    }
    write_table(tabulate_types(means, rows, genes, coefficients_cg, own), types)
    write_table(tabulate_steps(means, rows, genes), steps)
    write_json(found, scores)
    log_findings(found)


@dataclass(frozen=True)
class Study:
    """The classifier, its replicates and its peer, and how they run."""

    model: Model
    replicates: Sequence[Model]
    classes: Sequence[dict[str, Any]]
    temperature: float
    logistic: LogisticBaseline
    device: torch.device
    batch_size: int

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in their order."""
        return [one["label"] for one in self.classes]

    def build(self, model: Model) -> Classifier:
        """One of the classifiers on its device."""
        return restore_classifier(model, seed_generator("cpu", 0)).to(self.device)


@dataclass(frozen=True)
class Sample:
    """The cells to explain: which part of the split they are from, and whose they are."""

    part: str
    source: SomaSource
    donor_n: np.ndarray


def open_study(
    classifier: Path, replicates: Sequence[Path], pack: Path, trained: FinetuneSettings
) -> Study:
    """Read all classifiers and fit logistic regression as `finetune` did."""
    classes, model = read_json(classifier / LABELS), read_model(classifier)
    others = [read_model(folder) for folder in replicates]
    for folder, other in zip(replicates, others, strict=True):
        if read_json(folder / LABELS) != classes or not other.genes.equals(model.genes):
            raise IntegrityError(
                f"{folder}: not a replicate of {classifier}: its classes or genes are others. "
                "Train it again."
            )
    train = PackedSource(pack, "train", [one["label"] for one in classes])
    return Study(
        model,
        others,
        classes,
        read_json(classifier / CALIBRATION)["temperature"],
        fit_logistic(train, train.keep_labeled(), len(classes), trained.seed),
        choose_device(trained.device, trained.threads),
        trained.batch_size,
    )


def choose_cells(
    experiment: Experiment, parts: pd.DataFrame, study: Study, chosen: ExplainSettings
) -> Sample:
    """A sample of the labeled test cells, of the validation cells where there is none."""
    genes = study.model.genes[names.FEATURE_ID]
    donors = parts.set_index(names.JOINID)["donor"]
    for part in (TEST, VALIDATION):
        joinid_n = parts.loc[parts[names.SPLIT] == part, names.JOINID].to_numpy()
        whole = SomaSource(experiment, joinid_n, genes, study.labels)
        rng = np.random.default_rng([chosen.seed, 0])
        rows = sample_types(whole.cells.find_classes(slice(None)), chosen.cells_per_type, rng)
        if len(rows):
            sampled = np.sort(whole.joinid_n[rows])
            source = SomaSource(experiment, sampled, genes, study.labels, study.model.covariates)
            return Sample(part, source, donors.loc[source.joinid_n].to_numpy())
        logger.warning("no labeled %s cell of the model's types", part)
    raise InputError(
        "no labeled test or validation cell of the model's types, so nothing can be explained. "
        "Raise split.test_fraction or choose another split.seed."
    )


def attribute_cells(
    study: Study, source: SomaSource, masks: Path, importances: Path
) -> tuple[TypeMeans, list[str]]:
    """Write the sparse tables; return the means by type and the names of input covariates."""
    models = [study.model, *study.replicates]
    n_steps, n_genes = study.model.architecture.n_steps, len(study.model.genes)
    attributor = Attributor([study.build(model) for model in models])
    covariates = name_inputs(attributor.classifiers[0])
    sums = TypeSums(len(models), len(study.classes), n_steps, n_genes, len(covariates))
    presence_mg = source.presence.to(study.device)
    minibatches = source.iterate(study.batch_size)
    with open_table(masks, MASKS) as add_masks, open_table(importances, IMPORTANCES) as add:
        for minibatch, answers in predict(attributor, minibatches, presence_mg):
            joinid_n = minibatch.joinid.cpu().numpy()
            agreed_n = sums.add_cells(minibatch.label, answers)
            for number in range(len(models)):
                found = attributor.open_masks(number, answers)
                sums.add_masks(number, minibatch.label, agreed_n, found)
                if number == 0:
                    add_masks(list_masks(joinid_n, found.masks))
                    weighted, plain = sum_steps(found.weighted), sum_steps(found.plain)
                    add(list_importances(joinid_n, weighted, plain))
                    sums.count_selected(found, plain, answers.x)
                del found  # before the next classifier's masks are made
    return sums.average(), covariates


def delete_genes(
    study: Study, source: SomaSource, means: TypeMeans, chosen: ExplainSettings
) -> tuple[Deletion, tuple[int, ...]]:
    """The deletion test on all sampled cells, and the numbers of genes that were hidden."""
    sampled_c = means.n_sampled_c > 0
    # A gene that a type expresses was measured in it; others are no match for a hidden one.
    sizes = choose_sizes(int((means.expression_cg[sampled_c] > 0).sum(axis=1).min()))
    test = DeletionTest(
        study.build(study.model),
        study.temperature,
        study.logistic,
        means.expression_cg,
        rank_expression(means.expression_cg),
        sizes,
        chosen.deletion_draws,
        np.random.default_rng([chosen.seed, 3]),
    )
    presence_mg = source.presence.to(study.device)
    minibatches = source.iterate(study.batch_size)
    parts = [found for _, found in predict(test, minibatches, presence_mg)]
    return Deletion(*(np.concatenate(column) for column in zip(*parts, strict=True))), sizes


def compare_markers(
    study: Study, means: TypeMeans, markers: Sequence[Path], chosen: ExplainSettings
) -> tuple[list[dict[str, Any] | None], dict[str, Any] | None]:
    """Agreement with known markers per type and over types; None where no markers are known."""
    if not markers:
        return [None] * len(study.classes), None
    genes = study.model.genes[names.FEATURE_ID]
    known = match_markers(
        read_markers(markers[0]),
        study.classes,
        genes,
        study.model.about["organism"],
        str(markers[0]),
    )
    coefficients_cg = study.logistic.coefficients_cg
    rankings = {name: means.sum_steps(name)[0] for name in means.importance}
    # A marker is a gene that a type has more of; masks have no sign. So the peer has its say twice.
    rankings |= {LOGISTIC: coefficients_cg, f"{LOGISTIC}_unsigned": np.abs(coefficients_cg)}
    usable_cg = find_usable(means)
    per_type, overall = score_markers(
        rankings, known.is_marker_cg, usable_cg, means.expression_cg, chosen
    )
    return per_type, known.describe() | {"overall": overall}


def read_markers(path: Path) -> pd.DataFrame:
    """Read the table of known markers as text."""
    try:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, comment="#")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable table of markers ({error}).") from None


def log_findings(found: dict[str, Any]) -> None:
    """Say in one line how far the masks can be believed."""
    stability, change = found["stability"], found["deletion"]["mean"]["tabnet_over_control"]
    logger.info(
        "%d %s cells; %d of %d types stable over seeds; hiding top genes costs %.3f more than "
        "hiding like genes",
        found["n_cells"],
        found["part"],
        stability["n_stable"] if stability else 0,
        len(found["types"]),
        change["value"],
    )
