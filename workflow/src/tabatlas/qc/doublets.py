"""Find doublets in one library with scrublet, and doubt what cannot be true."""

import warnings
from dataclasses import dataclass

import anndata as ad
import numpy as np
import scanpy as sc
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from tabatlas.names import DOUBLET_SCORE
from tabatlas.qc.settings import QCSettings


@dataclass(frozen=True)
class Doublets:
    """Scores and calls of one library's cells.

    `score_n` is 0 for cells that were not scored, above 0 for all others. `threshold` is None where
    no doublet is called; `note` says why.
    """

    score_n: np.ndarray
    called_n: np.ndarray
    threshold: float | None
    note: str

    @classmethod
    def unsearched(cls, n_cells: int, obstacle: str) -> "Doublets":
        """What is said of cells that were not scored, and why."""
        note = f"not searched for doublets: {obstacle}"
        return cls(np.zeros(n_cells), np.zeros(n_cells, dtype=bool), None, note)


def find_doublets(counts: sp.csr_matrix, settings: QCSettings) -> Doublets:
    """Score the cells of one library (n, genes); call doublets where the threshold is credible."""
    n_cells = counts.shape[0]
    obstacle = refuse_library(n_cells, settings)
    if obstacle:
        return Doublets.unsearched(n_cells, obstacle)
    try:
        score_n, simulated, threshold = run_scrublet(counts, settings.seed)
    except ValueError:
        # From scanpy, where fewer genes vary than scrublet takes principal components.
        return Doublets.unsearched(n_cells, "too few variable genes")
    doubt = doubt_threshold(score_n, simulated, threshold, settings.doublet_max_rate)
    if doubt:
        return Doublets(
            score_n, np.zeros(n_cells, dtype=bool), None, f"no doublets called: {doubt}"
        )
    return Doublets(score_n, score_n > threshold, threshold, "")


def refuse_library(n_cells: int, settings: QCSettings) -> str:
    """Why so many cells are not searched, or ""."""
    if not settings.doublets:
        return "switched off"
    if n_cells < settings.doublet_min_cells:
        return f"{n_cells} cells are too few"
    if n_cells > settings.doublet_max_cells:
        return f"{n_cells} cells are more than one library"
    return ""


def run_scrublet(counts: sp.csr_matrix, seed: int) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Scores of the cells (n,) and of simulated doublets (2n,), and the threshold between modes.

    The threshold is None where the simulated scores do not have two modes.
    """
    library = ad.AnnData(X=counts)
    # One thread: with several, the principal components and so the neighbors depend on the number
    # of cores. scanpy warns of its own sparse formats and of cells without a variable gene.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Exact neighbors: scanpy 1.11's approximate ones fail on pynndescent 0.7.
        sc.pp.scrublet(library, random_state=seed, use_approx_neighbors=False, verbose=False)
    found = library.uns["scrublet"]
    # scrublet leaves out cells with fewer than 3 genes.
    score_n = library.obs[DOUBLET_SCORE].fillna(0).to_numpy()
    return score_n, found["doublet_scores_sim"], found.get("threshold")


def doubt_threshold(
    score_n: np.ndarray, simulated: np.ndarray, threshold: float | None, max_rate: float
) -> str:
    """Why scrublet's threshold is not to be trusted, or "".

    It implies this share of doublets in the library: cells called / simulated doublets recognized
    (Wolock et al. 2019). In samples of one cell type or of few cells that comes out above 1.
    """
    if threshold is None:
        return "the scores of simulated doublets do not have two modes"
    called, recognized = np.mean(score_n > threshold), np.mean(simulated > threshold)
    if called <= max_rate * recognized:
        return ""
    return (
        f"the threshold {threshold:.3f} marks {called:.1%} of the cells and only "
        f"{recognized:.1%} of simulated doublets"
    )
