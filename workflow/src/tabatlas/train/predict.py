"""From minibatches to what a network takes, hidden genes, and the one inference loop."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from tabatlas.stream.minibatch import Minibatch
from tabatlas.tabnet.covariates import UNKNOWN_LEVEL, Covariates

# A tensor with one row per cell, or several of them.
Output = TypeVar("Output")


def open_inputs(minibatch: Minibatch, presence_mg: Tensor) -> tuple[Tensor, Tensor, Covariates]:
    """log1p(CP10k) and which genes are missing (n, g), and the covariates, all on one device.

    `presence_mg` (datasets, g) says which genes each dataset measured: a gene that was not
    measured is not a zero.
    """
    x_ng = minibatch.densify(presence_mg.shape[1])
    covariates = Covariates(minibatch.level, minibatch.number)
    return x_ng, ~presence_mg[minibatch.dataset], covariates


def draw_hidden(missing_ng: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Measured genes to hide, each by a coin flip (n, g) bool; one gene at least stays visible."""
    coin_ng = torch.rand(missing_ng.shape, generator=generator, device=missing_ng.device)
    drawn_ng = (coin_ng < ratio) & ~missing_ng
    some_left = (~(drawn_ng | missing_ng)).any(dim=1, keepdim=True)
    return drawn_ng & some_left


def forget_levels(covariates: Covariates, ratio: float, generator: torch.Generator) -> Covariates:
    """Make levels unknown by coin flips, so that the network can do without those it never saw."""
    level_nk = covariates.level_nk
    if not level_nk.numel():
        return covariates
    coin_nk = torch.rand(level_nk.shape, generator=generator, device=level_nk.device)
    return covariates._replace(level_nk=level_nk.masked_fill(coin_nk < ratio, UNKNOWN_LEVEL))


@torch.inference_mode()
def predict(
    forward: Callable[[Tensor, Tensor, Covariates], Output],
    minibatches: Iterable[Minibatch],
    presence_mg: Tensor,
) -> Iterator[tuple[Minibatch, Output]]:
    """Each minibatch, on the device of `presence_mg`, with `forward` of its inputs."""
    for minibatch in minibatches:
        moved = minibatch.to(presence_mg.device)
        yield moved, forward(*open_inputs(moved, presence_mg))
