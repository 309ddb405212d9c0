"""What both sources of training have: their cells, the order of these, and who reads which."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from tabatlas import names
from tabatlas.stream.columns import Cells
from tabatlas.stream.minibatch import Minibatch
from tabatlas.stream.order import Order, Plan, Share
from tabatlas.stream.prefetch import Reading


class Source(Protocol):
    """Cells in a stored order, and the plan by which they are shuffled."""

    cells: Cells
    plan: Plan
    reading: Reading

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def joinid_n(self) -> np.ndarray:
        """joinids of the cells in stored order (n,)."""
        return self.cells.columns[names.JOINID]

    def order(self, batch_size: int, seed: int, weight_c: np.ndarray | None = None) -> Order:
        """The order of training over all cells, or over those of a class, with weights (c,)."""
        weigh = None if weight_c is None else self.cells.weigh(weight_c)
        return Order(len(self), batch_size, self.plan, seed, weigh)

    def deliver(self, minibatch: Minibatch) -> Minibatch:
        """The minibatch where the reader wants it."""
        return minibatch.pin() if self.reading.pinned else minibatch

    def shuffle(
        self, order: Order, epoch: int, first: int = 0, share: Share | None = None
    ) -> Iterator[Minibatch]:
        """The micro-batches of a share of each minibatch of one epoch, from number `first` on.

        They come one after the other in the one order, as many of each minibatch.
        """
        ...

    def read(self, rows: np.ndarray) -> Minibatch:
        """The cells at stored positions `rows`, in that order."""
        ...
