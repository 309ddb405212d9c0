"""kBET per cell type: whether a cell's neighbors come from the batches in their proportions.

The algorithm of scib-metrics 0.5.10 (`kbet_per_label`), with two exchanges: neighbors are exact and
ARPACK starts from a fixed vector. Its own search is compiled anew for half a minute in every
process, and its start is drawn from the system's entropy, so that bits would differ between runs.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from scipy.stats import chi2

from tabatlas.scores.neighbors import find_neighbors

ALPHA = 0.05
N_COMPONENTS = 100  # of the diffusion map
LEAST_CELLS = 10  # a type with fewer has no score
LEAST_NEIGHBORS, MOST_NEIGHBORS = 10, 70
LEAST_SHARE = 0.75  # of a type's cells must lie in components that are large enough


def score_kbet(graph: sp.spmatrix, batch_n: np.ndarray, label_n: np.ndarray) -> float:
    """Mean acceptance rate over the types that can be tested, 0 … 1; nan where none can.

    `graph` (n, n) holds UMAP's connectivities of all cells.
    """
    graph = sp.csr_matrix(graph)
    scores = [
        score_type(graph[rows][:, rows], batch_n[rows])
        for rows in (np.flatnonzero(label_n == label) for label in np.unique(label_n))
        if is_testable(batch_n[rows])
    ]
    return float(np.mean(scores)) if scores else float("nan")


def is_testable(batch_n: np.ndarray) -> bool:
    """Whether a type with cells of these batches can be tested."""
    return len(batch_n) >= LEAST_CELLS and len(np.unique(batch_n)) > 1


def score_type(graph: sp.csr_matrix, batch_n: np.ndarray) -> float:
    """Acceptance rate within one type; 0 where its graph falls into pieces."""
    per_batch = len(batch_n) / len(np.unique(batch_n))
    k = int(np.clip(per_batch // 4, LEAST_NEIGHBORS, MOST_NEIGHBORS))
    n_components, component_n = connected_components(graph, connection="strong")
    if n_components > 1:
        large = np.bincount(component_n)[component_n] >= 3 * k
        if large.mean() < LEAST_SHARE:
            return 0.0
        graph, batch_n = graph[large][:, large], batch_n[large]
    if len(batch_n) <= k:
        return 0.0
    neighbor_nk, _ = find_neighbors(map_diffusion(graph), k + 1)
    return accept_neighborhoods(batch_n, neighbor_nk)


def map_diffusion(graph: sp.csr_matrix) -> np.ndarray:
    """Diffusion map of a graph: distances in it are diffusion distances over all times (n, d)."""
    density = sp.diags_array(1 / np.asarray(graph.sum(axis=0)).ravel())
    kernel = density @ graph @ density
    degree = sp.diags_array(1 / np.sqrt(np.asarray(kernel.sum(axis=0)).ravel()))
    transitions = (degree @ kernel @ degree).astype(np.float64)
    n_cells = graph.shape[0]
    n_components = min(N_COMPONENTS, n_cells - 1)
    # A start that is no eigenvector itself, and the same in every run.
    start = np.random.default_rng(0).uniform(-1, 1, n_cells)
    value_d, vector_nd = eigsh(transitions, k=n_components, which="LM", v0=start)
    value_d = value_d[::-1].astype(np.float32) + np.float32(1e-8)
    rest_d = np.where(value_d == 1, 1, 1 - value_d)
    return vector_nd[:, ::-1].astype(np.float32) * (value_d / rest_d)


def accept_neighborhoods(batch_n: np.ndarray, neighbor_nk: np.ndarray) -> float:
    """Share of cells whose neighborhood a χ² test cannot tell from a draw of all cells."""
    codes = np.unique(batch_n, return_inverse=True)[1]
    expected_b = np.bincount(codes) / len(codes) * neighbor_nk.shape[1]
    observed_nb = np.stack(
        [(codes[neighbor_nk] == batch).sum(axis=1) for batch in range(len(expected_b))], axis=1
    )
    statistic_n = ((observed_nb - expected_b) ** 2 / expected_b).sum(axis=1)
    return float((chi2.sf(statistic_n, len(expected_b) - 1) >= ALPHA).mean())
