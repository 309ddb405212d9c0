"""Scores of predicted perturbation effects, on pseudobulk means of log1p(CP10k).

Shapes: p perturbations, g scored genes. A score is one value per perturbation (p,), so that two
methods can be compared on the same ones. References: Ahlmann-Eltze et al. 2025 (baselines), Wu et
al. 2024 (rank of the own truth), Mejia et al. 2025 (weights, mean baseline, split-half ceiling).

The deciding metric looks at what sets perturbations apart. Of single perturbations that is the
difference to the mean of the known ones. Combinations lie elsewhere than singles, so that any
constant would earn the correlation of that offset: truths and predictions are each centered on
their own mean over the set, and what is the same for all earns exactly nothing.
"""

from dataclasses import dataclass

import numpy as np

from tabatlas.scores.classification import N_RESAMPLES, Interval

# +1: larger is better
DIRECTION = {
    "mse": -1,
    "weighted_mse": -1,
    "pearson_control": 1,
    "pearson_perturbed": 1,
    "pearson_singles": 1,
    "discrimination_cosine": 1,
    "discrimination_l2": 1,
}
METRICS = tuple(DIRECTION)
DECIDING = "pearson_perturbed"
LEAST_GAP = 0.2  # ceiling above the mean baseline, in the deciding metric
LEAST_PERTURBATIONS = 5  # fewer give no interval worth the name, and rank nothing
ROUNDING = 1e-9  # differences below this share of what is subtracted are none


@dataclass(frozen=True)
class Truth:
    """What predictions are held against.

    `mean_pg` the perturbed cells' means; `control_g` that of the control cells kept for the truth;
    `reference_pg` the mean of the known singles; `weight_pg` rows that sum to 1; `centered` where
    perturbations are told apart by the mean of the set instead of that reference.
    """

    mean_pg: np.ndarray
    control_g: np.ndarray
    reference_pg: np.ndarray
    weight_pg: np.ndarray
    centered: bool = False


def score_effects(
    truth: Truth, predicted_pg: np.ndarray, control_g: np.ndarray
) -> dict[str, np.ndarray]:
    """Every metric of predicted means; `control_g` are the controls they were made from.

    The discrimination is NaN for a single perturbation: there is nothing to confuse it with. A
    centered set of one is not set apart from anything: its deciding metric is 0.
    """
    error_pg = np.square(predicted_pg - truth.mean_pg)
    true_effect_pg = subtract_rows(truth.mean_pg, truth.control_g)
    effect_pg = subtract_rows(predicted_pg, control_g)
    against_singles = correlate_rows(
        subtract_rows(predicted_pg, truth.reference_pg),
        subtract_rows(truth.mean_pg, truth.reference_pg),
    )
    apart = correlate_rows(center_set(effect_pg), center_set(true_effect_pg))
    return {
        "mse": error_pg.mean(axis=1),
        "weighted_mse": (truth.weight_pg * error_pg).sum(axis=1),
        "pearson_control": correlate_rows(effect_pg, true_effect_pg),
        "pearson_perturbed": apart if truth.centered else against_singles,
        "pearson_singles": against_singles,
        "discrimination_cosine": rank_truth(measure_cosines(effect_pg, true_effect_pg)),
        "discrimination_l2": rank_truth(measure_distances(effect_pg, true_effect_pg)),
    }


def subtract_rows(value_pg: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Value less another (p, g); rows of rounding noise, relative to the values, are exactly 0."""
    difference_pg = value_pg - other
    noise = ROUNDING * np.linalg.norm(value_pg, axis=1, keepdims=True)
    is_real = np.linalg.norm(difference_pg, axis=1, keepdims=True) > noise
    return np.where(is_real, difference_pg, 0.0)


def center_set(value_pg: np.ndarray) -> np.ndarray:
    """Rows less their mean; leaving each row out of its own mean would only change their length."""
    return subtract_rows(value_pg, value_pg.mean(axis=0))


def correlate_rows(one_pg: np.ndarray, other_pg: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row (p,); 0 for a constant one, which says nothing."""
    one_pg, other_pg = (
        divide_lengths(subtract_rows(values, values.mean(axis=1, keepdims=True)))
        for values in (one_pg, other_pg)
    )
    return (one_pg * other_pg).sum(axis=1)


def divide_lengths(value_pg: np.ndarray) -> np.ndarray:
    """Rows of length 1; those of zeros stay."""
    length = np.linalg.norm(value_pg, axis=1, keepdims=True)
    return value_pg / np.where(length > 0, length, 1.0)


def measure_cosines(effect_pg: np.ndarray, true_pg: np.ndarray) -> np.ndarray:
    """Cosine distance of each prediction (rows) to each truth (columns); 1 where there is none."""
    return 1 - divide_lengths(effect_pg) @ divide_lengths(true_pg).T


def measure_distances(effect_pg: np.ndarray, true_pg: np.ndarray) -> np.ndarray:
    """Euclidean distance of each prediction (rows) to each truth (columns)."""
    return np.stack([np.linalg.norm(true_pg - one, axis=1) for one in effect_pg])


def rank_truth(distance_pp: np.ndarray) -> np.ndarray:
    """1 where the own truth is the nearest, 0 where it is the farthest, ties in the middle (p,)."""
    n = len(distance_pp)
    if n < 2:
        return np.full(n, np.nan)
    own = np.diag(distance_pp)[:, None]
    slack = 1e-9 * np.maximum(1, np.abs(own))
    nearer = (distance_pp < own - slack).sum(axis=1)
    tied = (np.abs(distance_pp - own) <= slack).sum(axis=1) - 1
    return 1 - (nearer + tied / 2) / (n - 1)


def weigh_genes(
    mean_pg: np.ndarray,
    variance_pg: np.ndarray,
    n_p: np.ndarray,
    control: tuple[np.ndarray, np.ndarray, int],
) -> np.ndarray:
    """Squared t-scores of the true effect, each row summing to 1 (p, g).

    `control` is mean, variance and number of cells.
    """
    control_g, variance_g, n_control = control
    error_pg = variance_pg / n_p[:, None] + variance_g / n_control + 1e-8
    weight_pg = np.square(mean_pg - control_g) / error_pg
    total = weight_pg.sum(axis=1, keepdims=True)
    return weight_pg / np.where(total > 0, total, 1.0)


def draw_resamples(n: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of bootstrap draws of n perturbations (draws, n); rows sum to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), N_RESAMPLES) / n


def bound_mean(value_p: np.ndarray, draws: np.ndarray) -> Interval:
    """Mean over perturbations with its interval; of a paired difference as of a score."""
    low, high = np.quantile(draws @ value_p, [0.025, 0.975])
    return Interval(float(value_p.mean()), float(low), float(high))


def rescale(
    values: tuple[np.ndarray, np.ndarray, np.ndarray], direction: int, draws: np.ndarray
) -> Interval | None:
    """Score on the scale on which the constant baseline is 0 and the split-half ceiling is 1.

    `values` are those of the method, of the baseline and of the ceiling. None where the ceiling is
    no better than the baseline: such a metric measures noise.
    """
    own_p, mean_p, ceiling_p = (direction * one for one in values)
    gap = ceiling_p.mean() - mean_p.mean()
    noise = ROUNDING * max(np.abs(ceiling_p).mean(), np.abs(mean_p).mean())
    if gap <= noise:
        return None
    gaps = draws @ (ceiling_p - mean_p)
    shares = draws @ (own_p - mean_p) / np.where(gaps > noise, gaps, np.nan)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return Interval(float((own_p.mean() - mean_p.mean()) / gap), float(low), float(high))


def explain_inability(ceiling_p: np.ndarray, mean_p: np.ndarray) -> str | None:
    """Why a set of perturbations cannot rank methods by the deciding metric, or None."""
    if len(ceiling_p) < LEAST_PERTURBATIONS:
        return f"{len(ceiling_p)} perturbations; {LEAST_PERTURBATIONS} are needed"
    gap = ceiling_p.mean() - mean_p.mean()
    if gap < LEAST_GAP:
        return f"the ceiling is {gap:.2f} above the constant effect; {LEAST_GAP} are needed"
    return None
