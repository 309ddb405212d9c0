import numpy as np
import pytest
import torch
from scipy import stats

from tabatlas.integrate.likelihood import measure_distance, measure_surprise
from tabatlas.integrate.model import CountDecoder


def test_the_surprise_of_counts_is_scipys():
    generator = torch.Generator().manual_seed(0)
    count_ng = torch.poisson(torch.full((20, 6), 3.0), generator=generator).double()
    log_mean_ng = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    log_dispersion_g = torch.randn(6, generator=generator, dtype=torch.float64)
    seen_ng = torch.rand(20, 6, generator=generator) < 0.7
    found = measure_surprise(count_ng, log_mean_ng, log_dispersion_g, seen_ng)
    mean, dispersion = log_mean_ng.exp().numpy(), log_dispersion_g.exp().numpy()
    log_p = stats.nbinom.logpmf(count_ng.numpy(), dispersion, dispersion / (dispersion + mean))
    np.testing.assert_allclose(found, -(log_p * seen_ng.numpy()).sum(axis=1), rtol=1e-10)


def test_float32_is_enough_within_the_bounds_of_the_dispersion():
    """Beyond them lgamma(count + θ) − lgamma(θ) is the difference of two huge numbers."""
    decoder = CountDecoder(2, [], 8, torch.ones(5), torch.Generator().manual_seed(0))
    count_ng = torch.tensor([[0.0, 1.0, 7.0, 60.0, 900.0]])
    log_mean_ng = torch.tensor([[-3.0, 0.0, 2.0, 4.0, 6.5]])
    for wanted in (-1e4, -3.0, 0.0, 5.0, 1e4):
        with torch.no_grad():
            decoder.dispersion_g.fill_(wanted)
        log_dispersion_g = decoder.log_dispersion_g.detach()
        assert log_dispersion_g.abs().max() <= 7
        seen_ng = torch.ones_like(count_ng, dtype=torch.bool)
        found = measure_surprise(count_ng, log_mean_ng, log_dispersion_g, seen_ng)
        mean, theta = (one.double().exp().numpy() for one in (log_mean_ng, log_dispersion_g))
        expected = -stats.nbinom.logpmf(count_ng.numpy(), theta, theta / (theta + mean)).sum()
        assert found.item() == pytest.approx(expected, rel=1e-3)


def test_a_missing_gene_has_no_part_and_a_finite_gradient():
    log_mean_ng = torch.tensor([[0.5, -torch.inf]], requires_grad=True)
    dispersion_g = torch.zeros(2, requires_grad=True)
    seen_ng = torch.tensor([[True, False]])
    count_ng = torch.tensor([[2.0, 9.0]])
    loss = measure_surprise(count_ng, log_mean_ng, dispersion_g, seen_ng).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(log_mean_ng.grad).all()
    assert log_mean_ng.grad[0, 1] == 0
    assert dispersion_g.grad[1] == 0


def test_the_distance_is_the_divergence_of_two_gaussians():
    mean_nz = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    log_variance_nz = torch.tensor([[0.0, 0.0], [0.5, -1.0]])
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean_nz, (0.5 * log_variance_nz).exp()), normal(0.0, 1.0)
    ).sum(dim=1)
    torch.testing.assert_close(measure_distance(mean_nz, log_variance_nz), expected)
    assert measure_distance(mean_nz, log_variance_nz)[0] == 0
