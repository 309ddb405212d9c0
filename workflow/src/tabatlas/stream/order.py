"""The one order of training: a pure function of seed, epoch and plan, known before any read."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# Weights are whole numbers of this part, so that their sums are exact however they are added.
UNIT = 1 << 16


@dataclass(frozen=True)
class Plan:
    """How stored cells are shuffled: part of a run's identity, never detected from the machine.

    An epoch draws blocks of `block_cells` neighbors in stored order at random, and shuffles the
    cells of about `buffer_cells` of them among each other.
    """

    block_cells: int
    buffer_cells: int

    @property
    def most_cells(self) -> int:
        """Cells of a buffer, at most, to one block."""
        return max(self.block_cells, self.buffer_cells)


# Weights (n,) int64 in `UNIT`s of the cells in rows (n,).
Weigh = Callable[[np.ndarray], np.ndarray]


class Order:
    """The minibatches of every epoch over `n_cells` stored cells.

    A cell of weight w stands ⌊w⌋ or ⌈w⌉ times in an epoch, w times on average; without `weigh`
    exactly once. Every epoch has the same number of minibatches, whose sizes differ by at most one
    cell, so that no small last one spoils batch statistics. What is kept is a number per block.
    """

    def __init__(
        self, n_cells: int, batch_size: int, plan: Plan, seed: int, weigh: Weigh | None = None
    ) -> None:
        self.n_stored, self.batch_size, self.plan, self.seed = n_cells, batch_size, plan, seed
        self.weigh = weigh
        self.n_blocks = -(-n_cells // plan.block_cells)
        self.weight_before_b = self.add_weights()

    def add_weights(self) -> np.ndarray:
        """Weight of all cells before each block, and of all cells at last (blocks + 1,) int64."""
        size = self.plan.block_cells
        starts = np.minimum(np.arange(self.n_blocks + 1) * size, self.n_stored)
        if self.weigh is None:
            return starts * UNIT
        blocks = itertools.pairwise(starts)
        of_block = [self.weigh(np.arange(*block)).sum() for block in blocks]
        return np.concatenate([[0], np.cumsum(of_block, dtype=np.int64)]).astype(np.int64)

    @property
    def n_cells(self) -> int:
        """Cells of an epoch, to one; repeats count."""
        return int(self.weight_before_b[-1] // UNIT)

    @property
    def n_minibatches(self) -> int:
        """Minibatches of every epoch."""
        return -(-self.n_cells // self.batch_size)

    def draw(self, epoch: int) -> "Epoch":
        """The order of one epoch."""
        return Epoch(self, epoch)


class Epoch:
    """One epoch: buffers of shuffled rows, one after the other, cut into minibatches."""

    def __init__(self, order: Order, epoch: int) -> None:
        self.order, self.key = order, (order.seed, epoch)
        rng = np.random.default_rng([*self.key, 0])
        self.offset = 0 if order.weigh is None else int(rng.integers(UNIT))
        self.block_b = rng.permutation(order.n_blocks)
        drawn_b = np.diff((order.weight_before_b + self.offset) // UNIT)[self.block_b]
        before_b = np.cumsum(drawn_b) - drawn_b
        self.n_cells = int(drawn_b.sum())
        # Buffers of equal size: a small last one would mix few cells.
        n_buffers = -(-self.n_cells // order.plan.buffer_cells)
        places = before_b * n_buffers // max(1, self.n_cells)
        # Each once: a block that is larger than a buffer would leave the next one empty.
        self.first_block = np.unique(np.searchsorted(places, np.arange(n_buffers + 1)))
        self.first_cell = np.append(before_b, self.n_cells)[self.first_block]

    @property
    def n_buffers(self) -> int:
        """Buffers of the epoch."""
        return len(self.first_block) - 1

    def read_buffer(self, number: int) -> np.ndarray:
        """Rows of one buffer, shuffled (n,) int64; a row may repeat."""
        order = self.order
        size = order.plan.block_cells
        block_b = self.block_b[self.first_block[number] : self.first_block[number + 1]]
        row_bk = block_b[:, None] * size + np.arange(size)
        stored_bk = row_bk < order.n_stored
        if order.weigh is None:
            rows = row_bk[stored_bk]
        else:
            weight_bk = np.zeros(row_bk.shape, dtype=np.int64)
            weight_bk[stored_bk] = order.weigh(row_bk[stored_bk])
            before_b = order.weight_before_b[block_b, None] + self.offset
            passed_bk = (before_b + np.cumsum(weight_bk, axis=1)) // UNIT
            times_bk = np.diff(passed_bk, axis=1, prepend=before_b // UNIT)
            rows = np.repeat(row_bk.ravel(), times_bk.ravel())
        return np.random.default_rng([*self.key, 1 + number]).permutation(rows)

    def find_buffers(self, minibatch: int) -> range:
        """The buffers that hold the cells of a minibatch: one, at times two or more."""
        cells = (self.bound(minibatch), self.bound(minibatch + 1) - 1)
        first, last = np.searchsorted(self.first_cell, cells, side="right") - 1
        return range(int(first), int(last) + 1)

    def bound(self, minibatch: int) -> int:
        """The place in the epoch at which a minibatch begins."""
        size, longer = divmod(self.n_cells, max(1, self.order.n_minibatches))
        return minibatch * size + min(minibatch, longer)

    def minibatches(self, first: int = 0) -> Iterator[np.ndarray]:
        """Rows of each minibatch from number `first` on: a seek, not a replay."""
        held: dict[int, np.ndarray] = {}
        for number in range(first, self.order.n_minibatches):
            needed = self.find_buffers(number)
            held = {one: held[one] if one in held else self.read_buffer(one) for one in needed}
            start, stop = (
                self.bound(one) - self.first_cell[needed[0]] for one in (number, number + 1)
            )
            yield np.concatenate(list(held.values()))[start:stop]


@dataclass(frozen=True)
class Share:
    """The micro-batches of every global minibatch that one of `world` ranks takes.

    Into how many a minibatch is cut is part of a run's identity, how many ranks share them is not.
    """

    rank: int = 0
    world: int = 1
    micro_batches: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world, "no such rank"
        assert self.micro_batches % self.world == 0, "ranks with unequal numbers of micro-batches"

    @property
    def n_own(self) -> int:
        """How many micro-batches of a minibatch the rank takes."""
        return self.micro_batches // self.world

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows of each of this rank's micro-batches; all ranks' in their order are `rows`."""
        own = range(self.rank * self.n_own, (self.rank + 1) * self.n_own + 1)
        bounds = [len(rows) * one // self.micro_batches for one in own]
        return [rows[start:stop] for start, stop in itertools.pairwise(bounds)]
