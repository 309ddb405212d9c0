import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from tabatlas.ontology import ancestors
from tabatlas.scores.classification import (
    accept_descendants,
    average_f1,
    bin_confidence,
    bootstrap_f1,
    count_confusion,
    find_descendants,
    measure_calibration,
    measure_surprise,
    name_bootstrap_unit,
    score_classes,
)

T_CELL, CD4, CD8, B_CELL = "CL:0000084", "CL:0000624", "CL:0000625", "CL:0000236"


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    truth_n = rng.integers(0, 4, 500)
    predicted_n = np.where(rng.random(500) < 0.7, truth_n, rng.integers(0, 5, 500))
    return truth_n, predicted_n


def test_scores_per_class_are_scikit_learns(cells):
    truth_n, predicted_n = cells
    found = score_classes(count_confusion(truth_n, predicted_n, 5))
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        wanted = score(truth_n, predicted_n, labels=range(5), average=None, zero_division=0)
        np.testing.assert_allclose(found[name], wanted)


def test_macro_f1_is_over_the_classes_that_have_true_cells(cells):
    truth_n, predicted_n = cells
    wanted = f1_score(truth_n, predicted_n, labels=range(4), average="macro", zero_division=0)
    np.testing.assert_allclose(average_f1(count_confusion(truth_n, predicted_n, 5)), wanted)


def test_a_finer_answer_than_the_annotation_is_right_and_a_coarser_is_not():
    ids = [T_CELL, CD4, CD8, B_CELL]
    finer_cc = find_descendants(ids, [ancestors(term) for term in ids])
    assert finer_cc[1, 0]
    assert not finer_cc[0, 1]
    assert not finer_cc[1, 2]
    assert not finer_cc.diagonal().any()
    truth_n, predicted_n = np.array([0, 0, 1, 1, 3]), np.array([1, 3, 0, 2, 3])
    assert accept_descendants(truth_n, predicted_n, finer_cc).tolist() == [0, 3, 0, 2, 3]


def test_the_interval_holds_the_value_and_repeats_with_its_seed(cells):
    truth_n, predicted_n = cells
    donor_n = np.arange(500) % 8
    first, again = (
        bootstrap_f1(truth_n, predicted_n, donor_n, 5, np.random.default_rng(1)) for _ in range(2)
    )
    assert first == again
    assert first.low < first.value < first.high


def test_an_interval_over_donors_who_differ_is_wider_than_one_over_cells(cells):
    truth_n, _ = cells
    donor_n = np.arange(500) // 63
    # Half of the donors are predicted well, half of them not at all.
    predicted_n = np.where(donor_n % 2 == 0, truth_n, (truth_n + 1) % 4)
    over_donors = bootstrap_f1(truth_n, predicted_n, donor_n, 4, np.random.default_rng(0))
    over_cells = bootstrap_f1(truth_n, predicted_n, donor_n % 4, 4, np.random.default_rng(0))
    assert name_bootstrap_unit(donor_n) == "donors"
    assert name_bootstrap_unit(donor_n % 4) == "cells"
    assert over_donors.high - over_donors.low > 2 * (over_cells.high - over_cells.low)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probability_nc = np.array([[0.8, 0.2]] * 10)
    truth_n = np.array([0] * 6 + [1] * 4)
    bins = bin_confidence(probability_nc, truth_n)
    assert bins == [{"confidence": pytest.approx(0.8), "accuracy": 0.6, "n_cells": 10}]
    assert measure_calibration(bins) == pytest.approx(0.2)


def test_a_sure_answer_falls_into_the_last_bin():
    assert bin_confidence(np.array([[1.0, 0.0]]), np.array([0]))[0]["accuracy"] == 1


def test_surprise_is_the_log_probability_of_the_truth():
    probability_nc = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert measure_surprise(probability_nc, np.array([0, 0])) == pytest.approx(np.log(2) / 2)
    assert np.isfinite(measure_surprise(probability_nc, np.array([0, 1])))
