"""Products with sparse rows, differentiable, of which none makes anything of cells × genes.

    multiply(entries, W)   Σ over a row's entries of value · W[gene]         (n, h)
    sample(a, B, …)        a[row] · B[gene] at the entries of a pattern      (e,)

Each is what the other's gradient asks for. On a CPU they are loops of our own, elsewhere those of
torch.sparse.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tabatlas.tabnet import loops
from tabatlas.tabnet.entries import Entries

# cuSPARSE has no product at entries in half precision.
in_float32 = torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)


def multiply(entries: Entries, weight_gh: Tensor) -> Tensor:
    """Entries (n, g) × weights (g, h) → (n, h); a gradient for values and for weights."""
    return Multiply.apply(*entries, weight_gh)


def sample(a_nk: Tensor, b_gk: Tensor, indptr: Tensor, gene: Tensor) -> Tensor:
    """Products of a (n, k) and bᵀ (k, g) at entries only (e,); a gradient for both factors."""
    return Sample.apply(a_nk, b_gk, indptr, gene)


class Multiply(Function):
    """Entries × weights."""

    @staticmethod
    @in_float32
    def forward(ctx: Any, indptr: Tensor, gene: Tensor, value: Tensor, weight_gh: Tensor) -> Tensor:
        """(n, h)."""
        ctx.save_for_backward(indptr, gene, value, weight_gh)
        return multiply_entries(Entries(indptr, gene, value), weight_gh)

    @staticmethod
    def backward(ctx: Any, grad_nh: Tensor) -> tuple[Tensor | None, ...]:
        """For values and weights."""
        indptr, gene, value, weight_gh = ctx.saved_tensors
        grad_nh = grad_nh.contiguous()
        to_value, to_weight = ctx.needs_input_grad[2:]
        return (
            None,
            None,
            sample_entries(grad_nh, weight_gh, indptr, gene) if to_value else None,
            multiply_transposed(Entries(indptr, gene, value), grad_nh, len(weight_gh))
            if to_weight
            else None,
        )


class Sample(Function):
    """Dot products at entries."""

    @staticmethod
    @in_float32
    def forward(ctx: Any, a_nk: Tensor, b_gk: Tensor, indptr: Tensor, gene: Tensor) -> Tensor:
        """(e,)."""
        ctx.save_for_backward(a_nk, b_gk, indptr, gene)
        return sample_entries(a_nk.contiguous(), b_gk, indptr, gene)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """For both factors."""
        a_nk, b_gk, indptr, gene = ctx.saved_tensors
        entries = Entries(indptr, gene, grad.contiguous())
        to_a, to_b = ctx.needs_input_grad[:2]
        return (
            multiply_entries(entries, b_gk) if to_a else None,
            multiply_transposed(entries, a_nk.contiguous(), len(b_gk)) if to_b else None,
            None,
            None,
        )


def multiply_entries(entries: Entries, weight_gh: Tensor) -> Tensor:
    """Entries (n, g) × weights (g, h)."""
    if not loops.can_run(weight_gh):
        return open_csr(entries, len(weight_gh)) @ weight_gh
    out_nh = weight_gh.new_zeros(entries.n_rows, weight_gh.shape[1])
    arrays = [tensor.detach().numpy() for tensor in (*entries, weight_gh, out_nh)]
    loops.share(loops.multiply_rows, entries.n_rows, *arrays)
    return out_nh


def multiply_transposed(entries: Entries, other_nh: Tensor, n_genes: int) -> Tensor:
    """Entriesᵀ (g, n) × other (n, h)."""
    if not loops.can_run(other_nh):
        return open_csr(turn_entries(entries, n_genes), len(other_nh)) @ other_nh
    by_gene = loops.transpose(*(tensor.detach().numpy() for tensor in entries), n_genes)
    out_gh = other_nh.new_zeros(n_genes, other_nh.shape[1])
    arrays = other_nh.detach().numpy(), out_gh.numpy()
    loops.share(loops.multiply_rows, n_genes, *by_gene, *arrays)
    return out_gh


def sample_entries(a_nk: Tensor, b_gk: Tensor, indptr: Tensor, gene: Tensor) -> Tensor:
    """Products of a (n, k) and bᵀ (k, g) at the entries of a pattern."""
    value = a_nk.new_zeros(len(gene))
    if not loops.can_run(a_nk):
        pattern = open_csr(Entries(indptr, gene, value), len(b_gk))
        return torch.sparse.sampled_addmm(pattern, a_nk, b_gk.t(), beta=0).values()
    arrays = [tensor.detach().numpy() for tensor in (indptr, gene, a_nk, b_gk, value)]
    loops.share(loops.sample_rows, len(indptr) - 1, *arrays)
    return value


def turn_entries(entries: Entries, n_genes: int) -> Entries:
    """The entries by gene: pointers (g + 1,), and for each gene its cells, ascending."""
    gene, order = entries.gene.int().sort(stable=True)
    # Not counted by bincount, for which the host would wait.
    starts = torch.arange(n_genes + 1, dtype=torch.int32, device=gene.device)
    indptr = torch.searchsorted(gene, starts)
    return Entries(indptr, entries.rows()[order], entries.value[order])


def open_csr(entries: Entries, n_columns: int) -> Tensor:
    """The entries as torch's own sparse rows."""
    size = (entries.n_rows, n_columns)
    # Half the bytes of int64, and what cuSPARSE is made for.
    pattern = entries.indptr.int(), entries.gene.int()
    return torch.sparse_csr_tensor(*pattern, entries.value, size, check_invariants=False)
