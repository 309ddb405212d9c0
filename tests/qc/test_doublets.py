"""Doublets: found where they can be, never called where they can't."""

import numpy as np
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from tabatlas.qc.doublets import doubt_threshold, find_doublets
from tabatlas.qc.settings import QCSettings


@pytest.fixture
def library(draw_cells) -> tuple[sp.csr_matrix, np.ndarray]:
    """300 cells and, at the end, 20 sums of two of different type; and which are those."""
    single = draw_cells(340)
    double = single[300:320] + single[320:340]  # six types in turn: 20 apart differ
    counts = sp.csr_matrix(np.vstack([single[:300], double]), dtype=np.float32)
    return counts, np.arange(320) >= 300


def test_planted_doublets_are_called(library):
    counts, planted_n = library
    found = find_doublets(counts, QCSettings())
    assert found.threshold is not None
    assert found.called_n[planted_n].mean() >= 0.8
    assert found.called_n[~planted_n].mean() <= 0.02
    assert found.note == ""


def test_the_same_seed_gives_the_same_scores_on_any_number_of_threads(library):
    counts, _ = library
    with threadpool_limits(2):
        first = find_doublets(counts, QCSettings(seed=3))
    with threadpool_limits(1):
        second = find_doublets(counts, QCSettings(seed=3))
    other = find_doublets(counts, QCSettings(seed=4))
    np.testing.assert_array_equal(first.score_n, second.score_n)
    assert first.threshold == second.threshold
    assert (first.score_n != other.score_n).any()


def test_the_counts_are_not_changed(library):
    counts, _ = library
    before = counts.copy()
    find_doublets(counts, QCSettings())
    assert (counts != before).nnz == 0


def test_cells_too_poor_for_a_score_get_0(library):
    counts, _ = library
    poor = sp.csr_matrix(([1.0, 1.0], ([0, 0], [5, 7])), shape=(1, counts.shape[1]))
    found = find_doublets(sp.csr_matrix(sp.vstack([poor, counts]), dtype=np.float32), QCSettings())
    assert found.score_n[0] == 0
    assert not found.called_n[0]
    assert (found.score_n[1:] > 0).all()


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ({"doublets": False}, "switched off"),
        ({"doublet_min_cells": 321}, "320 cells are too few"),
        ({"doublet_max_cells": 319}, "320 cells are more than one library"),
    ],
)
def test_a_sample_that_is_not_searched_says_why(library, settings, obstacle):
    found = find_doublets(library[0], QCSettings(**settings))
    assert not found.called_n.any()
    assert not found.score_n.any()
    assert found.threshold is None
    assert found.note == f"not searched for doublets: {obstacle}"


@pytest.mark.parametrize("n_genes", [1, 25])
def test_a_panel_with_too_few_genes_is_not_searched(library, n_genes):
    found = find_doublets(library[0][:, :n_genes], QCSettings())
    assert not found.called_n.any()
    assert found.note == "not searched for doublets: too few variable genes"


def test_equal_cells_are_not_searched(library):
    same = sp.csr_matrix(np.tile(library[0][0].toarray(), (120, 1)))
    assert not find_doublets(same, QCSettings()).called_n.any()


def test_a_threshold_is_doubted_where_it_implies_too_many_doublets():
    score_n = np.append(np.full(90, 0.1), np.full(10, 0.6))
    half_seen = np.append(np.full(50, 0.1), np.full(50, 0.6))  # 10 % called: 20 % doublets
    assert doubt_threshold(score_n, half_seen, 0.3, 0.25) == ""
    assert "10.0% of the cells" in doubt_threshold(score_n, half_seen, 0.3, 0.15)


def test_a_threshold_that_no_simulated_doublet_reaches_is_doubted_if_it_calls_cells():
    score_n, simulated = np.array([0.1, 0.1, 0.4]), np.full(6, 0.1)
    assert doubt_threshold(score_n, simulated, 0.3, 0.25) != ""
    assert doubt_threshold(score_n, simulated, 0.5, 0.25) == ""


def test_a_threshold_between_no_two_modes_is_doubted():
    assert "two modes" in doubt_threshold(np.array([0.1]), np.array([0.1]), None, 0.25)
