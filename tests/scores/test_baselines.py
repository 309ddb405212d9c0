import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tabatlas.scores.baselines import LogisticBaseline, predict_majority, sample_cells


def test_the_baseline_is_plain_logistic_regression_on_standardized_values():
    rng = np.random.default_rng(0)
    label_n = rng.integers(0, 3, 200)
    x_ng = (rng.random((200, 10)) + np.eye(3)[label_n].repeat(4, axis=1)[:, :10]).astype("f4")
    z_ng = np.clip(StandardScaler().fit_transform(x_ng), -10, 10)
    wanted = LogisticRegression(C=0.1, max_iter=300).fit(z_ng, label_n).predict_proba(z_ng)
    found = LogisticBaseline(sp.csr_matrix(x_ng), label_n, 3).predict(sp.csr_matrix(x_ng))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert (found.argmax(axis=1) == label_n).mean() > 0.8


def test_a_class_without_training_cells_gets_probability_zero():
    x_ng = sp.csr_matrix(np.eye(4, dtype=np.float32))
    found = LogisticBaseline(x_ng, np.array([0, 0, 2, 2]), 3).predict(x_ng)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found[:, 1] == 0).all()


def test_majority_answers_with_the_training_frequencies():
    found = predict_majority(np.array([0, 0, 0, 1]), 2, 3)
    assert found.tolist() == [[0.75, 0.25, 0.0]] * 2


def test_a_sample_keeps_rare_classes_whole():
    label_n = np.array([0] * 1000 + [1] * 5 + [2] * 50)
    rows = sample_cells(label_n, 100, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 100
    n_each = np.bincount(label_n[rows])
    assert n_each[1] == 5
    assert abs(n_each[0] - n_each[2]) <= 1
    assert len(sample_cells(label_n, 5000, np.random.default_rng(0))) == len(label_n)


def test_coefficients_are_those_of_every_class_and_zero_without_training_cells():
    rng = np.random.default_rng(0)
    x_ng = sp.csr_matrix(rng.random((60, 4)).astype("f4"))
    label_n = rng.choice([0, 2, 3], 60)
    three = LogisticBaseline(x_ng, label_n, 5)
    scores_nc = three.scale(x_ng) @ three.coefficients_cg.T + np.insert(
        three.model.intercept_, [1, 3], 0
    )
    assert (three.coefficients_cg[[1, 4]] == 0).all()
    found = np.exp(scores_nc[:, [0, 2, 3]])
    wanted = three.predict(x_ng)[:, [0, 2, 3]]
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), wanted, rtol=1e-4)


def test_of_two_classes_each_has_the_others_coefficients_negated():
    x_ng = sp.csr_matrix(np.array([[0, 1], [0, 2], [1, 0], [2, 0.0]], dtype="f4"))
    first_g, second_g = LogisticBaseline(x_ng, np.array([0, 0, 1, 1]), 2).coefficients_cg
    assert (first_g == -second_g).all()
    assert first_g[1] > 0 > first_g[0]
