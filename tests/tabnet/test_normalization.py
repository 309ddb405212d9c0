"""Ghost batch normalization against a plain loop, and its edge cases."""

import pytest
import torch
import torch.nn.functional as F

from tabatlas.tabnet.normalization import EPSILON, GhostBatchNorm


def build_norm(generator, n_features=5, virtual_batch_size=8) -> GhostBatchNorm:
    norm = GhostBatchNorm(n_features, virtual_batch_size, momentum=0.25).double()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        torch.nn.init.normal_(tensor, generator=generator)
    return norm


def draw_cells(n_cells, generator, n_features=5) -> torch.Tensor:
    return torch.randn(n_cells, n_features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("n_cells", "sizes"),
    [(5, [5]), (8, [8]), (9, [5, 4]), (24, [8, 8, 8]), (26, [7, 7, 6, 6]), (31, [8, 8, 8, 7])],
)
def test_it_equals_a_loop_over_chunks_whatever_the_remainder(n_cells, sizes, generator):
    norm, x = build_norm(generator), draw_cells(n_cells, generator)
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    chunks = x.split(sizes)
    expected = torch.cat(
        [F.batch_norm(c, None, None, norm.weight, norm.bias, True, 0, EPSILON) for c in chunks]
    )
    assert torch.allclose(norm(x), expected, rtol=0, atol=1e-12)
    means, variances = (torch.stack([f(c) for c in chunks]) for f in (chunk_mean, chunk_var))
    assert torch.allclose(norm.running_mean, 0.75 * mean + 0.25 * means.mean(0))
    assert torch.allclose(norm.running_var, 0.75 * var + 0.25 * variances.mean(0))


def chunk_mean(x_nf):
    return x_nf.mean(0)


def chunk_var(x_nf):
    return x_nf.var(0)


def test_gradients_are_those_of_finite_differences(generator):
    norm, x = build_norm(generator), draw_cells(9, generator).requires_grad_()
    assert torch.autograd.gradcheck(norm, x)


def test_a_lone_cell_is_normalized_by_the_running_statistics(generator):
    norm, x = build_norm(generator), draw_cells(1, generator)
    before = norm.running_var.clone()
    trained = norm(x)
    assert torch.equal(trained, norm.eval()(x))
    assert trained.isfinite().all()
    assert torch.equal(norm.running_var, before)


def test_statistics_of_half_precision_features_are_taken_in_float32(generator):
    norm = GhostBatchNorm(5, 8, momentum=0.25)
    x = draw_cells(24, generator).bfloat16()
    assert norm(x).dtype == norm.running_mean.dtype == torch.float32
