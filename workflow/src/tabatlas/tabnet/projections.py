"""Sparsemax and entmax-1.5: projections onto the simplex that give most genes exactly nothing.

Both have the form p = (z - τ)₊ᵏ with the one threshold τ for which the row sums to 1: k = 1 with
the logits as they are is sparsemax (Martins & Astudillo 2016), k = 2 with halved logits is
entmax-1.5 (Peters et al. 2019). A logit may be -inf: its gene gets exactly 0, and no gradient. A
row of nothing but -inf selects nothing: all its entries are 0.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tabatlas.tabnet.precision import at_least_float32


def sparsemax(logits_ng: Tensor) -> Tensor:
    """Project each row onto the simplex; at least float32, whatever the logits are."""
    return Sparsemax.apply(at_least_float32(logits_ng))


def entmax15(logits_ng: Tensor) -> Tensor:
    """Entmax with α = 1.5 of each row; at least float32, whatever the logits are."""
    return Entmax15.apply(at_least_float32(logits_ng))


PROJECTIONS = {"sparsemax": sparsemax, "entmax": entmax15}


class Sparsemax(Function):
    """p = (z - τ)₊; its Jacobian takes the mean over the support from a gradient."""

    @staticmethod
    def forward(ctx: Any, logits_ng: Tensor) -> Tensor:
        """p of each row."""
        shifted_ng = subtract_top(logits_ng)
        gap_ng = measure_gap(shifted_ng, find_threshold(shifted_ng, 1))
        ctx.save_for_backward(gap_ng)
        return gap_ng

    @staticmethod
    def backward(ctx: Any, grad_ng: Tensor) -> Tensor:
        """The gradient within the support, less its mean there."""
        (gap_ng,) = ctx.saved_tensors
        return center_gradient(grad_ng, gap_ng.ceil())


class Entmax15(Function):
    """p = (z/2 - τ)₊²; its Jacobian weighs the support by √p (Peters et al. 2019, section 4)."""

    @staticmethod
    def forward(ctx: Any, logits_ng: Tensor) -> Tensor:
        """p of each row."""
        shifted_ng = subtract_top(logits_ng).mul_(0.5)
        gap_ng = measure_gap(shifted_ng, find_threshold(shifted_ng, 2))
        ctx.save_for_backward(gap_ng)
        return gap_ng.square()

    @staticmethod
    def backward(ctx: Any, grad_ng: Tensor) -> Tensor:
        """The gradient times √p, less its mean weighted by √p."""
        (gap_ng,) = ctx.saved_tensors
        return center_gradient(grad_ng, gap_ng)


def center_gradient(grad_ng: Tensor, weight_ng: Tensor) -> Tensor:
    """w ∘ (grad - Σ w grad / Σ w) of each row: the product with a projection's Jacobian."""
    weighted_ng = weight_ng * grad_ng
    # A row that selects nothing has no weight.
    total_n = weight_ng.sum(-1, keepdim=True).clamp_min(torch.finfo(weight_ng.dtype).tiny)
    return torch.addcmul(weighted_ng, weight_ng, weighted_ng.sum(-1, keepdim=True) / -total_n)


def subtract_top(logits_ng: Tensor) -> Tensor:
    """Logits less the row's largest: τ then lies in [-1, 0). A row of -inf stays -inf."""
    top_n = logits_ng.amax(-1, keepdim=True)
    return logits_ng - top_n.clamp_min(torch.finfo(logits_ng.dtype).min)


def measure_gap(shifted_ng: Tensor, threshold_n: Tensor) -> Tensor:
    """(z - τ)₊, in [0, 1]: its ceiling is 1 on the support and 0 elsewhere."""
    return (shifted_ng - threshold_n).clamp_min_(0)


def find_threshold(shifted_ng: Tensor, power: int) -> Tensor:
    """τ [n, 1] with Σ (z - τ)₊ᵏ = 1 in each row (k = `power`), by Newton's method from the left.

    f(τ) = Σ (z - τ)₊ᵏ - 1 falls and is convex: Newton never passes the root, and each step brings
    f·|f'| down at least fourfold. As f·|f'| ≤ 2 G² at first and |f'| ≥ 1 always, the number of
    steps is bounded; four to ten are usual. A sort takes some ten times as long on a CPU.
    """
    n_genes = shifted_ng.shape[-1]
    # Left of the root: τ of the top gene alone, and of all genes at their mean (Jensen).
    threshold_n = (shifted_ng.mean(-1, keepdim=True) - n_genes ** (-1 / power)).clamp_min_(-1)
    gap_ng = torch.empty_like(shifted_ng)
    for _ in range(count_newton_steps(n_genes, shifted_ng.dtype)):
        torch.sub(shifted_ng, threshold_n, out=gap_ng).clamp_min_(0)
        if power == 1:
            total_n, slope_n = gap_ng.sum(-1, keepdim=True), gap_ng.ceil_().sum(-1, keepdim=True)
        else:
            slope_n = 2 * gap_ng.sum(-1, keepdim=True)
            total_n = gap_ng.square_().sum(-1, keepdim=True)
        before_n = threshold_n
        threshold_n = before_n + ((total_n - 1) / slope_n).clamp_min_(0)
        # A look at the values is free on a CPU; on a GPU it would stall.
        if threshold_n.device.type == "cpu" and torch.equal(threshold_n, before_n):
            break
    return threshold_n


def count_newton_steps(n_genes: int, dtype: torch.dtype) -> int:
    """Newton steps that bring f within rounding of 0: log₄(2 G² / ε)."""
    return math.ceil(0.5 + math.log2(n_genes) - math.log2(torch.finfo(dtype).eps) / 2)
