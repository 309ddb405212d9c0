"""Sums over cells × genes of which a tile of cells is in memory at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tabatlas.tabnet.precision import at_least_float32

TILE_BYTES = 1 << 24

# What a tile adds, given where it lies and its rows.
Measure = Callable[[slice, Tensor], Tensor]


def sum_tiles(measure: Measure, rows_nk: Tensor, weights: Sequence[Tensor], n_genes: int) -> Tensor:
    """Σ `measure(tile, rows_nk[tile])` over tiles of rows; differentiable.

    As the result is a sum, the gradients for the rows and for `weights`, which `measure` uses, are
    known as soon as a tile is; so nothing of it need be kept. Tiles hold `n_genes` per row in
    `TILE_BYTES`. The sum is float32 at least.
    """
    rows_nk = at_least_float32(rows_nk)
    size = max(1, TILE_BYTES // (n_genes * rows_nk.element_size()))
    tiles = [
        slice(first, min(first + size, len(rows_nk))) for first in range(0, len(rows_nk), size)
    ]
    if not torch.is_grad_enabled():
        return torch.stack([measure(tile, rows_nk[tile]) for tile in tiles]).sum()
    trained = [weight for weight in weights if weight.requires_grad]
    return SumTiles.apply(measure, tiles, rows_nk, *trained)


class SumTiles(Function):
    """The sum, and its gradients with it."""

    @staticmethod
    def forward(
        ctx: Any, measure: Measure, tiles: list[slice], rows_nk: Tensor, *weights: Tensor
    ) -> Tensor:
        """The sum."""
        total, to_rows = rows_nk.new_zeros(()), torch.empty_like(rows_nk)
        to_weights = [torch.zeros_like(weight) for weight in weights]
        for tile in tiles:
            with torch.enable_grad():
                own = rows_nk[tile].detach().requires_grad_()
                part = measure(tile, own)
            to_rows[tile], *grads = torch.autograd.grad(part, [own, *weights])
            for sum_of, grad in zip(to_weights, grads, strict=True):
                sum_of += grad
            total += part.detach()
        ctx.save_for_backward(to_rows, *to_weights)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """For rows and weights."""
        return None, None, *(grad * one for one in ctx.saved_tensors)
