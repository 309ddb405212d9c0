"""The one order of training: a pure function of (seed, epoch) and the number of cells."""

import numpy as np


def count_minibatches(n_cells: int, batch_size: int) -> int:
    """Number of minibatches of an epoch."""
    return -(-n_cells // batch_size)


def order_minibatches(n_cells: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of each minibatch of an epoch; every cell stands in exactly one.

    Sizes differ by at most one cell, so that no small last minibatch spoils batch statistics.
    """
    rows = np.random.default_rng([seed, epoch]).permutation(n_cells)
    return np.array_split(rows, count_minibatches(n_cells, batch_size))
