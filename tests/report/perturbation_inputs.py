"""Made-up scores of a screen, of the shape and size that real ones have."""

from typing import Any

from tabatlas.scores.perturbation import METRICS

MADE = (
    "no_change",
    "mean",
    "scaled_mean",
    "additive",
    "centered_additive",
    "linear",
    "zero_shot",
    "ridge_random",
    "ridge_pca",
    "ridge_pretrained",
    "ceiling",
)


def make_perturbation() -> dict[str, Any]:
    """One screen: doubles that rank methods, singles that do not."""
    values = {
        "no_change": 0.0,
        "mean": 0.0,
        "scaled_mean": 0.0,
        "additive": 0.53,
        "centered_additive": 0.52,
        "linear": 0.55,
        "zero_shot": -0.02,
        "ceiling": 0.54,
    }
    doubles = make_effects("doubles", "centered_additive", values)
    ridge = dict.fromkeys(("ridge_random", "ridge_pca", "ridge_pretrained"), 0.02)
    singles = make_effects("singles", "ridge_pretrained", {"mean": 0.0, **ridge, "ceiling": 0.1})
    gain = {"value": 0.001, "low": -0.02, "high": 0.02}
    singles |= {
        "can_rank": False,
        "unable": "the ceiling is 0.10 above the constant effect; 0.2 are needed",
        "baseline": "mean",
        "best": None,
        "head": "kernel ridge",
        "gains": {"ridge_random": gain, "ridge_pca": gain},
    }
    return {
        "audit": {
            "n_train_cells": 3910,
            "n_validation_cells": 560,
            "n_held_out_perturbations": 14,
            "n_held_out_cells": 812,
            "n_leaked_cells": 0,
            "n_leaked_perturbations": 0,
        },
        "screens": [
            {
                "screen": "screen_d",
                "cell_line": "K-562",
                "origin": "atlas",
                "expression": "counts",
                "strategy": "CRISPR activation screen",
                "direction": "activated",
                "n_cells": 2020,
                "n_controls": 239,
                "n_genes": 2000,
                "n_genes_in_encoder": 2000,
                "n_singles": 20,
                "n_doubles": 10,
                "n_larger": 0,
                "n_too_few_cells": 1,
                "n_targets": 20,
                "n_targets_measured": 20,
                "targets_without_embedding": [],
                "skipped": None,
                "sets": [singles, doubles],
            }
        ],
        "sources": [],
    }


def make_effects(name: str, own: str, values: dict[str, float]) -> dict[str, Any]:
    """A test set in which every metric has the same value."""
    ceiling = values["ceiling"]
    methods = {}
    for method, value in values.items():
        score = {"value": value, "low": value - 0.1, "high": value + 0.1}
        scale = {key: one / ceiling for key, one in score.items()}
        methods[method] = {metric: score | {"rescaled": scale} for metric in METRICS}
    gains = {
        method: {metric: make_gain(values[own] - value) for metric in METRICS}
        for method, value in values.items()
        if method not in ("ceiling", own)
    }
    lead = {"value": 0.02, "low": -0.01, "high": 0.05}
    absent = set(MADE) - set(values)
    return {
        "name": name,
        "perturbations": [f"P{number}" for number in range(10)],
        "n_perturbations": 10,
        "n_known_singles": [20],
        "n_scored_genes": 1980,
        "methods": methods,
        "baseline": "scaled_mean",
        "not_run": {method: f"{method} was idle" for method in sorted(absent)},
        "gap": ceiling,
        "can_rank": True,
        "unable": None,
        "best": {"method": "linear", "second": "additive", "lead": lead, "proven": False},
        "gains": {},
        "own": own,
        "head": own.replace("_", " "),
        "comparisons": gains,
    }


def make_gain(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}
