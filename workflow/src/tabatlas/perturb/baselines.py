"""Baselines of a predicted effect: what needs no network at all."""

from collections.abc import Sequence

import numpy as np

from tabatlas.perturb.screens import split_targets


def predict_mean(effect_tg: np.ndarray, n: int) -> np.ndarray:
    """The mean effect of the known singles for every perturbation (n, g)."""
    return np.tile(effect_tg.mean(axis=0), (n, 1))


def predict_scaled_mean(effect_tg: np.ndarray, tests: Sequence[str]) -> np.ndarray:
    """The mean effect of the known singles, once for every target (n, g)."""
    n_targets = np.array([len(split_targets(test)) for test in tests])
    return n_targets[:, None] * effect_tg.mean(axis=0)


def predict_additive(
    known: Sequence[str], effect_tg: np.ndarray, tests: Sequence[str], centered: bool
) -> np.ndarray:
    """Sum of the single effects (n, g); an unknown single counts as the mean one.

    `centered` counts what all singles share once: mean + sum of what sets each apart.
    """
    mean_g = effect_tg.mean(axis=0)
    single = {one: effect_tg[row] for row, one in enumerate(known)}
    apart = np.stack(
        [sum(single.get(one, mean_g) - mean_g for one in split_targets(test)) for test in tests]
    )
    n_targets = np.array([len(split_targets(test)) for test in tests])
    return apart + (1 if centered else n_targets[:, None]) * mean_g


def predict_linear(
    mean_tg: np.ndarray,
    effect_tg: np.ndarray,
    train_rows: Sequence[int],
    test_rows: Sequence[Sequence[int]],
    n_components: int,
    ridge: float,
) -> np.ndarray:
    """Effects (n, g) by the linear model Y = G W Pᵀ + b of Ahlmann-Eltze et al. 2025.

    G (g, k) embeds genes by the principal components of the training pseudobulks `mean_tg`; P
    holds G's rows of the targets; b is the mean effect of all known singles. `train_rows` are the
    places of the known singles' targets among the genes, −1 for one that is not measured;
    `test_rows` those of each test, which has none left where no target is measured: then the mean
    is predicted.
    """
    values_gt = mean_tg.T - mean_tg.T.mean(axis=0)
    left, size, _ = np.linalg.svd(values_gt, full_matrices=False)
    k = min(n_components, len(size))
    genes_gk = left[:, :k] * size[:k]
    used = [row for row, place in enumerate(train_rows) if place >= 0]
    target_uk = genes_gk[[train_rows[row] for row in used]]
    bias_g = effect_tg.mean(axis=0)
    outcome_gu = (effect_tg[used] - bias_g).T
    penalty = ridge * np.eye(k)
    inner = np.linalg.solve(genes_gk.T @ genes_gk + penalty, genes_gk.T @ outcome_gu @ target_uk)
    weights_kk = np.linalg.solve((target_uk.T @ target_uk + penalty).T, inner.T).T
    embedded = np.stack(
        [genes_gk[list(rows)].sum(axis=0) if len(rows) else np.zeros(k) for rows in test_rows]
    )
    return bias_g + embedded @ weights_kk.T @ genes_gk.T
