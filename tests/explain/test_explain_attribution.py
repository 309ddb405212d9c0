import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tabatlas.explain.attribution import (
    Answers,
    Attribution,
    Attributor,
    TypeSums,
    list_importances,
    list_masks,
    name_inputs,
)
from tabatlas.tabnet.covariates import Covariate
from tabatlas.tabnet.encoder import Encoding
from tabatlas.tabnet.entries import Entries, GeneSets, from_dense
from tabatlas.tabnet.importance import average_masks, sum_steps, weigh_masks

N_GENES = 6


class FlatClassifier:
    """Answers class 0 with masks that are flat over all genes and a covariate."""

    encoder = SimpleNamespace(inputs=SimpleNamespace(n_covariates=1))

    def __init__(self):
        self.made = []  # what it selected, for as long as others hold it

    def classify(self, x, missing, covariates):
        assert all(one() is None for one in self.made), "masks of two classifiers at once"
        masks = [from_dense(torch.full((x.n_rows, N_GENES + 1), 1 / (N_GENES + 1)))] * 2
        self.made += [weakref.ref(mask.value) for mask in masks]
        logits_nc = torch.tensor([[1.0, 0.0]]).repeat(x.n_rows, 1)
        return logits_nc, Encoding(torch.ones(2, x.n_rows, 1), torch.zeros(()), masks=masks)


def open_cells(x_ng):
    """Cells of two datasets in turn, the second of which did not measure the last gene."""
    member_mg = torch.zeros(2, x_ng.shape[1], dtype=torch.bool)
    member_mg[1, -1] = True
    return from_dense(x_ng), GeneSets(torch.arange(len(x_ng)) % 2, member_mg)


def test_masks_of_a_classifier_wait_for_those_before_to_go():
    """Answers hold none, so memory is that of one classifier whatever the number of them."""
    model = FlatClassifier()
    attributor = Attributor([model] * 3)
    x_ng = torch.rand(4, N_GENES)
    answers = attributor(*open_cells(x_ng), None)
    sums = TypeSums(3, 2, 2, N_GENES, 1)
    label_n = torch.tensor([0, 0, 0, 1])
    agreed_n = sums.add_cells(label_n, answers)
    for number in range(3):
        found = attributor.open_masks(number, answers)
        model.made += [weakref.ref(one.value) for one in (*found.masks, *found.weighted)]
        sums.add_masks(number, label_n, agreed_n, found)
        if number == 0:
            sums.count_selected(found, sum_steps(found.plain), answers.x)
        del found
    means = sums.average()
    assert means.n_sampled_c.tolist() == [3, 1]
    assert means.n_cells_c.tolist() == [3, 0]
    assert means.covariate_q.round(6).tolist() == [round(1 / 7, 6)]
    assert (means.selected_s == N_GENES).all()
    assert (means.expressed_s == N_GENES).all()
    assert means.n_measured == N_GENES - 0.5
    assert means.measured_cg.tolist() == [[3] * 5 + [2], [0] * 6]
    np.testing.assert_allclose(means.expression_cg[0, :-1], x_ng[:3, :-1].mean(0), rtol=1e-6)
    np.testing.assert_allclose(means.importance["plain"][:, 0, :, :-1], 1 / 14, rtol=1e-6)


def test_sums_by_type_are_those_of_dense_masks():
    """Cells of three types, some of them named wrongly; genes that a cell did not select count."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 20, N_GENES)  # steps, cells, genes
    label_n, agreed_n = torch.arange(20) % 3, torch.rand(20, generator=generator) < 0.7
    dense = [torch.rand(shape, generator=generator).sub(0.6).clamp_min(0) for _ in range(2)]
    masks, weighted = ([from_dense(one_ng) for one_ng in one_sng] for one_sng in dense)
    x_ng = torch.rand(shape[1:], generator=generator).sub(0.5).clamp_min(0)
    found = Attribution(masks, weighted, torch.zeros(20, 0))
    sums = TypeSums(1, 3, 2, N_GENES, 0)
    sums.add_masks(0, label_n, agreed_n, found)
    sums.count_selected(found, sum_steps(found.plain), from_dense(x_ng))
    own_cn = ((label_n == torch.arange(3)[:, None]) & agreed_n).float()
    for name, dense_sng in (("weighted", dense[1]), ("plain", dense[0] / 2)):
        expected_csg = torch.einsum("cn,sng->csg", own_cn, dense_sng)
        np.testing.assert_allclose(sums.sums[name][0], expected_csg, atol=1e-6)
    selected_sng = torch.cat([dense[0] > 0, (dense[0] > 0).any(0, keepdim=True)])
    assert sums.selected_s.tolist() == selected_sng.sum((1, 2)).tolist()
    assert sums.expressed_s.tolist() == (selected_sng & (x_ng > 0)).sum((1, 2)).tolist()


def test_tables_name_what_was_selected_in_the_order_of_cells():
    first = from_dense(torch.tensor([[0, 0.5, 0.5], [1, 0, 0]]))
    second = from_dense(torch.tensor([[0, 0, 1.0], [0, 0, 1]]))
    joinid_n = np.array([7, 9])
    masks = list_masks(joinid_n, [first, second])
    rows = [[7, 1, 1, 0.5], [7, 1, 2, 0.5], [7, 2, 2, 1], [9, 1, 0, 1], [9, 2, 2, 1]]
    assert masks.to_numpy().tolist() == rows
    plain = average_masks([first, second])
    decision_snd = torch.tensor([[[3.0], [0]], [[1], [0]]])
    importances = list_importances(joinid_n, weigh_masks([first, second], decision_snd), plain)
    rows = [[7, 1, 0.375, 0.25], [7, 2, 0.625, 0.75], [9, 0, 0, 0.5], [9, 2, 0, 0.5]]
    assert importances.to_numpy().tolist() == rows


def test_a_candidate_with_a_mask_of_zero_is_not_selected():
    model = FlatClassifier()
    masks = (Entries(torch.tensor([0, 3]), torch.arange(3), torch.tensor([0.4, 0, 0.6])),)
    encoding = Encoding(torch.ones(1, 1, 1), torch.zeros(()), masks=masks)
    model.classify = lambda *inputs: (torch.ones(1, 1), encoding)
    x, missing = open_cells(torch.ones(1, 2))
    found = Attributor([model]).open_masks(0, Answers(x, missing, None, torch.zeros(1, 1)))
    assert [one.gene.tolist() for one in (*found.masks, *found.weighted)] == [[0], [0]]
    assert found.covariate_nq.tolist() == [[pytest.approx(0.6)]]


def test_inputs_are_named_in_the_order_of_their_masks():
    covariates = (
        Covariate("donor", "input", ("a",)),
        Covariate("assay", "condition", ("a",)),
        Covariate("total", "input"),
    )
    classifier = SimpleNamespace(encoder=SimpleNamespace(covariates=covariates))
    assert name_inputs(classifier) == ["total", "donor"]
