import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tabatlas.scores.importance import (
    average_precision,
    bin_expression,
    bootstrap_mean,
    bound_overlap,
    correlate_ranks,
    draw_matched,
    expect_overlap,
    find_top,
    overlap_sets,
    share_reaching,
)


def test_top_genes_are_the_largest_above_zero():
    assert find_top(np.array([0.0, 3, 1, 3, -2]), 4).tolist() == [1, 3, 2]


def test_overlap_is_the_share_of_the_union():
    assert overlap_sets(np.array([1, 2, 3]), np.array([3, 4])) == 0.25
    assert overlap_sets(np.array([1]), np.array([1])) == 1
    assert overlap_sets(np.array([]), np.array([])) == 0


@pytest.mark.parametrize(("n_genes", "n_top"), [(50, 10), (30, 29), (8, 20)])
def test_expected_overlap_is_that_of_random_sets(n_genes, n_top):
    rng = np.random.default_rng(0)
    size = min(n_top, n_genes)
    draws = [
        overlap_sets(*(rng.choice(n_genes, size, replace=False) for _ in range(2)))
        for _ in range(2000)
    ]
    assert expect_overlap(n_genes, n_top) == pytest.approx(np.mean(draws), abs=0.01)


@pytest.mark.parametrize(("n_genes", "n_top"), [(60, 20), (2000, 20)])
def test_random_sets_seldom_exceed_their_bound(n_genes, n_top):
    rng = np.random.default_rng(0)
    draws = [
        overlap_sets(*(rng.choice(n_genes, n_top, replace=False) for _ in range(2)))
        for _ in range(2000)
    ]
    bound = bound_overlap(n_genes, n_top)
    assert np.mean(np.array(draws) > bound) <= 0.004
    assert bound > 2 * expect_overlap(n_genes, n_top)
    assert bound < 0.5


def test_of_all_genes_every_set_is_the_same():
    assert bound_overlap(8, 20) == 1
    assert bound_overlap(0, 20) == 0


def test_what_ranks_nothing_is_not_correlated():
    assert correlate_ranks(np.ones(5), np.arange(5)) == 0
    assert correlate_ranks(np.arange(5), np.arange(5) ** 3) == pytest.approx(1)


def test_average_precision_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    score_g = rng.integers(0, 6, 80) / 7
    sets = rng.random((20, 80)) < 0.2
    wanted = [average_precision_score(one, score_g) for one in sets]
    np.testing.assert_allclose(average_precision(score_g, sets), wanted)


def test_bins_hold_genes_of_like_expression():
    mean_g = np.random.default_rng(0).permutation(200).astype(float)
    bin_g = bin_expression(mean_g)
    assert np.bincount(bin_g).tolist() == [50] * 4
    assert (bin_g == mean_g // 50).all()
    assert set(bin_expression(np.arange(7.0))) == {0}


def test_matched_sets_have_as_many_genes_of_each_bin_as_the_markers():
    rng = np.random.default_rng(0)
    bin_g, is_marker_g = rng.integers(0, 4, 100), rng.random(100) < 0.2
    sets = draw_matched(is_marker_g, bin_g, 300, rng)
    for one in range(4):
        assert (sets[:, bin_g == one].sum(axis=1) == is_marker_g[bin_g == one].sum()).all()
    # Every gene of a bin is drawn as often as its bin's share of markers says.
    wanted = np.array([is_marker_g[bin_g == one].mean() for one in range(4)])[bin_g]
    assert np.abs(sets.mean(axis=0) - wanted).max() < 0.12


def test_expression_alone_reaches_what_matched_genes_reach():
    """Markers that are only strongly expressed genes are no agreement."""
    rng = np.random.default_rng(0)
    mean_g = rng.random(400)
    is_marker_g = rng.random(400) < mean_g**4
    sets = draw_matched(is_marker_g, bin_expression(mean_g), 200, rng)
    ours = average_precision(mean_g, is_marker_g[None])[0]
    assert ours > 2 * is_marker_g.mean()
    assert average_precision(mean_g, sets).mean() > 0.9 * ours


def test_share_reaching_is_a_p_value():
    assert share_reaching(1.0, np.zeros(99)) == 0.01
    assert share_reaching(0.0, np.zeros(99)) == 1


def test_interval_is_over_donors_where_there_are_five():
    rng = np.random.default_rng(0)
    donor_n = np.arange(600) // 100
    value_n = donor_n + rng.normal(0, 0.1, 600)
    over_donors = bootstrap_mean(value_n, donor_n, np.random.default_rng(1))
    over_cells = bootstrap_mean(value_n, donor_n % 4, np.random.default_rng(1))
    assert over_donors == bootstrap_mean(value_n, donor_n, np.random.default_rng(1))
    assert over_donors.low < over_donors.value == value_n.mean() < over_donors.high
    assert over_donors.high - over_donors.low > 4 * (over_cells.high - over_cells.low)
