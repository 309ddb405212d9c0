"""The head: mean effect + kernel ridge on the residuals of single perturbations.

    effect(a, b, …) = m + Σ r(t)
    r(t) = the residual of t where its single is known, else k(t)ᵀ (K + λ I)⁻¹ R

m is the mean effect of the known singles, R their residuals, K the cosines of the targets' gene
embeddings. Combinations are centered additive: what all perturbations share counts once.
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

    `direction_td` are the embeddings less `center_d`, of length 1, or 0 for a target without one.
    """

    targets: tuple[str, ...]
    mean_g: np.ndarray
    residual_tg: np.ndarray
    center_d: np.ndarray
    direction_td: np.ndarray
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


def fit_head(targets: Sequence[str], effect_tg: np.ndarray, embedding: Embedding) -> Head:
    """Fit the head on the effects of single perturbations; its strength by inner folds of them."""
    direction_td = embedding.directions(targets)
    kernel_tt = direction_td @ direction_td.T
    strength = choose_strength(kernel_tt, effect_tg)
    mean_g = effect_tg.mean(axis=0)
    residual_tg = effect_tg - mean_g
    dual_tg = solve_ridge(kernel_tt, residual_tg, strength)
    return Head(
        tuple(targets), mean_g, residual_tg, embedding.center_d, direction_td, dual_tg, strength
    )


def solve_ridge(kernel_tt: np.ndarray, residual_tg: np.ndarray, strength: float) -> np.ndarray:
    """Dual coefficients (t, g)."""
    if math.isinf(strength):
        return np.zeros_like(residual_tg)
    return np.linalg.solve(kernel_tt + strength * np.eye(len(kernel_tt)), residual_tg)


def choose_strength(kernel_tt: np.ndarray, effect_tg: np.ndarray) -> float:
    """The λ that predicts singles best that were left out, mean included; the largest of equals."""
    n = len(effect_tg)
    fold_t = np.arange(n) % min(n, N_INNER_FOLDS)
    errors = np.zeros(len(STRENGTHS))
    for fold in np.unique(fold_t):
        out, kept = np.flatnonzero(fold_t == fold), np.flatnonzero(fold_t != fold)
        mean_g = effect_tg[kept].mean(axis=0)
        for number, strength in enumerate(STRENGTHS):
            kernel = kernel_tt[np.ix_(kept, kept)]
            dual = solve_ridge(kernel, effect_tg[kept] - mean_g, strength)
            predicted = mean_g + kernel_tt[np.ix_(out, kept)] @ dual
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
            (direction_d,) = point_targets([target], vectors, head.center_d)
            effect_g += (head.direction_td @ direction_d) @ head.dual_tg
    return effect_g
