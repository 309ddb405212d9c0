"""Who gets no label: test cells as they are, seen worse, and droplets without a cell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tabatlas import names
from tabatlas.finetune.calibrate import calibrate
from tabatlas.finetune.degrade import (
    MAX_CELLS,
    draw_droplets,
    drop_genes,
    permute_genes,
    pool_cells,
    thin_counts,
)
from tabatlas.finetune.predictions import Judged, judge_all
from tabatlas.finetune.task import CellTypes
from tabatlas.finetune.typical import Typicality, count_molecules
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.soma import SomaSource
from tabatlas.train.device import seed_generator

TEST, THIRD, HALF = "test", "third_depth", "half_genes"
UNSEEN, PERMUTED, AMBIENT = "unseen_types", "permuted_genes", "ambient"
# What has a type that the classifier knows, and what has none.
TYPED = (TEST, THIRD, HALF)


def judge_test(
    task: CellTypes, rule: Typicality, source: SomaSource, found: Judged, seed: int
) -> dict[str, Judged]:
    """The test cells that `found` judged, and a sample of them seen worse; empty without any."""
    known_n = found.label_n >= 0
    if not known_n.any():
        return {}
    judged = {TEST: found.take(known_n)}
    unseen_n = find_unseen(found.label_n, source.obs)
    if unseen_n.any():
        judged[UNSEEN] = found.take(unseen_n)
    rows = np.random.default_rng([seed, 2]).permutation(np.flatnonzero(known_n))[:MAX_CELLS]
    return judged | degrade_cells(task, rule, source.read(np.sort(rows)), source.presence, seed)


def find_unseen(label_n: np.ndarray, cells: pd.DataFrame) -> np.ndarray:
    """Labelled test cells (n,) of a type that no training cell has: nobody could name them."""
    labelled_n = (cells[names.CELL_TYPE].astype(str) != names.UNKNOWN).to_numpy()
    return labelled_n & (label_n < 0)


def degrade_cells(
    task: CellTypes, rule: Typicality, minibatch: Minibatch, presence_mg: Tensor, seed: int
) -> dict[str, Judged]:
    """What the classifier says of test cells seen worse, and of droplets made from them."""
    rng, generator = np.random.default_rng([seed, 3]), seed_generator("cpu", seed)
    n_genes = presence_mg.shape[1]
    kept_g = torch.from_numpy(rng.random(n_genes) < 0.5)
    depth_n = count_molecules(minibatch).numpy()
    pool_ng = pool_cells(minibatch, n_genes)
    third_n = torch.full((len(minibatch),), 1 / 3)
    degraded = {
        THIRD: (thin_counts(minibatch, third_n, generator), presence_mg),
        HALF: (drop_genes(minibatch, kept_g), presence_mg & kept_g),
        PERMUTED: (permute_genes(minibatch, presence_mg, rng), presence_mg),
        AMBIENT: (draw_droplets(minibatch, depth_n, pool_ng, rng), presence_mg),
    }
    device = task.presence_mg.device
    return {
        name: judge_all(task, rule, [cells], presence.to(device))
        for name, (cells, presence) in degraded.items()
    }


def score_rejection(
    judged: Mapping[str, Judged], rule: Typicality, temperature: float
) -> list[dict[str, Any]]:
    """For `scores.json`: of each set of cells, which share gets which status, and how right it is.

    `auroc` says how well the confidence tells a set that should get no label from the test cells.
    """
    test_n = measure_confidence(judged[TEST], rule, temperature)
    rows = []
    for name, cells in judged.items():
        status_n = rule.judge(cells.typicality_n, cells.counts_n)
        confidence_n = measure_confidence(cells, rule, temperature)
        right_n = cells.class_n == cells.label_n
        is_typed, assigned_n = name in TYPED, status_n == names.ASSIGNED
        rows.append(
            {"cells": name, "n_cells": len(status_n)}
            | {state: float((status_n == state).mean()) for state in names.STATUSES}
            | {
                "mean_confidence": float(confidence_n.mean()),
                "accuracy": average(right_n) if is_typed else None,
                "accuracy_assigned": average(right_n[assigned_n]) if is_typed else None,
                "auroc": None if is_typed else separate(test_n, confidence_n),
            }
        )
    return rows


def measure_confidence(cells: Judged, rule: Typicality, temperature: float) -> np.ndarray:
    """The confidence that a user sees (n,)."""
    probability_n = calibrate(cells.logits_nc, temperature).max(axis=1)
    return rule.trust(probability_n, cells.typicality_n)


def separate(known_n: np.ndarray, other_n: np.ndarray) -> float:
    """Probability that a known cell has the higher value of the two, ties counted half."""
    is_known = np.repeat([True, False], [len(known_n), len(other_n)])
    return float(roc_auc_score(is_known, np.concatenate([known_n, other_n])))


def average(values: np.ndarray) -> float | None:
    """Mean, or None of nothing."""
    return float(values.mean()) if len(values) else None
