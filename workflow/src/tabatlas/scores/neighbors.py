"""Exact nearest neighbors, the same in every run."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

BLOCK = 1024  # cells whose distances are made exact at once


def find_neighbors(x_nd: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and Euclidean distances (n, k), nearest first; a cell is its own first neighbor.

    The distances are taken again from the differences: those of the search come from a matrix
    product, in which the distance of a cell to itself is not quite 0.
    """
    x_nd = np.asarray(x_nd, dtype=np.float32)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x_nd)
    neighbor_nk = search.kneighbors(x_nd, return_distance=False)
    distance_nk = np.empty(neighbor_nk.shape, dtype=np.float32)
    for start in range(0, len(x_nd), BLOCK):
        rows = slice(start, start + BLOCK)
        difference = x_nd[neighbor_nk[rows]] - x_nd[rows, None]
        distance_nk[rows] = np.sqrt(np.square(difference).sum(axis=2))
    own_n1 = np.arange(len(x_nd))[:, None]
    # Among cells at one place the search may have left out the cell itself.
    lost_n = ~(neighbor_nk == own_n1).any(axis=1)
    neighbor_nk[lost_n, -1], distance_nk[lost_n, -1] = own_n1[lost_n, 0], 0
    order = np.lexsort((neighbor_nk != own_n1, distance_nk), axis=1)
    return np.take_along_axis(neighbor_nk, order, 1), np.take_along_axis(distance_nk, order, 1)
