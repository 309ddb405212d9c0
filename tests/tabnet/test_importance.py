"""Both ways to sum up masks over steps."""

import torch

from tabatlas.tabnet.importance import average_masks, weigh_masks, weigh_steps

MASKS = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1.0], [0, 0.5, 0.5]]])


def test_a_step_counts_as_much_as_its_decision():
    decision_snd = torch.tensor([[[3.0, 0], [0, 0]], [[0, 1.0], [0, 2]]])
    expected = torch.tensor([[0.75, 0, 0.25], [0, 0.5, 0.5]])
    assert torch.equal(weigh_masks(MASKS, decision_snd), expected)


def test_a_cell_without_any_decision_has_no_important_genes():
    assert not weigh_masks(MASKS, torch.zeros(2, 2, 2)).any()


def test_averaged_masks_take_all_steps_alike():
    expected = torch.tensor([[0.5, 0, 0.5], [0, 0.75, 0.25]])
    assert torch.equal(average_masks(MASKS), expected)


def test_what_the_steps_add_sums_up_to_the_weighted_importance():
    decision_snd = torch.tensor([[[3.0, 0], [0, 0]], [[0, 1.0], [0, 2]]])
    added_sng = weigh_steps(MASKS, decision_snd)
    assert torch.equal(added_sng[0, 0], torch.tensor([0.75, 0, 0]))
    assert torch.equal(added_sng.sum(0), weigh_masks(MASKS, decision_snd))
