"""The head: mean effect + kernel ridge on the residuals of single perturbations.

    effect(a, b, …) = m + Σ r(t)
    r(t) = the residual of t where its single is known, else k(t)ᵀ (K + λ I)⁻¹ R

m is the mean effect of the known singles, R their residuals. K are products of the targets' gene
embeddings, centered over all genes, of length 1, less their mean over the known singles: the ridge
has an intercept, and a target without an embedding counts as an average one. Combinations are
centered additive: what all perturbations share counts once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# λ beside a kernel whose diagonal is 1; without bound nothing but the mean is left.
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, math.inf)
N_INNER_FOLDS = 20  # up to 20 singles each is left out alone


@dataclass(frozen=True)
class Head:
    """What predicts the effect of any perturbation; t known singles, d the embedding's width.

    An embedding less `center_d`, of length 1, less `mean_d`, is a row of `feature_td`; that of a
    target without one is 0.
    """

    targets: tuple[str, ...]
    mean_g: np.ndarray
    residual_tg: np.ndarray
    center_d: np.ndarray
    mean_d: np.ndarray
    feature_td: np.ndarray
    dual_tg: np.ndarray
    strength: float


@dataclass(frozen=True)
class Embedding:
    """Embeddings of genes by target name; a target that has none is not there."""

    center_d: np.ndarray
    vectors: Mapping[str, np.ndarray]

    def directions(self, targets: Sequence[str]) -> np.ndarray:
        """Centered embeddings of length 1 (t, d); 0 where a target has none."""
        return point_targets(targets, self.vectors, self.center_d)


def point_targets(
    targets: Sequence[str], vectors: Mapping[str, np.ndarray], center_d: np.ndarray
) -> np.ndarray:
    """Embeddings less the center, of length 1 (t, d); 0 where a target has none."""
    direction_td = np.zeros((len(targets), len(center_d)))
    for row, target in enumerate(targets):
        if target in vectors:
            vector = np.asarray(vectors[target], dtype=np.float64) - center_d
            length = np.linalg.norm(vector)
            direction_td[row] = vector / length if length > 0 else 0
    return direction_td


def average_directions(direction_td: np.ndarray) -> np.ndarray:
    """Mean direction of the targets that have one (d,)."""
    known = direction_td.any(axis=1)
    return direction_td[known].mean(axis=0) if known.any() else np.zeros(direction_td.shape[1])


def center_directions(direction_td: np.ndarray, mean_d: np.ndarray) -> np.ndarray:
    """Directions less the mean one (t, d); 0 where a target has none."""
    return np.where(direction_td.any(axis=1, keepdims=True), direction_td - mean_d, 0.0)


def fit_head(targets: Sequence[str], effect_tg: np.ndarray, embedding: Embedding) -> Head:
    """Fit the head on the effects of single perturbations; its strength by inner folds of them."""
    direction_td = embedding.directions(targets)
    mean_d = average_directions(direction_td)
    feature_td = center_directions(direction_td, mean_d)
    strength = choose_strength(direction_td, effect_tg)
    mean_g = effect_tg.mean(axis=0)
    return Head(
        tuple(targets),
        mean_g,
        effect_tg - mean_g,
        embedding.center_d,
        mean_d,
        feature_td,
        solve_ridge(feature_td @ feature_td.T, effect_tg - mean_g, strength),
        strength,
    )


def solve_ridge(kernel_tt: np.ndarray, residual_tg: np.ndarray, strength: float) -> np.ndarray:
    """Dual coefficients (t, g)."""
    if math.isinf(strength):
        return np.zeros_like(residual_tg)
    return np.linalg.solve(kernel_tt + strength * np.eye(len(kernel_tt)), residual_tg)


def choose_strength(direction_td: np.ndarray, effect_tg: np.ndarray) -> float:
    """The λ that predicts left-out singles best, means refitted too; the largest of equals."""
    n = len(effect_tg)
    fold_t = np.arange(n) % min(n, N_INNER_FOLDS)
    errors = np.zeros(len(STRENGTHS))
    for fold in np.unique(fold_t):
        out, kept = fold_t == fold, fold_t != fold
        mean_d, mean_g = average_directions(direction_td[kept]), effect_tg[kept].mean(axis=0)
        known, asked = (center_directions(direction_td[one], mean_d) for one in (kept, out))
        for number, strength in enumerate(STRENGTHS):
            dual = solve_ridge(known @ known.T, effect_tg[kept] - mean_g, strength)
            predicted = mean_g + asked @ known.T @ dual
            errors[number] += np.square(predicted - effect_tg[out]).sum()
    best = np.flatnonzero(errors <= errors.min() * (1 + 1e-9))
    return STRENGTHS[best[-1]]


def predict_effect(
    head: Head, targets: Sequence[str], vectors: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Effect of perturbing these targets, in log1p(CP10k) (g,).

    `vectors` are gene embeddings of the kind that the head was fitted with; only those of targets
    without a known single are looked at. A target that has neither counts as an average one.
    """
    effect_g = head.mean_g.copy()
    for target in targets:
        if target in head.targets:
            effect_g += head.residual_tg[head.targets.index(target)]
        else:
            direction = point_targets([target], vectors, head.center_d)
            (feature_d,) = center_directions(direction, head.mean_d)
            effect_g += (head.feature_td @ feature_d) @ head.dual_tg
    return effect_g
