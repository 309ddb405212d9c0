"""The test: TabNet, logistic regression and the majority class on the same held-out cells."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tabatlas.finetune.classes import CellClass
from tabatlas.ontology import ancestors
from tabatlas.scores.classification import (
    accept_descendants,
    bin_confidence,
    bootstrap_f1,
    count_confusion,
    find_descendants,
    measure_calibration,
    measure_surprise,
    name_bootstrap_unit,
    score_classes,
)

TABNET, LOGISTIC, MAJORITY = "tabnet", "logistic_regression", "majority"


def evaluate_methods(
    probability: Mapping[str, np.ndarray],
    label_n: np.ndarray,
    donor_n: np.ndarray,
    classes: Sequence[CellClass],
    seed: int,
) -> dict[str, Any]:
    """Scores of every method (name → probabilities (n, c)) on the test cells, for `scores.json`."""
    finer_cc = find_finer(classes)
    per_method = {
        method: score_method(values, label_n, donor_n, finer_cc, np.random.default_rng(seed))
        for method, values in probability.items()
    }
    per_class = [
        {"label": one.label, "ontology_term_id": one.ontology_term_id, "n_train": one.n_train}
        | {"n_test": int((label_n == number).sum())}
        for number, one in enumerate(classes)
    ]
    for method in (TABNET, LOGISTIC):
        table = tabulate_classes(probability[method], label_n, finer_cc)
        for row, scores in zip(per_class, table, strict=True):
            row[method] = scores
    predicted_n = probability[TABNET].argmax(axis=1)
    confusion = count_confusion(label_n, predicted_n, len(classes))
    return {
        "n_test_cells": len(label_n),
        "n_test_donors": len(np.unique(donor_n)),
        "bootstrap_unit": name_bootstrap_unit(donor_n),
        "methods": per_method,
        "per_class": per_class,
        "confusion": {"labels": [one.label for one in classes], "counts": confusion.tolist()},
        "reliability": bin_confidence(probability[TABNET], label_n),
    }


def find_finer(classes: Sequence[CellClass]) -> np.ndarray:
    """`finer[p, t]`: class p is a kind of class t (c, c) bool."""
    ids = [one.ontology_term_id for one in classes]
    return find_descendants(ids, [ancestors(term) for term in ids])


def score_method(
    probability_nc: np.ndarray,
    label_n: np.ndarray,
    donor_n: np.ndarray,
    finer_cc: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Macro-F1 strict and ontology-aware with intervals, accuracy, calibration error, surprise."""
    predicted_n = probability_nc.argmax(axis=1)
    accepted_n = accept_descendants(label_n, predicted_n, finer_cc)
    n_classes = len(finer_cc)
    strict = bootstrap_f1(label_n, predicted_n, donor_n, n_classes, rng)
    aware = bootstrap_f1(label_n, accepted_n, donor_n, n_classes, rng)
    return {
        "macro_f1": asdict(strict),
        "macro_f1_ontology": asdict(aware),
        "accuracy": float((predicted_n == label_n).mean()),
        "ece": measure_calibration(bin_confidence(probability_nc, label_n)),
        "nll": measure_surprise(probability_nc, label_n),
    }


def tabulate_classes(
    probability_nc: np.ndarray, label_n: np.ndarray, finer_cc: np.ndarray
) -> list[dict[str, float]]:
    """Precision, recall, F1 and ontology-aware F1 of every class."""
    predicted_n = probability_nc.argmax(axis=1)
    n_classes = len(finer_cc)
    strict = score_classes(count_confusion(label_n, predicted_n, n_classes))
    accepted_n = accept_descendants(label_n, predicted_n, finer_cc)
    aware = score_classes(count_confusion(label_n, accepted_n, n_classes))
    return [
        {name: float(values[number]) for name, values in strict.items()}
        | {"f1_ontology": float(aware["f1"][number])}
        for number in range(n_classes)
    ]
