"""Compiled loops of the sparse form on a CPU. Each does a range of rows or genes of a larger whole.

They release the GIL: `share` gives a range to each thread. No thread writes where another does, so
the result does not depend on how many there are.
"""

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

# Sums may be reordered, or they would not be vectorized; infinities keep their meaning.
loop = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})

CACHE_BYTES = 1 << 19  # of weights that are worked on at a time: half of a core's second cache
# Sums at a time, in registers: numba's own code would store them after each entry. For float32 a
# quarter of AVX-512's registers, and one.
LANES, NARROW = 64, 16
NUMBER = ir.IntType(32)
FUSED = ("contract",)  # product and sum in one instruction


def can_run(tensor: torch.Tensor) -> bool:
    """Whether a tensor is where the loops are."""
    return tensor.device.type == "cpu"


@functools.cache
def open_pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: starting them would take longer than most loops."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="tabnet")


def share(work: Callable[..., Any], n_items: int, *arrays: Any) -> None:
    """Run `work(first, last, *arrays)` over ranges of items, one for each of torch's threads."""
    n_threads = max(1, min(torch.get_num_threads(), n_items))
    bounds = np.linspace(0, n_items, n_threads + 1).astype(np.int64)
    ranges = list(itertools.pairwise(bounds))
    others = [open_pool(n_threads - 1).submit(work, *one, *arrays) for one in ranges[1:]]
    work(*ranges[0], *arrays)
    for other in others:
        other.result()


def build_add(lanes: int) -> Callable[..., None]:
    """A function for compiled code that sums `lanes` numbers at a time, in registers."""

    @intrinsic
    def add_products(
        typing: Any, column: Any, value: Any, weight: Any, left: Any, target: Any
    ) -> tuple[Any, Any]:
        """target[left:] += Σ value[i] · weight[column[i], left:] over all entries, as far as lanes.

        A row of `weight`, and `target`, lie side by side in memory. All numbers are of one type.
        """
        if not value.dtype == weight.dtype == target.dtype:
            # Read as what they are not, they would be written beyond the end of what is there.
            raise TypingError(f"entries of {value.dtype} times weights of {weight.dtype}")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return generate_products(lanes, context, builder, signature, arguments)

        return types.void(column, value, weight, left, target), generate

    return add_products


add_wide, add_narrow = build_add(LANES), build_add(NARROW)


def generate_products(
    lanes: int, context: Any, builder: Any, signature: Any, arguments: Any
) -> Any:
    """LLVM's instructions of `add_products`."""
    kinds = signature.args
    column, value, weight, target = (
        context.make_array(kinds[at])(context, builder, arguments[at]) for at in (0, 1, 2, 4)
    )
    left, n_entries = arguments[3], builder.extract_value(column.shape, 0)
    vector = ir.VectorType(context.get_data_type(kinds[1].dtype), lanes)
    size = context.get_abi_sizeof(vector.element)
    step = builder.udiv(builder.extract_value(weight.strides, 0), left.type(size))
    nothing, everywhere = ir.Constant(vector, ir.Undefined), ir.VectorType(NUMBER, lanes)(None)

    def find_lanes(array: Any, at: Any) -> Any:
        return builder.bitcast(builder.gep(array.data, [at]), vector.as_pointer())

    out = find_lanes(target, left)
    # From 0, not from the target: a chain of all a row's thousands of additions would round worse
    # than the product of dense matrices does.
    total = cgutils.alloca_once_value(builder, vector(None))
    with cgutils.for_range(builder, n_entries) as entry:
        i = entry.index
        place = builder.load(builder.gep(column.data, [i]))
        place = builder.mul(context.cast(builder, place, kinds[0].dtype, types.int64), step)
        row = builder.load(find_lanes(weight, builder.add(place, left)), align=size)
        one = builder.load(builder.gep(value.data, [i]))
        one = builder.insert_element(nothing, one, NUMBER(0))
        product = builder.fmul(builder.shuffle_vector(one, nothing, everywhere), row, flags=FUSED)
        builder.store(builder.fadd(product, builder.load(total), flags=FUSED), total)
    whole = builder.fadd(builder.load(out, align=size), builder.load(total))
    builder.store(whole, out, align=size)
    return context.get_dummy_value()


@loop
def add_scaled(value, weight, target):
    """target += value · weight."""
    for j in range(len(target)):
        target[j] += value * weight[j]


@loop
def add_entries(gene, value, weight, target):
    """target += Σ value · weight[gene] over a row's entries."""
    left = 0
    while left + LANES <= len(target):
        add_wide(gene, value, weight, left, target)
        left += LANES
    while left + NARROW <= len(target):
        add_narrow(gene, value, weight, left, target)
        left += NARROW
    if left < len(target):
        for i in range(len(gene)):
            add_scaled(value[i], weight[gene[i], left:], target[left:])


@loop
def choose_width(indptr, weight):
    """Columns to work on at a time: as fit in the cache, but some entries of each row at least.

    Sums round by it, so it is chosen for all rows, in whatever ranges they are shared.
    """
    fitting = CACHE_BYTES // (weight.shape[1] * weight.itemsize)
    worthwhile = 8 * (len(indptr) - 1) * len(weight) // max(1, indptr[-1] - indptr[0])
    return max(16, fitting, worthwhile)


@loop
def find_end(column, begin, end, stop):
    """Where the ascending columns of a row reach `stop`."""
    while begin < end and column[begin] < stop:
        begin += 1
    return begin


@loop
def multiply_rows(first, last, indptr, column, value, weight, out):
    """Rows of out = entries × weight, some columns at a time: their weights stay in cache."""
    begin = indptr[first:last].copy()
    width = choose_width(indptr, weight)
    for stop in range(width, len(weight) + width, width):
        for row in range(first, last):
            own = slice(
                begin[row - first], find_end(column, begin[row - first], indptr[row + 1], stop)
            )
            add_entries(column[own], value[own], weight, out[row])
            begin[row - first] = own.stop


@loop
def dot(a, b):
    """Sum of products."""
    total = a.dtype.type(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@loop
def sample_rows(first, last, indptr, column, a, b, out):
    """out of each entry = a[row] · b[column], some columns at a time as above."""
    begin = indptr[first:last].copy()
    width = choose_width(indptr, b)
    for stop in range(width, len(b) + width, width):
        for row in range(first, last):
            end = find_end(column, begin[row - first], indptr[row + 1], stop)
            own = a[row]
            for i in range(begin[row - first], end):
                out[i] = dot(own, b[column[i]])
            begin[row - first] = end


@loop
def add_scaled_rows(
    first, last, indptr, column, value, other, weight, gain, to_gain, to_weight
):  # fmt: skip
    """With t = entries × other, row by row: to_gain += t · weight, to_weight += gain · t."""
    # Some of the width at a time, side by side in memory: all rows of it stay in cache.
    for left in range(0, other.shape[1], 2 * LANES):
        part = slice(left, min(left + 2 * LANES, other.shape[1]))
        tile = other[:, part].copy()
        total = np.empty(tile.shape[1], dtype=other.dtype)
        for row in range(first, last):
            own = slice(indptr[row], indptr[row + 1])
            total[:] = 0
            add_entries(column[own], value[own], tile, total)
            to_gain[row] += dot(total, weight[row, part])
            add_scaled(gain[row], total, to_weight[row, part])


@loop
def transpose(indptr, column, value, n_columns):
    """The same entries by column: pointers (g + 1,), rows ascending within each, values."""
    begin = np.zeros(n_columns + 1, dtype=np.int64)
    for i in range(len(column)):
        begin[column[i] + 1] += 1
    for g in range(n_columns):
        begin[g + 1] += begin[g]
    place = begin[:-1].copy()
    row_of = np.empty(len(column), dtype=np.int32)
    value_of = np.empty_like(value)
    for row in range(len(indptr) - 1):
        for i in range(indptr[row], indptr[row + 1]):
            to = place[column[i]]
            place[column[i]] = to + 1
            row_of[to] = row
            value_of[to] = value[i]
    return begin, row_of, value_of


BLOCK = 64  # genes of which only the largest logit is looked at first

# A comparison of numbers that are no NaN is vectorized.
ordered = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp", "nnan"}
)


@ordered
def find_top(value):
    """The largest of some values; -inf of none."""
    top = value.dtype.type(-np.inf)
    for i in range(len(value)):
        top = max(top, value[i])
    return top


@ordered
def sum_gaps(value, threshold):
    """Σ (z - t)₊, and Σ (z - t)₊², of values above a threshold, and how many there are."""
    count, total, square = 0, value.dtype.type(0), value.dtype.type(0)
    for i in range(len(value)):
        gap = max(value[i] - threshold, value.dtype.type(0))
        count += gap > 0
        total += gap
        square += gap * gap
    return count, total, square


@ordered
def find_threshold(value, start, power, n_steps):
    """t with Σ (z - t)₊ = 1, or Σ ((z - t)₊ / 2)² = 1, by Newton's method from the left.

    `start` lies left of it; see `projections.find_threshold` for the bound on the steps.
    """
    threshold = start
    for _ in range(n_steps):
        count, total, square = sum_gaps(value, threshold)
        if power == 1:
            step = (total - 1) / count if count else value.dtype.type(0)
        else:
            step = (square - 4) / (2 * total) if count else value.dtype.type(0)
        moved = threshold + max(step, value.dtype.type(0))
        if moved == threshold:
            break
        threshold = moved
    return threshold


@ordered
def keep_above(value, top, bound, place, kept):
    """Values above a bound and where they stand; `top` is the largest of each block of them."""
    n_kept = 0
    for block in range(len(top)):
        if top[block] > bound:
            for i in range(block * BLOCK, min(len(value), (block + 1) * BLOCK)):
                if value[i] > bound:
                    place[n_kept] = i
                    kept[n_kept] = value[i]
                    n_kept += 1
    return n_kept


@loop
def is_broken(value):
    """Whether NaN or +inf is among some values: what is `ordered` would not see it."""
    total = value.dtype.type(0)
    for i in range(len(value)):
        total += value[i]
    return not total < np.inf


@ordered
def search_row(value, power, n_steps, margin, top, place, kept):
    """Places of a row's candidates, all where one is NaN; returns how many."""
    if is_broken(value):
        for i in range(len(value)):  # a slice's message for unequal shapes compiles for 2 s
            place[i] = i
        return len(value)
    for block in range(len(top)):
        top[block] = find_top(value[block * BLOCK : (block + 1) * BLOCK])
    highest = find_top(top)
    if highest == -np.inf:
        return 0
    # A subset's threshold is no higher than that of all: first that of the blocks' largest.
    bound = find_threshold(top, highest - value.dtype.type(power), power, n_steps)
    n_kept = keep_above(value, top, bound, place, kept)
    bound = find_threshold(kept[:n_kept], bound, power, n_steps)
    bound -= margin * max(abs(highest), value.dtype.type(1))
    return keep_above(value, top, bound, place, kept)


@ordered
def search_rows(
    first, last, value, hidden_t, hidden_mg, known_at, known_gene, known, power, n_steps, margin,
    count, place,
):  # fmt: skip
    """Candidates of the rows of a tile (t, g) of logits: `count` (t,) of them, in `place`."""
    top = np.empty((value.shape[1] + BLOCK - 1) // BLOCK, dtype=value.dtype)
    kept = np.empty(value.shape[1], dtype=value.dtype)
    for row in range(first, last):
        own = value[row]
        if len(known_at):
            for i in range(known_at[row], known_at[row + 1]):
                own[known_gene[i]] = known[i]
        hidden_g = hidden_mg[hidden_t[row]]
        for gene in range(len(hidden_g)):
            own[gene] = -np.inf if hidden_g[gene] else own[gene]
        count[row] = search_row(own, power, n_steps, margin, top, place[row], kept)


@loop
def pack_rows(count, place, out):
    """The first `count` of each row, one after the other."""
    at = 0
    for row in range(len(count)):
        for i in range(count[row]):
            out[at] = place[row, i]
            at += 1


@loop
def project_rows(first, last, indptr, value, power, n_steps, out):
    """√p of entmax-1.5, or p of sparsemax: the projection of each row of entries."""
    for row in range(first, last):
        own = value[indptr[row] : indptr[row + 1]]
        if is_broken(own):
            out[indptr[row] : indptr[row + 1]] = np.nan
            continue
        # In float64, as float32 has no numbers 1 apart beyond 2²⁴.
        threshold = find_threshold(own, np.float64(find_top(own)) - power, power, n_steps)
        for i in range(len(own)):
            gap = max(own[i] - threshold, value.dtype.type(0))
            out[indptr[row] + i] = gap if power == 1 else gap / 2


@loop
def center_rows(first, last, indptr, weight, grad, out):
    """w · (grad - Σ w grad / Σ w) of each row of entries."""
    for row in range(first, last):
        own = slice(indptr[row], indptr[row + 1])
        total = weight.dtype.type(0)
        weighted = weight.dtype.type(0)
        for i in range(own.start, own.stop):
            total += weight[i]
            weighted += weight[i] * grad[i]
        mean = weighted / total if total > 0 else weight.dtype.type(0)
        for i in range(own.start, own.stop):
            out[i] = weight[i] * (grad[i] - mean)


@loop
def match_rows(first, last, indptr, gene, at, among, out):
    """Where each entry's gene stands in the same row of others; their number if nowhere."""
    for row in range(first, last):
        other, end = at[row], at[row + 1]
        for i in range(indptr[row], indptr[row + 1]):
            while other < end and among[other] < gene[i]:
                other += 1
            out[i] = other if other < end and among[other] == gene[i] else len(among)
