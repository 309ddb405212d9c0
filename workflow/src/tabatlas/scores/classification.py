"""Scores of a classifier: strict and ontology-aware macro-F1, calibration, intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

N_BINS = 15  # Guo et al. 2017
N_RESAMPLES = 1000
LEAST_DONORS = 5  # fewer give no interval worth the name


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def accept_descendants(
    truth_n: np.ndarray, predicted_n: np.ndarray, is_descendant_cc: np.ndarray
) -> np.ndarray:
    """Predictions (n,) with each descendant of the true class replaced by the true class.

    `is_descendant_cc[p, t]`: class p is a kind of class t. A finer answer than the annotation is
    right (Fischer et al. 2024).
    """
    return np.where(is_descendant_cc[predicted_n, truth_n], truth_n, predicted_n)


def find_descendants(ids: Sequence[str], ancestors: Sequence[frozenset[str]]) -> np.ndarray:
    """`is_descendant_cc` for classes with ontology `ids` and the ancestors of each (c, c) bool."""
    return np.array([[ids[t] in ancestors[p] for t in range(len(ids))] for p in range(len(ids))])


def count_confusion(truth_n: np.ndarray, predicted_n: np.ndarray, n_classes: int) -> np.ndarray:
    """Cells by true class (rows) and predicted class (columns), (c, c) int64."""
    pairs = truth_n * n_classes + predicted_n
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def score_classes(confusion_cc: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of every class (…, c); 0 where nothing was right."""
    right = np.diagonal(confusion_cc, axis1=-2, axis2=-1)
    true, predicted = confusion_cc.sum(axis=-1), confusion_cc.sum(axis=-2)
    return {
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(true, 1),
        "f1": 2 * right / np.maximum(true + predicted, 1),
    }


def average_f1(confusion_cc: np.ndarray) -> np.ndarray:
    """Macro-F1 over the classes that have true cells (…)."""
    present = confusion_cc.sum(axis=-1) > 0
    f1 = score_classes(confusion_cc)["f1"]
    return (f1 * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)


def bootstrap_f1(
    truth_n: np.ndarray,
    predicted_n: np.ndarray,
    donor_n: np.ndarray,
    n_classes: int,
    rng: np.random.Generator,
) -> Interval:
    """Macro-F1 with its interval, over donors where there are five, else over cells."""
    whole = count_confusion(truth_n, predicted_n, n_classes)
    donors = np.unique(donor_n)
    if len(donors) >= LEAST_DONORS:
        parts = np.stack(
            [
                count_confusion(truth_n[donor_n == one], predicted_n[donor_n == one], n_classes)
                for one in donors
            ]
        )
        times = rng.multinomial(len(donors), np.full(len(donors), 1 / len(donors)), N_RESAMPLES)
        draws = np.tensordot(times, parts, axes=1)
    else:
        # Drawing cells with replacement is drawing cells of the confusion matrix.
        shares = whole.ravel() / whole.sum()
        draws = rng.multinomial(whole.sum(), shares, N_RESAMPLES).reshape(-1, *whole.shape)
    low, high = np.quantile(average_f1(draws), [0.025, 0.975])
    return Interval(float(average_f1(whole)), float(low), float(high))


def name_bootstrap_unit(donor_n: np.ndarray) -> str:
    """What `bootstrap_f1` resamples."""
    return "donors" if len(np.unique(donor_n)) >= LEAST_DONORS else "cells"


def bin_confidence(probability_nc: np.ndarray, truth_n: np.ndarray) -> list[dict[str, float]]:
    """Mean confidence, accuracy and number of cells in equal bins of confidence; no empty bins."""
    confidence = probability_nc.max(axis=1)
    right = probability_nc.argmax(axis=1) == truth_n
    number = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    return [
        {
            "confidence": float(confidence[number == one].mean()),
            "accuracy": float(right[number == one].mean()),
            "n_cells": int((number == one).sum()),
        }
        for one in np.unique(number)
    ]


def measure_calibration(bins: Sequence[dict[str, float]]) -> float:
    """Expected calibration error: mean |accuracy − confidence| over cells (Guo et al. 2017)."""
    n_cells = sum(one["n_cells"] for one in bins)
    gaps = (abs(one["accuracy"] - one["confidence"]) * one["n_cells"] for one in bins)
    return float(sum(gaps) / n_cells)


def measure_surprise(probability_nc: np.ndarray, truth_n: np.ndarray) -> float:
    """Mean negative log probability of the true class, in nats."""
    likely = probability_nc[np.arange(len(truth_n)), truth_n]
    return float(-np.log(np.maximum(likely, 1e-12)).mean())
