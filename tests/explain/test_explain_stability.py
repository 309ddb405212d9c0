import numpy as np
import pytest

from tabatlas.explain.stability import find_stable, list_tops, score_stability


@pytest.fixture
def usable_cg():
    usable_cg = np.ones((3, 400), dtype=bool)
    usable_cg[:, :100] = False
    return usable_cg


def test_equal_classifiers_agree_wholly_and_types_of_their_own_do_not(usable_cg):
    importance_cg = np.random.default_rng(0).random((3, 400))
    for one in score_stability(np.stack([importance_cg] * 3), usable_cg, 20):
        assert one["jaccard"] == pytest.approx(1)
        assert one["spearman"] == pytest.approx(1)
        assert one["n_stable"] == 20
        assert one["jaccard_other_types"] < 0.15


def test_random_importances_agree_as_much_as_chance_says(usable_cg):
    found = score_stability(np.random.default_rng(1).random((12, 3, 400)), usable_cg, 20)
    for one in found:
        assert one["jaccard"] == pytest.approx(one["jaccard_chance"], abs=0.015)
        assert abs(one["spearman"]) < one["spearman_chance"]
        assert one["n_stable"] == 0


def test_genes_that_every_type_looks_at_say_nothing_about_a_type(usable_cg):
    importance_kcg = np.tile(np.random.default_rng(0).random(400), (3, 3, 1))
    found = score_stability(importance_kcg, usable_cg, 20)[0]
    assert found["jaccard"] == found["jaccard_other_types"] == 1


def test_genes_that_are_not_usable_are_never_compared(usable_cg):
    importance_cg = np.random.default_rng(0).random((3, 400))
    importance_cg[:, :100] += 10
    assert all(tops.min() >= 100 for tops in list_tops(importance_cg, usable_cg, 20))


def test_a_type_without_genes_has_no_stability(usable_cg):
    usable_cg[1] = False
    found = score_stability(np.random.default_rng(0).random((2, 3, 400)), usable_cg, 20)
    assert found[1] is None
    assert found[0] is not None


def test_a_stable_gene_is_one_of_every_classifiers_first():
    tops = [np.array([5, 3, 8]), np.array([8, 5, 1]), np.array([5, 9, 8])]
    assert find_stable(tops).tolist() == [5, 8]
