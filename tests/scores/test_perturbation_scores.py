import numpy as np
import pytest

from tabatlas.scores.perturbation import (
    METRICS,
    Truth,
    bound_mean,
    correlate_rows,
    draw_resamples,
    explain_inability,
    measure_cosines,
    rank_truth,
    rescale,
    score_effects,
    weigh_genes,
)


def make_truth(n=6, g=40):
    rng = np.random.default_rng(0)
    control_g = rng.uniform(0, 2, g)
    mean_pg = control_g + rng.normal(0, 0.5, (n, g))
    reference_pg = np.tile(mean_pg.mean(axis=0), (n, 1))
    return Truth(mean_pg, control_g, reference_pg, np.full((n, g), 1 / g))


def make_doubles(centered=True):
    """Doubles near twice the mean of the singles, and that mean."""
    rng = np.random.default_rng(0)
    control_g, shared_g = rng.uniform(0, 2, 400), rng.normal(0, 0.3, 400)
    mean_pg = control_g + 2 * shared_g + rng.normal(0, 0.3, (8, 400))
    reference_pg = np.tile(control_g + shared_g, (8, 1))
    weight_pg = np.full(mean_pg.shape, 1 / 400)
    return Truth(mean_pg, control_g, reference_pg, weight_pg, centered), shared_g


def test_the_truth_itself_has_the_best_score_of_every_metric():
    truth = make_truth()
    scores = score_effects(truth, truth.mean_pg, truth.control_g)
    assert set(scores) == set(METRICS)
    for name, value_p in scores.items():
        best = 0 if "mse" in name else 1
        np.testing.assert_allclose(value_p, best, atol=1e-12)


def test_no_change_and_the_mean_say_nothing_of_what_sets_perturbations_apart():
    truth = make_truth()
    none = score_effects(truth, np.tile(truth.control_g, (6, 1)), truth.control_g)
    mean = score_effects(truth, truth.reference_pg, truth.control_g)
    assert (none["pearson_control"] == 0).all()
    assert (mean["pearson_perturbed"] == 0).all()
    for scores in (none, mean):
        assert scores["discrimination_cosine"].mean() == pytest.approx(0.5)


@pytest.mark.parametrize("times", [0, 1, 1.7, 2, -3])
def test_what_all_combinations_share_earns_nothing(times):
    truth, shared_g = make_doubles()
    constant_pg = np.tile(truth.control_g + times * shared_g, (8, 1))
    scores = score_effects(truth, constant_pg, truth.control_g)
    assert (scores["pearson_perturbed"] == 0).all()
    # Less the mean of the singles, as published, the sign of the offset alone earns a score.
    earned = scores["pearson_singles"]
    assert (earned == 0).all() if times == 1 else (np.abs(earned) > 0.3).all()


def test_a_shared_offset_changes_nothing_that_sets_combinations_apart():
    truth, shared_g = make_doubles()
    predicted_pg = truth.mean_pg + np.random.default_rng(1).normal(0, 0.3, truth.mean_pg.shape)
    plain, shifted = (
        score_effects(truth, predicted_pg + times * shared_g, truth.control_g) for times in (0, 5)
    )
    np.testing.assert_allclose(plain["pearson_perturbed"], shifted["pearson_perturbed"])
    assert 0.5 < plain["pearson_perturbed"].mean() < 0.9


def test_leaving_each_combination_out_of_its_own_mean_gives_the_same_correlation():
    truth, _ = make_doubles()
    predicted_pg = truth.mean_pg + np.random.default_rng(1).normal(0, 0.3, truth.mean_pg.shape)
    apart = [
        values - (values.sum(axis=0) - values) / (len(values) - 1)
        for values in (predicted_pg, truth.mean_pg)
    ]
    found = score_effects(truth, predicted_pg, truth.control_g)["pearson_perturbed"]
    np.testing.assert_allclose(found, correlate_rows(*apart))


def test_a_set_of_one_combination_is_set_apart_from_nothing():
    truth, _ = make_doubles()
    rows = truth.reference_pg[:1], truth.weight_pg[:1]
    one = Truth(truth.mean_pg[:1], truth.control_g, *rows, centered=True)
    assert score_effects(one, one.mean_pg, one.control_g)["pearson_perturbed"].tolist() == [0]


def test_singles_are_held_against_the_mean_of_the_known_ones():
    truth, _ = make_doubles(centered=False)
    scores = score_effects(truth, truth.mean_pg, truth.control_g)
    np.testing.assert_array_equal(scores["pearson_perturbed"], scores["pearson_singles"])


def test_the_mean_scores_exactly_nothing_on_twenty_thousand_genes():
    """Control + mean of differences is the mean of means but for rounding, which must not count."""
    rng = np.random.default_rng(0)
    control_g = rng.uniform(0, 5, 20_000)
    mean_pg = control_g + rng.normal(0, 0.05, (200, 20_000))
    effect_g = (mean_pg - control_g).mean(axis=0)
    reference_pg = np.tile(mean_pg.mean(axis=0), (200, 1))
    truth = Truth(mean_pg, control_g, reference_pg, np.full(mean_pg.shape, 1 / 20_000))
    predicted_pg = np.tile(control_g + effect_g, (200, 1))
    assert 0 < np.abs(predicted_pg - reference_pg).max() < 1e-12
    assert (score_effects(truth, predicted_pg, control_g)["pearson_perturbed"] == 0).all()


@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
def test_the_unit_of_the_values_makes_no_difference(scale):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 50))
    expected = [np.corrcoef(*pair)[0, 1] for pair in zip(one, other, strict=True)]
    np.testing.assert_allclose(correlate_rows(scale * one, scale * other), expected)
    draws = draw_resamples(3, rng)
    mse = scale * np.array([2.0, 3, 4]), scale * np.array([4.0, 6, 8]), scale * np.ones(3)
    assert rescale(mse, -1, draws).value == pytest.approx(0.6)


def test_the_effect_is_measured_from_the_controls_it_was_predicted_from():
    """Noise of the control cells must not count as a predicted effect."""
    truth = make_truth()
    shift = np.random.default_rng(1).normal(0, 1, 40)
    scores = score_effects(truth, truth.mean_pg + shift, truth.control_g + shift)
    np.testing.assert_allclose(scores["pearson_control"], 1)


def test_a_constant_row_correlates_with_nothing():
    assert correlate_rows(np.ones((2, 5)), np.arange(10.0).reshape(2, 5)).tolist() == [0, 0]


def test_the_own_truth_ranks_first_last_or_in_the_middle():
    near = np.array([[0.0, 1, 2], [1, 0, 2], [1, 2, 0]])
    assert rank_truth(near).tolist() == [1, 1, 1]
    assert rank_truth(-near).tolist() == [0, 0, 0]
    assert rank_truth(np.ones((3, 3))).tolist() == [0.5, 0.5, 0.5]
    assert rank_truth(np.array([[0.5, 0.5, 9]] * 3)).tolist() == [0.75, 0.75, 0]
    assert np.isnan(rank_truth(np.zeros((1, 1)))).all()


def test_an_effect_of_nothing_is_at_distance_one_from_every_truth():
    assert (measure_cosines(np.zeros((1, 4)), np.eye(4)) == 1).all()


def test_weights_follow_the_squared_t_score():
    control = np.zeros(3), np.ones(3), 100
    weight_pg = weigh_genes(np.array([[1.0, 2, 0]]), np.ones((1, 3)), np.array([100]), control)
    np.testing.assert_allclose(weight_pg, [[0.2, 0.8, 0]])
    noisy = weigh_genes(np.array([[1.0, 1, 0]]), np.array([[1.0, 9, 1]]), np.array([100]), control)
    np.testing.assert_allclose(noisy[0, 0] / noisy[0, 1], 5, rtol=1e-5)


@pytest.mark.parametrize("direction", [1, -1])
def test_the_mean_is_0_and_the_ceiling_1_whichever_way_is_better(direction):
    rng = np.random.default_rng(0)
    draws = draw_resamples(8, rng)
    mean_p, ceiling_p = rng.normal(0, 0.1, 8), direction + rng.normal(0, 0.1, 8)
    for own_p, expected in ((mean_p, 0), (ceiling_p, 1), ((mean_p + ceiling_p) / 2, 0.5)):
        found = rescale((own_p, mean_p, ceiling_p), direction, draws)
        assert found.value == pytest.approx(expected)
        assert found.low - 1e-9 <= expected <= found.high + 1e-9
    assert rescale((mean_p, ceiling_p, mean_p), direction, draws) is None


def test_equal_methods_have_no_paired_difference_and_a_shifted_one_has():
    rng = np.random.default_rng(0)
    value_p, draws = rng.normal(0, 5, 12), draw_resamples(12, rng)
    same, shifted = bound_mean(value_p - value_p, draws), bound_mean(value_p + 1 - value_p, draws)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert shifted.low == pytest.approx(1)
    assert bound_mean(value_p, draws).low < 0 < bound_mean(value_p, draws).high


def test_a_set_ranks_only_with_five_perturbations_and_a_ceiling_above_the_mean():
    assert explain_inability(np.full(5, 0.2), np.zeros(5)) is None
    assert "0.19 above the constant" in explain_inability(np.full(5, 0.19), np.zeros(5))
    assert "4 perturbations; 5" in explain_inability(np.ones(4), np.zeros(4))
