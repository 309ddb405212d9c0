import weakref
from types import SimpleNamespace

import torch

from tabatlas.explain.attribution import Attributor, TypeSums, name_inputs
from tabatlas.tabnet.covariates import Covariate
from tabatlas.tabnet.encoder import Encoding

N_GENES = 6


class WatchedClassifier:
    """Answers class 0 with flat masks, one more for a covariate; lists the masks it made."""

    def __init__(self, made):
        self.made = made

    def __call__(self, x_ng, missing_ng, covariates, return_masks=False):
        masks_sng = None
        if return_masks:
            assert all(one() is None for one in self.made), "masks of two classifiers at once"
            masks_sng = torch.full((2, len(x_ng), N_GENES + 1), 1 / (N_GENES + 1))
            self.made.append(weakref.ref(masks_sng))
        logits_nc = torch.tensor([[1.0, 0.0]]).repeat(len(x_ng), 1)
        return logits_nc, Encoding(torch.ones(2, len(x_ng), 1), torch.zeros(()), masks_sng)


def test_masks_of_a_classifier_wait_for_those_before_to_go():
    """Answers hold none, so memory is that of one classifier whatever the number of them."""
    made = []
    attributor = Attributor([WatchedClassifier(made)] * 3)
    answers = attributor(torch.rand(4, N_GENES), torch.zeros(4, N_GENES, dtype=torch.bool), None)
    sums = TypeSums(3, 2, 2, N_GENES, 1)
    label_n = torch.tensor([0, 0, 0, 1])
    agreed_n = sums.add_cells(label_n, answers)
    for number in range(3):
        found = attributor.open_masks(number, answers)
        sums.add_masks(number, label_n, agreed_n, found)
        if number == 0:
            sums.count_selected(found, answers.x_ng > 0)
        del found
    assert len(made) == 3
    means = sums.average()
    assert means.n_cells_c.tolist() == [3, 0]
    assert means.covariate_q.round(6).tolist() == [round(1 / 7, 6)]
    assert (means.selected_s == N_GENES).all()
    assert means.n_measured == N_GENES


def test_inputs_are_named_in_the_order_of_their_masks():
    covariates = (
        Covariate("donor", "input", ("a",)),
        Covariate("assay", "condition", ("a",)),
        Covariate("total", "input"),
    )
    classifier = SimpleNamespace(encoder=SimpleNamespace(covariates=covariates))
    assert name_inputs(classifier) == ["total", "donor"]
