"""Both ways to sum up masks over steps."""

import pytest
import torch
from both_forms import draw_cells, draw_network

from tabatlas.tabnet.entries import from_dense
from tabatlas.tabnet.importance import average_masks, sum_steps, weigh_masks, weigh_steps

MASKS_SNG = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1.0], [0, 0.5, 0.5]]])
MASKS = [from_dense(mask_ng) for mask_ng in MASKS_SNG]


def test_a_step_counts_as_much_as_its_decision():
    decision_snd = torch.tensor([[[3.0, 0], [0, 0]], [[0, 1.0], [0, 2]]])
    expected = torch.tensor([[0.75, 0, 0.25], [0, 0.5, 0.5]])
    assert torch.equal(weigh_masks(MASKS, decision_snd).to_dense(3), expected)


def test_a_cell_without_any_decision_has_no_important_genes():
    assert not weigh_masks(MASKS, torch.zeros(2, 2, 2)).value.any()


def test_averaged_masks_take_all_steps_alike():
    expected = torch.tensor([[0.5, 0, 0.5], [0, 0.75, 0.25]])
    assert torch.equal(average_masks(MASKS).to_dense(3), expected)


def test_what_the_steps_add_sums_up_to_the_weighted_importance():
    decision_snd = torch.tensor([[[3.0, 0], [0, 0]], [[0, 1.0], [0, 2]]])
    added = weigh_steps(MASKS, decision_snd)
    assert torch.equal(added[0].to_dense(3)[0], torch.tensor([0.75, 0, 0]))
    assert torch.equal(sum_steps(added).value, weigh_masks(MASKS, decision_snd).value)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_networks_importances_are_those_of_the_dense_definition(n_steps, generator):
    """Covariates are among the inputs; some cells have no decision."""
    cells = draw_cells(20, 40, generator)
    network = draw_network(cells, generator, n_steps=n_steps).eval()
    dense = network(cells.x_ng, cells.hidden.to_dense(), cells.covariates, return_masks=True)[1]
    sparse = network.classify(from_dense(cells.x_ng), *cells[1:])[1]
    silent_n = torch.arange(20) % 5 == 0
    decision_snd = dense.decision_snd.masked_fill(silent_n[:, None], 0)
    weighted_sng = dense.masks_sng * decision_snd.sum(-1, keepdim=True)
    expected_ng = weighted_sng.sum(0) / weighted_sng.sum((0, 2))[:, None].clamp_min(1e-300)
    n_selected = dense.masks_sng.shape[-1]
    found_ng = weigh_masks(sparse.masks, decision_snd).to_dense(n_selected)
    assert torch.allclose(found_ng, expected_ng, rtol=0, atol=1e-12)
    assert not found_ng[silent_n].any()
    assert found_ng[~silent_n, 40:].any()
    found_ng = average_masks(sparse.masks).to_dense(n_selected)
    assert torch.allclose(found_ng, dense.masks_sng.mean(0), rtol=0, atol=1e-12)
