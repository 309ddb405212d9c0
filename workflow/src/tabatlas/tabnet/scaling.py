"""The normalization of the input, x̂: every gene on one scale before the first layer.

It takes log1p(CP10k) and begins with each gene's mean and standard deviation over the training
cells. `hidden_ng` is 1 where a gene is hidden, else 0.
"""

import torch
from torch import Tensor, nn

from tabatlas.tabnet.architecture import Architecture
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.normalization import EPSILON


def build_scaling(architecture: Architecture, mean_g: Tensor, sd_g: Tensor) -> nn.Module:
    """The module `(x_ng, hidden_ng) -> x̂_ng` that the architecture names."""
    if architecture.scaling == "batchnorm":
        return BatchScaling(mean_g, sd_g, architecture.momentum)
    return DeviationScaling(mean_g, sd_g, architecture.scale_floor)


class Standardizer(nn.Module):
    """(x - mean) / max(sd, floor), nothing learned: 0 is the gene's mean."""

    def __init__(self, mean_g: Tensor, sd_g: Tensor, floor: float) -> None:
        super().__init__()
        self.register_buffer("mean_g", mean_g.float().clone())
        self.register_buffer("deviation_g", sd_g.float().clamp_min(floor))

    def forward(self, x_ng: Tensor) -> Tensor:
        """Standardized x."""
        return (x_ng - self.mean_g) / self.deviation_g


class DeviationScaling(nn.Module):
    """The standardized value with a learned gain and bias per gene."""

    def __init__(self, mean_g: Tensor, sd_g: Tensor, floor: float) -> None:
        super().__init__()
        self.standardize = Standardizer(mean_g, sd_g, floor)
        self.weight = nn.Parameter(torch.ones(len(mean_g)))
        self.bias = nn.Parameter(torch.zeros(len(mean_g)))

    def forward(self, x_ng: Tensor, hidden_ng: Tensor) -> Tensor:
        """x̂; what is hidden makes no difference to it."""
        return torch.addcmul(self.bias, self.standardize(x_ng), self.weight)

    def fold(self, x: Entries, hidden: GeneSets) -> tuple[Tensor, Tensor]:
        """Gain and offset (g,) of x̂ = gain · x + offset."""
        gain_g = self.weight / self.standardize.deviation_g
        return gain_g, torch.addcmul(self.bias, self.standardize.mean_g, gain_g, value=-1)


class BatchScaling(nn.Module):
    """The paper's batch normalization, over those entries of the minibatch that are not hidden."""

    def __init__(self, mean_g: Tensor, sd_g: Tensor, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(len(mean_g)))
        self.bias = nn.Parameter(torch.zeros(len(mean_g)))
        self.register_buffer("running_mean", mean_g.float().clone())
        self.register_buffer("running_var", sd_g.float().square())

    def forward(self, x_ng: Tensor, hidden_ng: Tensor) -> Tensor:
        """x̂ by the minibatch's statistics in training, by the running ones otherwise."""
        mean_g, var_g = self.running_mean, self.running_var
        if self.training:
            mean_g, var_g = self.measure(x_ng, 1 - hidden_ng)
        return torch.addcmul(self.bias, x_ng - mean_g, self.weight * torch.rsqrt(var_g + EPSILON))

    def fold(self, x: Entries, hidden: GeneSets) -> tuple[Tensor, Tensor]:
        """Gain and offset (g,) of x̂ = gain · x + offset; `x` without what is hidden."""
        mean_g, var_g = self.running_mean, self.running_var
        if self.training:
            mean_g, var_g = self.measure_entries(x, hidden)
        gain_g = self.weight * torch.rsqrt(var_g + EPSILON)
        return gain_g, torch.addcmul(self.bias, mean_g, gain_g, value=-1)

    def measure(self, x_ng: Tensor, seen_ng: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the seen entries; moves the running ones."""
        seen_g = seen_ng.sum(0)
        mean_g = (x_ng * seen_ng).sum(0) / seen_g.clamp_min(1)
        return self.follow(mean_g, ((x_ng - mean_g).square() * seen_ng).sum(0), seen_g)

    def measure_entries(self, x: Entries, hidden: GeneSets) -> tuple[Tensor, Tensor]:
        """`measure` of what is given by its entries.

        An entry of a hidden gene must be 0: it then adds as much as it takes away.
        """
        n_genes, place = hidden.member_mg.shape[1], x.gene.long()
        zero_g = x.value.new_zeros(n_genes)
        one_n = zero_g.new_ones(x.n_rows)
        cells_m = zero_g.new_zeros(len(hidden.member_mg)).index_add(0, hidden.set_n, one_n)
        with torch.autocast(x.value.device.type, enabled=False):  # whole numbers
            seen_g = x.n_rows - cells_m @ hidden.member_mg.to(zero_g.dtype)
        mean_g = zero_g.index_add(0, place, x.value) / seen_g.clamp_min(1)
        # A cell without an entry is the square of the mean away.
        expressed_g = zero_g.index_add(0, place, torch.ones_like(x.value))
        square_g = (seen_g - expressed_g) * mean_g.square()
        square_g = square_g.index_add(0, place, (x.value - mean_g[place]).square())
        return self.follow(mean_g, square_g, seen_g)

    def follow(self, mean_g: Tensor, square_g: Tensor, seen_g: Tensor) -> tuple[Tensor, Tensor]:
        """Move the running statistics; `square_g` is the sum of squares about the mean.

        What is returned has a gradient: embeddings are among what is normalized.
        """
        with torch.no_grad():
            # Fewer than two cells say nothing about a gene's variance.
            momentum_g = self.momentum * (seen_g - 1).clamp(0, 1)
            self.running_mean.lerp_(mean_g, momentum_g)
            self.running_var.lerp_(square_g / (seen_g - 1).clamp_min(1), momentum_g)
        return mean_g, square_g / seen_g.clamp_min(1)
