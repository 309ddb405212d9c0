import math

import numpy as np
import pytest

from tabatlas.perturb.heads import (
    STRENGTHS,
    Embedding,
    choose_strength,
    fit_head,
    predict_effect,
)


def make_genes(n=15, d=4, g=30, seed=0):
    """Targets whose effect is a linear map of their direction, plus what all share."""
    rng = np.random.default_rng(seed)
    targets = [f"T{number}" for number in range(n)]
    vectors = rng.normal(size=(n, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shared = rng.normal(size=g)
    effects = shared + vectors @ rng.normal(size=(d, g)) + 0.05 * rng.normal(size=(n, g))
    embedding = Embedding(np.zeros(d), dict(zip(targets, vectors, strict=True)))
    return targets, effects, embedding


def test_an_unseen_target_is_predicted_from_its_embedding():
    targets, effects, embedding = make_genes()
    head = fit_head(targets[:12], effects[:12], embedding)
    assert head.strength < 1
    for row in (12, 13, 14):
        predicted = predict_effect(head, [targets[row]], embedding.vectors)
        mean_error = np.square(head.mean_g - effects[row]).sum()
        assert np.square(predicted - effects[row]).sum() < 0.2 * mean_error


def test_embeddings_that_say_nothing_leave_the_mean():
    _, effects, _ = make_genes()
    rng = np.random.default_rng(1)
    targets = [f"T{number}" for number in range(15)]
    noise = Embedding(np.zeros(4), dict(zip(targets, rng.normal(size=(15, 4)), strict=True)))
    head = fit_head(targets[:12], effects[:12], noise)
    predicted = predict_effect(head, ["T13"], noise.vectors)
    error, mean_error = (np.square(one - effects[13]).sum() for one in (predicted, head.mean_g))
    assert error > 0.8 * mean_error
    assert head.strength >= 1


def test_strength_is_the_one_that_brute_force_finds():
    targets, effects, embedding = make_genes(n=9)
    direction = embedding.directions(targets)
    errors = []
    for strength in STRENGTHS:
        error = 0.0
        for out in range(9):
            kept = [row for row in range(9) if row != out]
            mean = effects[kept].mean(axis=0)
            feature = direction - direction[kept].mean(axis=0)
            kernel = feature @ feature.T
            if math.isinf(strength):
                predicted = mean
            else:
                inverse = np.linalg.inv(kernel[np.ix_(kept, kept)] + strength * np.eye(8))
                predicted = mean + kernel[out, kept] @ inverse @ (effects[kept] - mean)
            error += np.square(predicted - effects[out]).sum()
        errors.append(error)
    assert choose_strength(direction, effects) == STRENGTHS[int(np.argmin(errors))]


def test_known_singles_are_given_back_and_doubles_are_centered_additive():
    targets, effects, embedding = make_genes()
    head = fit_head(targets, effects, embedding)
    np.testing.assert_allclose(predict_effect(head, ["T3"], {}), effects[3])
    double = effects[3] + effects[4] - effects.mean(axis=0)
    np.testing.assert_allclose(predict_effect(head, ["T3", "T4"], {}), double)


def test_a_target_of_which_nothing_is_known_counts_as_average():
    targets, effects, embedding = make_genes()
    head = fit_head(targets[:12], effects[:12], embedding)
    np.testing.assert_array_equal(predict_effect(head, ["stranger"], {}), head.mean_g)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_targets_of_a_combination_makes_no_difference(order):
    targets, effects, embedding = make_genes()
    head = fit_head(targets[:12], effects[:12], embedding)
    pair = ["T1", "T13"][::order]
    expected = predict_effect(head, ["T1", "T13"], embedding.vectors)
    np.testing.assert_allclose(predict_effect(head, pair, embedding.vectors), expected)
