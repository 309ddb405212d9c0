"""Which genes a mask can select, found on a GPU without the logits being stored.

A logit costs n_a multiplications: to compute it twice is cheaper than to store it once. The first
pass over the genes keeps the largest logit of each group of 32. The threshold of some of a cell's
logits is never above that of all, so that the second pass need only keep one bit of each gene: is
its logit above the threshold of the largest? Nothing is larger than a thirty-second of
[cells, genes], until the bits become lists of genes; only then must the host know how many.

Import it where there is a GPU only: `triton` comes with CUDA builds of torch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.projections import count_newton_steps

# A program's tile, and how deep its products go at a time.
CELLS, GENES, DEPTH = tl.constexpr(64), tl.constexpr(128), tl.constexpr(32)
GROUP = tl.constexpr(32)  # genes that share their largest logit, and a word of bits
GROUPS = tl.constexpr(32)  # words that become genes at a time
VALUES = tl.constexpr(1024)  # of a row that are looked at at a time
WARPS = 8  # 4 would keep so much in registers that sm_90 has too few


@triton.jit
def find_logits(
    weight, attention, scale, shift, prior, blocked, n_cells, n_genes, n_chunks, n_a
):  # fmt: skip
    """Logits of the program's tile, -inf where blocked; its cells, and which of them exist."""
    # A program's cells are of one ghost chunk: the first chunks may be larger by one cell.
    programs = tl.cdiv(tl.cdiv(n_cells, n_chunks), CELLS)
    chunk = tl.program_id(0) // programs
    size, n_larger = n_cells // n_chunks, n_cells % n_chunks
    first = chunk * size + tl.minimum(chunk, n_larger)
    end = first + size + (chunk < n_larger).to(tl.int32)
    cell = first + tl.program_id(0) % programs * CELLS + tl.arange(0, CELLS)
    gene = tl.program_id(1) * GENES + tl.arange(0, GENES)
    real, known = (cell < end)[:, None], gene < n_genes
    cell = cell.to(tl.int64)[:, None]
    logit = tl.zeros((CELLS, GENES), tl.float32)
    for start in range(0, n_a, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        inside = depth < n_a
        left = attention + cell * n_a + depth[None, :]
        left = tl.load(left, mask=real & inside[None, :], other=0.0)
        right = weight + gene[None, :] * n_a + depth[:, None]
        right = tl.load(right, mask=known[None, :] & inside[:, None], other=0.0)
        # Selection is discontinuous: TF32 would select other genes.
        logit = tl.dot(left, right, logit, input_precision="ieee")
    column = chunk * n_genes + gene
    scale = tl.load(scale + column, mask=known, other=0.0)
    shift = tl.load(shift + column, mask=known, other=0.0)
    logit = prior * (logit * scale[None, :] + shift[None, :])
    word = blocked + cell * tl.cdiv(n_genes, GROUP) + (gene // GROUP)[None, :]
    # All bits of -1 are set: what is outside is blocked.
    word = tl.load(word, mask=real & known[None, :], other=-1)
    blocked = ((word >> (gene % GROUP)[None, :]) & 1) == 1
    return tl.where(blocked, float("-inf"), logit), cell, real


@triton.jit
def keep_largest(
    largest, weight, attention, scale, shift, prior, blocked, n_cells, n_genes, n_chunks, n_a
):
    """The largest logit of each group of genes."""
    logit, cell, real = find_logits(
        weight, attention, scale, shift, prior, blocked, n_cells, n_genes, n_chunks, n_a
    )
    n_groups = tl.cdiv(n_genes, GROUP)
    group = tl.program_id(1) * (GENES // GROUP) + tl.arange(0, GENES // GROUP)[None, :]
    top = tl.max(tl.reshape(logit, (CELLS, GENES // GROUP, GROUP)), 2)
    tl.store(largest + cell * n_groups + group, top, mask=real & (group < n_groups))


@triton.jit
def keep_above(
    bits, count, floor,
    weight, attention, scale, shift, prior, blocked, n_cells, n_genes, n_chunks, n_a
):  # fmt: skip
    """A bit for each gene whose logit is not below the cell's floor, and how many these are."""
    logit, cell, real = find_logits(
        weight, attention, scale, shift, prior, blocked, n_cells, n_genes, n_chunks, n_a
    )
    # NaN compares with nothing: it is kept, so that the loss shows it.
    below = logit <= tl.load(floor + cell, mask=real, other=float("inf"))
    above = 1 - below.to(tl.int32)
    n_groups = tl.cdiv(n_genes, GROUP)
    group = tl.program_id(1) * (GENES // GROUP) + tl.arange(0, GENES // GROUP)[None, :]
    above = tl.reshape(above, (CELLS, GENES // GROUP, GROUP))
    word = tl.sum(above << tl.arange(0, GROUP)[None, None, :], 2)
    tl.store(bits + cell * n_groups + group, word, mask=real & (group < n_groups))
    tl.atomic_add(count + cell, tl.sum(tl.sum(above, 2), 1)[:, None], mask=real, sem="relaxed")


@triton.jit
def solve_row(top, threshold, value, indptr, n_steps, POWER: tl.constexpr):
    """A row's largest value, and its `projections.find_threshold` below that."""
    row = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(indptr + row), tl.load(indptr + row + 1)
    offset = tl.arange(0, VALUES)
    highest = -1e38  # of a row with nothing but -inf, above which nothing is
    for start in range(begin, end, VALUES):
        inside = start + offset < end
        own = tl.load(value + start + offset, mask=inside, other=float("-inf"))
        highest = tl.maximum(highest, tl.max(own, 0))
    before, after, step = float("-inf"), -1.0 * POWER, 0
    while (after > before) & (step < n_steps):
        before, step = after, step + 1
        total, slope = 0.0, 0.0
        for start in range(begin, end, VALUES):
            inside = start + offset < end
            own = tl.load(value + start + offset, mask=inside, other=float("-inf"))
            gap = tl.maximum(own - highest - before, 0.0)
            if POWER == 1:
                total += tl.sum(gap, 0)
                slope += tl.sum((gap > 0).to(tl.float32), 0)
            else:
                total += tl.sum(gap * gap, 0) / 4
                slope += tl.sum(gap, 0) / 2
        # The slope is never less than 1 but in rows without a value.
        after = before + tl.maximum((total - 1) / tl.maximum(slope, 1.0), 0.0)
    tl.store(top + row, highest)
    tl.store(threshold + row, after)


@triton.jit
def list_genes(gene, indptr, bits, n_groups):
    """The genes of a cell's bits, ascending."""
    cell = tl.program_id(0).to(tl.int64)
    place = tl.load(indptr + cell)
    for start in range(0, n_groups, GROUPS):
        index = start * GROUP + tl.arange(0, GROUPS * GROUP)
        group = index // GROUP
        word = tl.load(bits + cell * n_groups + group, mask=group < n_groups, other=0)
        above = (word >> (index % GROUP)) & 1
        tl.store(gene + place + tl.cumsum(above, 0) - 1, index, mask=above == 1)
        place += tl.sum(above, 0)


class Words(NamedTuple):
    """Where entries stand among words of bits (n, w)."""

    row: Tensor  # (e,) int64
    word: Tensor  # (e,) int64, of all n · w
    bit: Tensor  # (e,) int32, a power of 2


def find_candidates(
    weight_ga: Tensor,
    attention_na: Tensor,
    scale_cg: Tensor,
    shift_cg: Tensor,
    prior: float,
    hidden: GeneSets,
    known: Entries | None,
    power: int,
    margin: float,
) -> tuple[Tensor, Tensor]:
    """Row pointers (n + 1,) and genes (e,) int32, ascending in a row, that `power` may select.

    The field is that of `select.Field`, in float32; no known gene is hidden. All genes whose logit
    is above the cell's threshold are found, and few others: those within `margin`, in units of the
    largest logit or of 1, and those above the threshold of the groups' largest alone.
    """
    assert weight_ga.dtype == torch.float32, "the kernels compute in float32"
    (n_cells, n_a), n_genes, n_chunks = attention_na.shape, len(weight_ga), len(scale_cg)
    largest_nw = attention_na.new_empty(n_cells, triton.cdiv(n_genes, GROUP.value))
    words = None if known is None else number_words(known, largest_nw.shape[1])
    tensors = (one.contiguous() for one in (weight_ga, attention_na, scale_cg, shift_cg))
    field = (*tensors, prior, find_blocked(hidden, words), n_cells, n_genes, n_chunks, n_a)
    programs = n_chunks * triton.cdiv(triton.cdiv(n_cells, n_chunks), CELLS.value)
    grid = (programs, triton.cdiv(n_genes, GENES.value))

    keep_largest[grid](largest_nw, *field, num_warps=WARPS)
    if words is not None:
        largest_nw.view(-1).scatter_reduce_(0, words.word, known.value, "amax")
    ends = torch.arange(n_cells + 1, device=largest_nw.device) * largest_nw.shape[1]
    top_n, threshold_n = solve(ends, largest_nw.view(-1), power)
    floor_n = top_n + threshold_n - margin * top_n.abs().clamp_min(1)
    floor_n.nan_to_num_(nan=-torch.inf)
    bits_nw = torch.empty_like(largest_nw, dtype=torch.int32)
    count_n = torch.zeros_like(floor_n, dtype=torch.int32)
    keep_above[grid](bits_nw, count_n, floor_n, *field, num_warps=WARPS)
    if words is not None:
        above = (~(known.value <= floor_n[words.row])).int()
        bits_nw.view(-1).index_add_(0, words.word, above * words.bit)
        count_n.index_add_(0, words.row, above)
    return list_candidates(bits_nw, count_n)


def number_words(entries: Entries, n_groups: int) -> Words:
    """The words of entries."""
    row, gene = entries.rows(), entries.gene.int()
    return Words(row, row * n_groups + gene // GROUP.value, 1 << gene % GROUP.value)


def find_blocked(hidden: GeneSets, known: Words | None) -> Tensor:
    """Bits (n, w) of the genes that have no logit, or whose logit is known."""
    bit_mg = F.pad(hidden.member_mg, (0, -hidden.member_mg.shape[1] % GROUP.value)).int()
    place = torch.arange(GROUP.value, dtype=torch.int32, device=bit_mg.device)
    word_mw = (bit_mg.unflatten(1, (-1, GROUP.value)) << place).sum(2, dtype=torch.int32)
    blocked_nw = word_mw[hidden.set_n]
    if known is not None:
        blocked_nw.view(-1).index_add_(0, known.word, known.bit)
    return blocked_nw


def list_candidates(bits_nw: Tensor, count_n: Tensor) -> tuple[Tensor, Tensor]:
    """Row pointers and genes of bits, of which each cell has so many."""
    indptr = F.pad(count_n.cumsum(0), (1, 0))
    # The one time that the host waits: the list must be allocated.
    gene = torch.empty(int(indptr[-1]), dtype=torch.int32, device=indptr.device)
    list_genes[(len(count_n),)](gene, indptr, bits_nw, bits_nw.shape[1])
    return indptr, gene


def solve(indptr: Tensor, value: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """The largest value of each row (n,), and where its threshold lies from there (n,), ≤ 0."""
    top_n, threshold_n = value.new_empty(2, len(indptr) - 1).unbind()
    n_steps = count_newton_steps(max(2, len(value)), value.dtype)
    solve_row[(len(top_n),)](top_n, threshold_n, value, indptr, n_steps, power)
    return top_n, threshold_n


def find_gaps(indptr: Tensor, logits: Tensor, power: int) -> Tensor:
    """p of sparsemax, or √p of entmax-1.5, within ragged rows (e,)."""
    top_n, threshold_n = solve(indptr, logits, power)
    row = Entries(indptr, logits, logits).rows()
    return (logits - top_n[row] - threshold_n[row]).clamp_min(0) / power
