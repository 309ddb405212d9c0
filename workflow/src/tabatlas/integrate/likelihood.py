"""How likely counts are, and how far a cell's Gaussian is from the standard one."""

import torch
from torch import Tensor


def measure_surprise(
    count_ng: Tensor, log_mean_ng: Tensor, log_dispersion_g: Tensor, seen_ng: Tensor
) -> Tensor:
    """Negative log probability (n,) in nats of the seen counts under a negative binomial.

    Variance = mean + mean² / dispersion (the inverse dispersion θ of Lopez et al. 2018).
    """
    log_mean_ng = log_mean_ng.masked_fill(~seen_ng, 0.0)  # -inf has no gradient
    dispersion_g = log_dispersion_g.exp()
    found_ng = count_ng * (log_mean_ng - torch.logaddexp(log_mean_ng, log_dispersion_g))
    # Not θ (log θ − log(θ + mean)): two numbers that are nearly equal where θ is large.
    absent_ng = -dispersion_g * torch.log1p((log_mean_ng - log_dispersion_g).exp())
    ways_ng = (
        torch.lgamma(count_ng + dispersion_g)
        - torch.lgamma(dispersion_g)
        - torch.lgamma(count_ng + 1)
    )
    return -((found_ng + absent_ng + ways_ng) * seen_ng).sum(dim=1)


def measure_distance(mean_nz: Tensor, log_variance_nz: Tensor) -> Tensor:
    """Kullback–Leibler divergence (n,) in nats from the standard Gaussian."""
    return 0.5 * (mean_nz.square() + log_variance_nz.exp() - 1 - log_variance_nz).sum(dim=1)
