"""Which genes a mask selects, without logits of cells × genes ever being stored.

The logits of a minibatch are a field: attention times weights, scaled and shifted by the ghost
normalization of the cell's chunk. A tile of them at a time is computed, the projection's threshold
found, and the genes above it kept: the one dense product of the sparse form. What is kept are
candidates, among them all genes that the projection selects, up to rounding; `project` then gives
them their exact share, and that is what is differentiated.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from tabatlas.tabnet import loops
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.products import sample
from tabatlas.tabnet.projections import count_newton_steps

TILE_BYTES = 1 << 22  # of logits at a time: they stay in a CPU's shared cache
# Of the largest logit, in units of rounding: how far below its threshold a candidate may lie, as
# its logit in a tile is not summed in the order in which it is summed alone.
MARGIN = 64
POWER = {"sparsemax": 1, "entmax": 2}


class Field(NamedTuple):
    """Logits of n cells over g genes: prior · ((a · w_g) · scale_cg + shift_cg), nowhere stored.

    `sizes` are the cells of each of the c chunks, in order; `prior` is that of a gene which no
    step has selected. Where `hidden`, a logit is -inf; `known` are those of genes that steps before
    selected, each with its own prior.
    """

    weight_ga: Tensor
    attention_na: Tensor
    scale_cg: Tensor
    shift_cg: Tensor
    sizes: list[int]
    prior: float
    hidden: GeneSets
    known: Entries | None = None

    def measure(self, indptr: Tensor, gene: Tensor, prior: Tensor | float) -> Tensor:
        """Logits at entries (e,), differentiable; `prior` is theirs."""
        row = Entries(indptr, gene, gene).rows()
        place = self.number_chunks()[row] * len(self.weight_ga) + gene
        scale, shift = (both.flatten().index_select(0, place) for both in self[2:4])
        product = sample(self.attention_na, self.weight_ga, indptr, gene)
        return prior * torch.addcmul(shift, product, scale)

    def number_chunks(self) -> Tensor:
        """Chunk of each cell (n,)."""
        cell_n = torch.arange(len(self.attention_na), device=self.scale_cg.device)
        n_larger = self.sizes.count(self.sizes[0])
        # Arithmetic in place of a table: that would have to be sent to a GPU.
        border = n_larger * self.sizes[0]
        smaller_n = (cell_n - border) // self.sizes[-1] + n_larger
        return torch.where(cell_n < border, cell_n // self.sizes[0], smaller_n)


@torch.no_grad()
def select(field: Field, power: int) -> tuple[Tensor, Tensor]:
    """Row pointers (n + 1,) and genes (e,) int32 of candidates, ascending within each cell."""
    if loops.can_run(field.weight_ga):
        return select_by_tiles(field, power)
    # Triton comes with builds of torch for a GPU only.
    from tabatlas.tabnet.select_cuda import find_candidates

    margin = MARGIN * torch.finfo(field.weight_ga.dtype).eps
    return find_candidates(*field[:4], *field[5:], power, margin)


def select_by_tiles(field: Field, power: int) -> tuple[Tensor, Tensor]:
    """`select` on a CPU."""
    n_genes, kind = len(field.weight_ga), field.weight_ga.dtype
    n_rows = max(1, TILE_BYTES // (n_genes * kind.itemsize))
    logits_tg = field.weight_ga.new_empty(n_rows, n_genes)
    place_tg = field.weight_ga.new_empty(n_rows, n_genes, dtype=torch.int32)
    counts, genes, first = [], [], 0
    for chunk, size in enumerate(field.sizes):
        weight_ga = field.weight_ga * (field.prior * field.scale_cg[chunk])[:, None]
        shift_g = field.prior * field.shift_cg[chunk]
        for begin in range(first, first + size, n_rows):
            rows = slice(begin, min(begin + n_rows, first + size))
            tile_tg = logits_tg[: rows.stop - rows.start]
            torch.addmm(shift_g, field.attention_na[rows], weight_ga.t(), out=tile_tg)
            count_t, gene = search_tile(tile_tg, field, rows, power, place_tg)
            counts.append(count_t)
            genes.append(gene)
        first += size
    indptr = torch.zeros(first + 1, dtype=torch.int64)
    torch.cumsum(torch.cat(counts), 0, out=indptr[1:])
    return indptr, torch.cat(genes)


def search_tile(
    logits_tg: Tensor, field: Field, rows: slice, power: int, place_tg: Tensor
) -> tuple[Tensor, Tensor]:
    """How many candidates the rows of a tile have (t,), and which."""
    n_rows, n_genes = logits_tg.shape
    nothing = np.empty(0, np.int64)
    hidden = field.hidden.set_n[rows].numpy(), field.hidden.member_mg.numpy()
    known = nothing, np.empty(0, np.int32), np.empty(0, logits_tg.numpy().dtype)
    if field.known is not None:
        indptr, gene, value = (tensor.detach().numpy() for tensor in field.known)
        known = indptr[rows.start : rows.stop + 1], gene, value
    epsilon = torch.finfo(logits_tg.dtype).eps
    n_steps = count_newton_steps(n_genes, logits_tg.dtype)
    count_t = np.empty(n_rows, np.int64)
    numbers = power, n_steps, MARGIN * epsilon
    tile = logits_tg.numpy()
    arrays = tile, *hidden, *known, *numbers, count_t, place_tg.numpy()
    loops.share(loops.search_rows, n_rows, *arrays)
    gene = np.empty(count_t.sum(), np.int32)
    loops.pack_rows(count_t, place_tg.numpy(), gene)
    return torch.from_numpy(count_t), torch.from_numpy(gene)


def project(indptr: Tensor, logits: Tensor, power: int) -> Tensor:
    """The projection's p at candidates (e,), whose rows sum to 1; differentiable."""
    return ProjectRows.apply(indptr, logits, power)


class ProjectRows(Function):
    """`projections.Sparsemax` and `Entmax15` within ragged rows."""

    @staticmethod
    def forward(ctx: Any, indptr: Tensor, logits: Tensor, power: int) -> Tensor:
        """(e,)."""
        gap = find_gaps(indptr, logits, power)
        ctx.save_for_backward(indptr, gap if power == 2 else gap.ceil())
        return gap.square() if power == 2 else gap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """As `projections.center_gradient`."""
        indptr, weight = ctx.saved_tensors
        return None, center_gradient(indptr, weight, grad.contiguous()), None


def find_gaps(indptr: Tensor, logits: Tensor, power: int) -> Tensor:
    """p of sparsemax, or √p of entmax-1.5, within ragged rows (e,)."""
    if not loops.can_run(logits):
        from tabatlas.tabnet import select_cuda

        return select_cuda.find_gaps(indptr, logits, power)
    gap = torch.empty_like(logits)
    n_steps = count_newton_steps(max(2, len(logits)), logits.dtype)
    arrays = indptr.numpy(), logits.detach().numpy(), power, n_steps, gap.numpy()
    loops.share(loops.project_rows, len(indptr) - 1, *arrays)
    return gap


def center_gradient(indptr: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """`projections.center_gradient` within ragged rows (e,)."""
    if not loops.can_run(weight):
        weighted = weight * grad
        total_n, weighted_n = (sum_rows(indptr, one) for one in (weight, weighted))
        mean_n = weighted_n / total_n.clamp_min(torch.finfo(weight.dtype).tiny)
        row = Entries(indptr, weight, weight).rows()
        return torch.addcmul(weighted, weight, mean_n[row], value=-1)
    centered = torch.empty_like(weight)
    arrays = indptr.numpy(), weight.numpy(), grad.numpy(), centered.numpy()
    loops.share(loops.center_rows, len(indptr) - 1, *arrays)
    return centered


def sum_rows(indptr: Tensor, value: Tensor) -> Tensor:
    """Sum of each ragged row (n,)."""
    # "unsafe" is a look at the pointers left out, for which the host would wait.
    return torch.segment_reduce(value, "sum", offsets=indptr, initial=0, unsafe=True)
