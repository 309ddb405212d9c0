"""The normalization of the input: constants of the atlas, or the paper's batch normalization."""

import torch

from tabatlas.tabnet.scaling import BatchScaling, DeviationScaling, Standardizer

NOTHING_HIDDEN = torch.zeros(16, 12, dtype=torch.float64)


def test_standardized_genes_have_mean_zero_and_deviation_one(x_ng):
    z = Standardizer(x_ng.mean(0), x_ng.std(0), floor=1e-3)(x_ng)
    assert torch.allclose(z.mean(0), torch.zeros(12).double(), atol=1e-6)
    assert torch.allclose(z.std(0), torch.ones(12).double(), atol=1e-6)


def test_a_rarely_expressed_gene_is_divided_by_the_floor():
    rare = torch.tensor([[0.0], [0.7]])
    scale = DeviationScaling(torch.tensor([1e-4]), torch.tensor([1e-3]), floor=0.1)
    assert scale(rare, torch.zeros(2, 1)).max() < 7


def test_batch_scaling_is_batch_normalization_when_nothing_is_hidden(x_ng):
    ours = BatchScaling(torch.zeros(12), torch.ones(12), momentum=0.1).double()
    theirs = torch.nn.BatchNorm1d(12, momentum=0.1).double()
    assert torch.allclose(ours(x_ng, NOTHING_HIDDEN), theirs(x_ng))
    assert torch.allclose(ours.running_var, theirs.running_var)
    assert torch.allclose(ours.eval()(x_ng, NOTHING_HIDDEN), theirs.eval()(x_ng))


def test_batch_scaling_takes_no_statistics_from_hidden_entries(x_ng, generator):
    hidden_ng = (torch.rand(x_ng.shape, generator=generator) < 0.5).double()
    hidden_ng[:, 3] = 1
    seen_ng = hidden_ng == 0
    scale = BatchScaling(torch.full((12,), 5.0), torch.ones(12), momentum=1.0).double()
    scaled_ng = scale(x_ng + 100 * hidden_ng, hidden_ng)
    for gene in (0, 7):
        values = scaled_ng[seen_ng[:, gene], gene]
        assert abs(values.mean()) < 1e-9
        assert torch.isclose(scale.running_mean[gene], x_ng[seen_ng[:, gene], gene].mean())
        assert torch.isclose(scale.running_var[gene], x_ng[seen_ng[:, gene], gene].var())
    assert scale.running_mean[3] == 5  # no cell shows it: what was known stays
