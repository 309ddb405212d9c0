"""From minibatches to what a network takes, hidden genes, and the one inference loop."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from tabatlas.stream.minibatch import Minibatch

# A tensor with one row per cell, or several of them.
Output = TypeVar("Output")


def open_inputs(minibatch: Minibatch, presence_mg: Tensor) -> tuple[Tensor, Tensor]:
    """log1p(CP10k) and which genes are missing (n, g), on the device of both arguments.

    `presence_mg` (datasets, g) says which genes each dataset measured: a gene that was not
    measured is not a zero.
    """
    x_ng = minibatch.densify(presence_mg.shape[1])
    return x_ng, ~presence_mg[minibatch.dataset]


def draw_hidden(missing_ng: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Measured genes to hide, each by a coin flip (n, g) bool; one gene at least stays visible."""
    coin_ng = torch.rand(missing_ng.shape, generator=generator, device=missing_ng.device)
    drawn_ng = (coin_ng < ratio) & ~missing_ng
    some_left = (~(drawn_ng | missing_ng)).any(dim=1, keepdim=True)
    return drawn_ng & some_left


@torch.inference_mode()
def predict(
    forward: Callable[[Tensor, Tensor], Output],
    minibatches: Iterable[Minibatch],
    presence_mg: Tensor,
) -> Iterator[tuple[Minibatch, Output]]:
    """Each minibatch, on the device of `presence_mg`, with what `forward` makes of (x, missing)."""
    for minibatch in minibatches:
        moved = minibatch.to(presence_mg.device)
        yield moved, forward(*open_inputs(moved, presence_mg))
