import numpy as np

from tabatlas.perturb.baselines import (
    predict_additive,
    predict_linear,
    predict_mean,
    predict_scaled_mean,
)

KNOWN = ["A", "B", "C"]
EFFECTS = np.array([[1.0, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6]])
MEAN = EFFECTS.mean(axis=0)


def test_the_mean_is_the_same_for_all():
    np.testing.assert_array_equal(predict_mean(EFFECTS, 2), [MEAN, MEAN])


def test_the_scaled_mean_counts_once_for_every_target():
    found = predict_scaled_mean(EFFECTS, ["A", "A || B", "A || B || X"])
    np.testing.assert_allclose(found, [MEAN, 2 * MEAN, 3 * MEAN])


def test_additive_sums_singles_and_takes_the_mean_for_an_unknown_one():
    found = predict_additive(KNOWN, EFFECTS, ["A || B", "A || X", "X || Y"], centered=False)
    np.testing.assert_allclose(found, [EFFECTS[0] + EFFECTS[1], EFFECTS[0] + MEAN, 2 * MEAN])


def test_centered_additive_counts_what_all_share_once():
    found = predict_additive(KNOWN, EFFECTS, ["A || B", "A || X", "X || Y"], centered=True)
    np.testing.assert_allclose(found, [EFFECTS[0] + EFFECTS[1] - MEAN, EFFECTS[0], MEAN])


def test_the_linear_model_finds_an_effect_that_follows_the_targets_own_components():
    rng = np.random.default_rng(0)
    genes_gk = rng.normal(size=(50, 3))
    # Neither the known targets nor all genes have a component in common: the model has no
    # intercept for it.
    genes_gk[14] = -genes_gk[:14].sum(axis=0)
    genes_gk[49] = -genes_gk[:49].sum(axis=0)
    map_kk = rng.normal(size=(3, 3))
    rows = list(range(20))
    effects = genes_gk[rows] @ map_kk @ genes_gk.T
    means = 5 + effects
    args = {"n_components": 3, "ridge": 1e-6}
    found = predict_linear(means[:15], effects[:15], rows[:15], [[17], [18]], **args)
    np.testing.assert_allclose(found, effects[17:19], atol=1e-3 * np.abs(effects).max())


def test_the_linear_model_gives_the_mean_of_all_singles_where_no_target_is_measured():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(6, 20))
    found = predict_linear(effects + 3, effects, [0, 1, 2, 3, -1, 5], [[]], 3, 0.1)
    np.testing.assert_allclose(found[0], effects.mean(axis=0))
