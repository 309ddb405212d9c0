"""Products with sparse rows, differentiable, of which none makes anything of cells × genes.

    multiply(entries, W)             Σ over a row's entries of value · W[gene]           (n, h)
    multiply_scaled(entries, s, W)   the same with s[gene] · value                       (n, h)
    multiply_dense(x, W, first)      x times the rows of W from `first` on               (n, h)
    sample(a, B, …)                  a[row] · B[gene] at the entries of a pattern        (e,)

The first three return W as well: whoever uses it next takes it from there. So its gradient, as
large as W, goes from one to the next and each adds to it, instead of making one of its own. Give
the returned W to these products alone: they add to its gradient in place.

On a CPU the products are loops of our own, elsewhere those of torch.sparse.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tabatlas.tabnet import loops
from tabatlas.tabnet.entries import Entries

BLOCK = 256

# cuSPARSE has no product at entries in half precision.
in_float32 = torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)


def multiply(entries: Entries, weight_gh: Tensor) -> tuple[Tensor, Tensor]:
    """Entries (n, g) × weights (g, h) → (n, h), and the weights; a gradient for values too."""
    return Multiply.apply(*entries, weight_gh)


def multiply_scaled(entries: Entries, gain_g: Tensor, weight_gh: Tensor) -> tuple[Tensor, Tensor]:
    """Entries · gain (n, g) × weights (g, h) → (n, h), and the weights; a gradient for all."""
    return MultiplyScaled.apply(*entries, gain_g, weight_gh)


def multiply_dense(x_nk: Tensor, weight_gh: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """x (n, k) × the k rows of the weights (g, h) from `first` on → (n, h), and the weights."""
    return MultiplyDense.apply(x_nk, weight_gh, first)


def sample(a_nk: Tensor, b_gk: Tensor, indptr: Tensor, gene: Tensor) -> Tensor:
    """Products of a (n, k) and bᵀ (k, g) at entries only (e,); a gradient for both factors."""
    return Sample.apply(a_nk, b_gk, indptr, gene)


class Multiply(Function):
    """Entries × weights."""

    @staticmethod
    @in_float32
    def forward(
        ctx: Any, indptr: Tensor, gene: Tensor, value: Tensor, weight_gh: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(n, h), and the weights."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(indptr, gene, value, weight_gh)
        return multiply_entries(Entries(indptr, gene, value), weight_gh), weight_gh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nh: Tensor, grad_gh: Tensor | None) -> tuple[Tensor | None, ...]:
        """For values and weights."""
        indptr, gene, value, weight_gh = ctx.saved_tensors
        if grad_nh is None:  # only the weights went on
            return None, None, None, grad_gh
        grad_nh = grad_nh.contiguous()
        to_value, to_weight = ctx.needs_input_grad[2:]
        if to_weight:
            grad_gh = start_gradient(grad_gh, weight_gh)
            add_transposed(Entries(indptr, gene, value), grad_nh, grad_gh)
        to_value = sample_entries(grad_nh, weight_gh, indptr, gene) if to_value else None
        return None, None, to_value, grad_gh


class MultiplyScaled(Function):
    """(Entries · gain) × weights."""

    @staticmethod
    @in_float32
    def forward(
        ctx: Any, indptr: Tensor, gene: Tensor, value: Tensor, gain_g: Tensor, weight_gh: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(n, h), and the weights."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(indptr, gene, value, gain_g, weight_gh)
        scaled = value * gain_g.index_select(0, gene.int())
        return multiply_entries(Entries(indptr, gene, scaled), weight_gh), weight_gh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nh: Tensor, grad_gh: Tensor | None) -> tuple[Tensor | None, ...]:
        """For gain and weights in one pass over the genes; for values where it is asked for."""
        *entries, gain_g, weight_gh = ctx.saved_tensors
        if grad_nh is None:
            return None, None, None, None, grad_gh
        grad_nh, to_value = grad_nh.contiguous(), None
        if ctx.needs_input_grad[2]:
            indptr, gene, _ = entries
            to_value = sample_entries(grad_nh, weight_gh, indptr, gene)
            to_value *= gain_g.index_select(0, gene.int())
        grad_gh = start_gradient(grad_gh, weight_gh)
        to_gain_g = torch.zeros_like(gain_g)
        if not loops.can_run(grad_nh):
            product_gh = multiply_turned(Entries(*entries), grad_nh, len(gain_g))
            to_gain_g = torch.linalg.vecdot(product_gh, weight_gh[: len(gain_g)])
            grad_gh[: len(gain_g)].addcmul_(product_gh, gain_g[:, None])
            return None, None, to_value, to_gain_g, grad_gh
        by_gene = loops.transpose(*map(to_array, entries), len(gain_g))
        tensors = grad_nh, weight_gh, gain_g, to_gain_g, grad_gh
        loops.share(loops.add_scaled_rows, len(gain_g), *by_gene, *map(to_array, tensors))
        return None, None, to_value, to_gain_g, grad_gh


class MultiplyDense(Function):
    """Few dense columns × weights."""

    @staticmethod
    @in_float32
    def forward(ctx: Any, x_nk: Tensor, weight_gh: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """(n, h), and the weights."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x_nk, weight_gh)
        ctx.rows = slice(first, first + x_nk.shape[1])
        with torch.autocast(x_nk.device.type, enabled=False):
            return multiply_blocks(x_nk, weight_gh[ctx.rows]), weight_gh

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nh: Tensor, grad_gh: Tensor | None) -> tuple[Tensor | None, ...]:
        """For both."""
        x_nk, weight_gh = ctx.saved_tensors
        if grad_nh is None:
            return None, grad_gh, None
        to_x, to_weight = ctx.needs_input_grad[:2]
        if to_weight:
            grad_gh = start_gradient(grad_gh, weight_gh)
            grad_gh[ctx.rows].addmm_(x_nk.t(), grad_nh)
        to_x = grad_nh @ weight_gh[ctx.rows].t() if to_x else None
        return to_x, grad_gh, None


class Sample(Function):
    """Dot products at entries."""

    @staticmethod
    @in_float32
    def forward(ctx: Any, a_nk: Tensor, b_gk: Tensor, indptr: Tensor, gene: Tensor) -> Tensor:
        """(e,)."""
        ctx.save_for_backward(a_nk, b_gk, indptr, gene)
        return sample_entries(a_nk.contiguous(), b_gk, indptr, gene)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """For both factors."""
        a_nk, b_gk, indptr, gene = ctx.saved_tensors
        entries = Entries(indptr, gene, grad.contiguous())
        to_a, to_b = ctx.needs_input_grad[:2]
        return (
            multiply_entries(entries, b_gk) if to_a else None,
            add_transposed(entries, a_nk.contiguous(), b_gk.new_zeros(b_gk.shape))
            if to_b
            else None,
            None,
            None,
        )


def multiply_blocks(x_nk: Tensor, weight_kh: Tensor) -> Tensor:
    """x (n, k) × weights (k, h), of which every `BLOCK` terms are summed by themselves.

    The offsets of all genes nearly cancel what the expressed ones add. Summed in float64, the
    blocks leave no more rounding than the dense form has, in which each gene is centered first.
    """
    whole = len(weight_kh) // BLOCK * BLOCK
    rest_nh = x_nk[:, whole:] @ weight_kh[whole:]
    blocks_bnk = x_nk[:, :whole].unflatten(1, (-1, BLOCK)).transpose(0, 1)
    blocks_bnh = torch.bmm(blocks_bnk, weight_kh[:whole].unflatten(0, (-1, BLOCK)))
    return blocks_bnh.sum(0, dtype=torch.float64).add_(rest_nh).to(x_nk.dtype)


def start_gradient(grad_gh: Tensor | None, weight_gh: Tensor) -> Tensor:
    """The gradient of the weights so far, to add to: what later uses made of it, or zeros."""
    # That of a sum, say, is one number in memory.
    return weight_gh.new_zeros(weight_gh.shape) if grad_gh is None else grad_gh.contiguous()


def multiply_entries(entries: Entries, weight_gh: Tensor) -> Tensor:
    """Entries (n, g) × weights (g, h)."""
    if not loops.can_run(weight_gh):
        return open_csr(entries, len(weight_gh)) @ weight_gh
    out_nh = weight_gh.new_zeros(entries.n_rows, weight_gh.shape[1])
    arrays = map(to_array, (*entries, weight_gh.contiguous(), out_nh))
    loops.share(loops.multiply_rows, entries.n_rows, *arrays)
    return out_nh


def add_transposed(entries: Entries, other_nh: Tensor, out_gh: Tensor) -> Tensor:
    """Out + entriesᵀ (g, n) × other (n, h), in place."""
    if not loops.can_run(other_nh):
        return out_gh.add_(multiply_turned(entries, other_nh, len(out_gh)))
    by_gene = loops.transpose(*map(to_array, entries), len(out_gh))
    arrays = to_array(other_nh), to_array(out_gh)
    loops.share(loops.multiply_rows, len(out_gh), *by_gene, *arrays)
    return out_gh


def sample_entries(a_nk: Tensor, b_gk: Tensor, indptr: Tensor, gene: Tensor) -> Tensor:
    """Products of a (n, k) and bᵀ (k, g) at the entries of a pattern."""
    value = a_nk.new_zeros(len(gene))
    if not loops.can_run(a_nk):
        pattern = open_csr(Entries(indptr, gene, value), len(b_gk))
        return torch.sparse.sampled_addmm(pattern, a_nk, b_gk.t(), beta=0).values()
    arrays = map(to_array, (indptr, gene, a_nk, b_gk, value))
    loops.share(loops.sample_rows, len(indptr) - 1, *arrays)
    return value


def to_array(tensor: Tensor) -> np.ndarray:
    """The same numbers for our loops."""
    return tensor.detach().numpy()


def multiply_turned(entries: Entries, other_nh: Tensor, n_genes: int) -> Tensor:
    """Entriesᵀ (g, n) × other (n, h) by torch: pointers and cells of each gene are made first."""
    gene, order = entries.gene.int().sort(stable=True)
    # Not counted by bincount, for which the host would wait.
    starts = torch.arange(n_genes + 1, dtype=torch.int32, device=gene.device)
    turned = Entries(torch.searchsorted(gene, starts), entries.rows()[order], entries.value[order])
    return open_csr(turned, len(other_nh)) @ other_nh


def open_csr(entries: Entries, n_columns: int) -> Tensor:
    """The entries as torch's own sparse rows."""
    size = (entries.n_rows, n_columns)
    # Half the bytes of int64, and what cuSPARSE is made for.
    pattern = entries.indptr.int(), entries.gene.int()
    return torch.sparse_csr_tensor(*pattern, entries.value, size, check_invariants=False)
