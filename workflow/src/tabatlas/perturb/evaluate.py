"""Score the predictions of a test set, say who may be called best, and name the head honestly."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tabatlas.perturb.predictions import (
    CEILING,
    HEAD,
    MEAN,
    METHODS,
    PCA,
    RANDOM,
    SCALED_MEAN,
    Predictions,
)
from tabatlas.perturb.pseudobulk import KNOWN, TRUTH, Moments
from tabatlas.perturb.screens import CONTROL_ID
from tabatlas.perturb.sets import SINGLES, PerturbationSet
from tabatlas.scores.perturbation import (
    DECIDING,
    DIRECTION,
    METRICS,
    ROUNDING,
    Truth,
    bound_mean,
    draw_resamples,
    explain_inability,
    rescale,
    score_effects,
    weigh_genes,
)

Values = dict[str, np.ndarray]  # one value per perturbation, by metric

KERNEL_RIDGE, TABNET = "kernel ridge", "TabNet + kernel ridge"
CENTERED_ADDITIVE = "centered additive"


def score_set(
    test_set: PerturbationSet,
    predictions: Predictions,
    moments: Mapping[str, Moments],
    scored_g: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """All methods of a test set on the genes `scored_g`, with intervals over perturbations."""
    values = {CEILING: score_ceiling(test_set, predictions, moments, scored_g)}
    control_g = moments[CONTROL_ID].mean(KNOWN)[scored_g]
    truth = build_truth(test_set, predictions, moments, scored_g)
    for method, draws in predictions.effects.items():
        found = [score_effects(truth, control_g + one[:, scored_g], control_g) for one in draws]
        values[method] = {name: np.mean([one[name] for one in found], axis=0) for name in METRICS}
    draws = draw_resamples(len(test_set.test), rng)
    baseline = choose_baseline(values)
    ceiling_p, mean_p = values[CEILING][DECIDING], values[baseline][DECIDING]
    unable = explain_inability(ceiling_p, mean_p)
    scale = values[baseline], values[CEILING]
    own = predictions.own
    gains = compare_embeddings(values, draws) if own == HEAD else {}
    return {
        "name": test_set.name,
        "perturbations": test_set.test,
        "n_perturbations": len(test_set.test),
        "n_known_singles": [len(part.train) for part in test_set.parts],
        "n_scored_genes": int(scored_g.sum()),
        "methods": {name: describe_method(one, *scale, draws) for name, one in values.items()},
        "not_run": predictions.not_run,
        "baseline": baseline,
        "gap": float(ceiling_p.mean() - mean_p.mean()),
        "can_rank": unable is None,
        "unable": unable,
        "best": find_best(values, draws) if unable is None else None,
        "gains": gains,
        "own": own,
        "head": name_head(gains, unable is None),
        "comparisons": compare_methods(own, values, draws),
    }


def choose_baseline(values: Mapping[str, Values]) -> str:
    """The constant that predicts the set best by mean squared error: 0 of the rescaled scores.

    A combination may be better predicted by the mean effect times its number of targets.
    """
    constants = [name for name in (MEAN, SCALED_MEAN) if name in values]
    return min(constants, key=lambda name: values[name]["mse"].mean())


def name_head(gains: Mapping[str, Mapping[str, float]], can_rank: bool) -> str:
    """What the head may be called.

    Where all singles are known it is the centered additive. Elsewhere it bears the network's name
    only where the set can rank methods and the pretrained embeddings gain over both random and PCA
    ones, intervals above 0.
    """
    if not gains:
        return CENTERED_ADDITIVE
    gained = can_rank and all(one["low"] > ROUNDING for one in gains.values())
    return TABNET if gained else KERNEL_RIDGE


def build_truth(
    test_set: PerturbationSet,
    predictions: Predictions,
    moments: Mapping[str, Moments],
    scored_g: np.ndarray,
    *halves: int,
) -> Truth:
    """The truth of a test set; of one half of the cells where `halves` names it."""
    tested = [moments[one] for one in test_set.test]
    control = moments[CONTROL_ID]
    weight_pg = weigh_genes(
        np.stack([one.mean() for one in tested])[:, scored_g],
        np.stack([one.variance() for one in tested])[:, scored_g],
        np.array([one.n for one in tested]),
        (
            control.mean(TRUTH)[scored_g],
            control.variance(TRUTH)[scored_g],
            int(control.n_h[TRUTH]),
        ),
    )
    return Truth(
        np.stack([one.mean(*halves) for one in tested])[:, scored_g],
        control.mean(TRUTH)[scored_g],
        predictions.reference_pg[:, scored_g],
        weight_pg,
        centered=test_set.name != SINGLES,
    )


def score_ceiling(
    test_set: PerturbationSet,
    predictions: Predictions,
    moments: Mapping[str, Moments],
    scored_g: np.ndarray,
) -> Values:
    """One half of each perturbation's cells predicted by the other."""
    truth = build_truth(test_set, predictions, moments, scored_g, TRUTH)
    other_pg = np.stack([moments[one].mean(KNOWN) for one in test_set.test])[:, scored_g]
    return score_effects(truth, other_pg, moments[CONTROL_ID].mean(KNOWN)[scored_g])


def describe_method(
    own: Values, baseline: Values, ceiling: Values, draws: np.ndarray
) -> dict[str, dict[str, Any] | None]:
    """Raw and rescaled score with intervals, by metric; None where a metric says nothing."""
    described: dict[str, dict[str, Any] | None] = {}
    for metric in METRICS:
        if np.isnan(own[metric]).any():
            described[metric] = None
            continue
        three = own[metric], baseline[metric], ceiling[metric]
        scale = rescale(three, DIRECTION[metric], draws)
        raw = asdict(bound_mean(own[metric], draws))
        described[metric] = raw | {"rescaled": None if scale is None else asdict(scale)}
    return described


def find_best(values: Mapping[str, Values], draws: np.ndarray) -> dict[str, Any]:
    """The method with the best deciding metric, the simplest of equals, and the one after it.

    `proven` says whether the paired difference of the two has an interval above 0.
    """
    rivals = [name for name in METHODS if name in values]
    score = {name: round(float(values[name][DECIDING].mean()), 9) for name in rivals}
    best, second = sorted(rivals, key=lambda name: -score[name])[:2]
    lead = subtract(values[best], values[second], DECIDING, draws)
    return {"method": best, "second": second, "lead": lead, "proven": lead["low"] > ROUNDING}


def compare_embeddings(
    values: Mapping[str, Values], draws: np.ndarray
) -> dict[str, dict[str, float]]:
    """Paired gain of the pretrained gene embeddings over random and PCA ones in the same head."""
    return {name: subtract(values[HEAD], values[name], DECIDING, draws) for name in (RANDOM, PCA)}


def compare_methods(
    own: str, values: Mapping[str, Values], draws: np.ndarray
) -> dict[str, dict[str, dict[str, float]]]:
    """Paired difference of the head and every other method, positive where the head is better."""
    rivals = [name for name in values if name not in (CEILING, own)]
    metrics = [name for name in METRICS if not np.isnan(values[own][name]).any()]
    return {
        rival: {metric: subtract(values[own], values[rival], metric, draws) for metric in metrics}
        for rival in rivals
    }


def subtract(own: Values, other: Values, metric: str, draws: np.ndarray) -> dict[str, float]:
    """Mean paired difference with its interval; positive is better."""
    return asdict(bound_mean(DIRECTION[metric] * (own[metric] - other[metric]), draws))
