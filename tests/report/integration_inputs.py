"""A made-up integration, of the shape and size that a real one has."""

from dataclasses import replace
from typing import Any

import numpy as np

from tabatlas.report.summary import StageTables
from tabatlas.scores.integration import METRICS


def make_integration(rng: np.random.Generator) -> dict[str, Any]:
    """Better than PCA, behind Harmony; chance wins the batches."""
    bio = {"tabnet": 0.71, "pca": 0.68, "harmony_pca": 0.74, "harmony_tabnet": 0.70, "random": 0.21}
    batch = dict(zip(bio, (0.72, 0.50, 0.80, 0.73, 0.83), strict=True))
    total = {name: 0.6 * bio[name] + 0.4 * batch[name] for name in bio}
    parts = {name: [total[name] + one for one in (-0.01, 0.0, 0.02)] for name in bio}
    difference = {name: total["tabnet"] - total[name] for name in bio if name != "tabnet"}
    return {
        "n_cells": 1500,
        "n_batches": 7,
        "n_types": 8,
        "n_single_batch_types": 0,
        "n_shared_genes": 1370,
        "left_out": {"unlabeled": 2020, "not_sampled": 2024},
        "undefined": {},
        "methods": {
            name: dict.fromkeys(METRICS, round(float(rng.uniform()), 6))
            | {"bio_conservation": bio[name], "batch_correction": batch[name]}
            | {"total": total[name], "total_without_silhouettes": total[name] + 0.01}
            | {"parts": parts[name]}
            for name in bio
        },
        "comparisons": {
            name: {"difference": one, "parts": [one - 0.01, one, one + 0.01], "beaten": one > 0.02}
            for name, one in difference.items()
        },
        "beats_pca": True,
    }


def make_layout(
    labels: list[str], datasets: tuple[str, ...], rng: np.random.Generator
) -> dict[str, list[Any]]:
    """Places of cells: batches apart before, types apart after."""
    label_n, batch_n = rng.integers(0, len(labels), 1500), rng.integers(0, len(datasets), 1500)
    near_n4 = rng.normal(size=(1500, 4)).round(3)
    near_n4[:, 0] += 9 * batch_n
    near_n4[:, 1] += 5 * (label_n % 4)
    near_n4[:, 2] += 8 * (label_n // 4)
    near_n4[:, 3] += 8 * (label_n % 4)
    axes = ("before_x", "before_y", "after_x", "after_y")
    return {
        "soma_joinid": list(range(1500)),
        "batch": [f"{datasets[one]}_lane1" for one in batch_n],
        "cell_type": [labels[one] for one in label_n],
    } | {axis: column.tolist() for axis, column in zip(axes, near_n4.T, strict=True)}


def leave_unintegrated(tables: StageTables) -> StageTables:
    """The same atlas with one batch only."""
    scores = {
        "n_cells": 900,
        "n_batches": 1,
        "n_types": 8,
        "n_single_batch_types": 8,
        "methods": None,
        "reason": "needs two batches",
        "undefined": {"kbet": "needs two batches"},
    }
    return replace(
        tables,
        integrate_scores=scores,
        integrate_layout={name: [] for name in tables.integrate_layout},
    )
