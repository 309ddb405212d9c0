from types import SimpleNamespace

import numpy as np
import torch

from tabatlas.explain.deletion import (
    DeletionTest,
    average_genes,
    choose_sizes,
    cut_sets,
    hide_genes,
    match_genes,
    rank_expression,
    rank_genes,
)
from tabatlas.tabnet.encoder import Encoding
from tabatlas.tabnet.entries import GeneSets, from_dense


def test_top_genes_end_where_importance_ends():
    value_ng = np.array([[0.1, 0, 0.5, 0.4], [0, 0, 0, 0.2]])
    assert rank_genes(value_ng, 3).tolist() == [[2, 3, 0], [3, -1, -1]]


def test_hidden_genes_join_those_that_were_not_measured():
    missing_ng = torch.tensor([[True, False, False, False]] * 2)
    hidden_ng = hide_genes(missing_ng, np.array([[2, 3], [1, -1]]))
    assert hidden_ng.int().tolist() == [[1, 0, 1, 1], [1, 1, 0, 0]]
    assert missing_ng.int().tolist() == [[1, 0, 0, 0]] * 2


def test_matched_genes_are_others_distinct_allowed_and_of_like_expression():
    rng = np.random.default_rng(0)
    mean_ng = np.tile(rng.permutation(2000) / 2000, (5, 1))
    chosen_nk = np.stack([rng.choice(2000, 50, replace=False) for _ in range(5)])
    allowed_ng = rng.random((5, 2000)) < 0.7
    matched_nk = match_genes(chosen_nk, rank_expression(mean_ng), allowed_ng, rng)
    for chosen, matched, allowed in zip(chosen_nk, matched_nk, allowed_ng, strict=True):
        assert len(set(matched)) == 50
        assert not set(matched) & set(chosen)
        assert allowed[matched].all()
    gap = np.abs(
        np.take_along_axis(mean_ng, matched_nk, 1) - np.take_along_axis(mean_ng, chosen_nk, 1)
    )
    assert gap.max() < 0.03
    assert not (
        matched_nk == match_genes(chosen_nk, rank_expression(mean_ng), allowed_ng, rng)
    ).all()


def test_the_most_expressed_genes_find_the_next_ones():
    mean_ng = np.arange(100.0)[None]
    chosen_nk = np.arange(99, 89, -1)[None]
    matched = match_genes(
        chosen_nk, rank_expression(mean_ng), np.ones((1, 100), bool), np.random.default_rng(0)
    )
    assert len(set(matched[0])) == 10
    assert matched.min() >= 60


def test_where_genes_run_out_fewer_are_hidden():
    chosen_nk = np.array([[0, 1, 2]])
    allowed_ng = np.array([[True, True, True, True, False]])
    matched = match_genes(chosen_nk, np.arange(5)[None], allowed_ng, np.random.default_rng(0))
    assert sorted(matched[0]) == [-1, -1, 3]


def test_a_small_panel_loses_few_genes():
    assert choose_sizes(2000) == (1, 2, 5, 10, 20, 50)
    assert choose_sizes(60) == (1, 2, 5, 10)


def test_mean_of_a_set_leaves_out_what_is_no_gene():
    found = average_genes(np.array([[1.0, 2, 4]] * 2), np.array([[2, 0], [1, -1]]))
    assert found.tolist() == [2.5, 2]


def test_sets_of_unequal_number_are_cut_to_the_smallest():
    ours, control = np.array([[1, 2, 3], [1, 2, 3]]), np.array([[7, -1, 8], [7, 8, 9]])
    two = cut_sets([ours, control], 2)
    assert [one.tolist() for one in two] == [[[1, -1], [1, 2]], [[7, -1], [7, 8]]]
    three = cut_sets([ours, control], 3)
    assert [one.tolist() for one in three] == [
        [[1, 2, -1], [1, 2, 3]],
        [[7, -1, 8], [7, 8, 9]],
    ]


def test_masks_control_and_peer_hide_equally_many_and_the_whole_cell_is_asked_once():
    """The masks name 20 genes; the type expresses 24, and the peer has coefficients for 7."""
    n_cells, n_genes = 3, 60
    asked = []

    class Network:
        def __call__(self, x_ng, hidden_ng, covariates):
            asked.append(hidden_ng.sum(dim=1))
            logits_n2 = torch.stack([asked[-1] * -0.1, torch.full((n_cells,), -9.0)], dim=1)
            return logits_n2, None

        def classify(self, x, missing, covariates):
            mask_ng = torch.zeros(n_cells, n_genes)
            mask_ng[:, :20] = torch.arange(20, 0, -1) / 210
            masks = (from_dense(mask_ng),)
            encoding = Encoding(torch.ones(1, n_cells, 1), torch.zeros(()), masks=masks)
            return self(None, missing.to_dense(), covariates)[0], encoding

    expression_cg = np.zeros((2, n_genes))
    expression_cg[:, :24] = np.arange(24, 0, -1)
    logistic = SimpleNamespace(
        scale=lambda x: x.toarray(),
        coefficients_cg=np.tile(np.arange(60) < 7, (2, 1)).astype(float),
    )
    sizes, rng = (2, 10, 20), np.random.default_rng(0)
    rank_cg = rank_expression(expression_cg)
    test = DeletionTest(Network(), 1.0, logistic, expression_cg, rank_cg, sizes, 4, rng)
    missing = GeneSets(torch.zeros(n_cells).long(), torch.zeros(1, n_genes, dtype=torch.bool))
    found = test(from_dense(torch.ones(n_cells, n_genes)), missing, None)
    assert sum((hidden_n == 0).all() for hidden_n in asked) == 1
    # Every loss depends on the number alone, so equal numbers cost equally.
    np.testing.assert_allclose(found.tabnet_ni, found.control_ni)
    np.testing.assert_allclose(found.tabnet_ni, found.logistic_ni)
    # Four expressed genes are left as matches, of the masks' first genes.
    assert found.hidden_ni.tolist() == [[2, 4, 4]] * n_cells
