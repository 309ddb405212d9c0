"""The test of an integration: our embedding and the baselines, scored on the same cells."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from tabatlas import names
from tabatlas.errors import ModelError
from tabatlas.integrate.baselines import correct_harmony, draw_random, embed_pca
from tabatlas.integrate.layout import lay_out_cells
from tabatlas.integrate.methods import HARMONY_PCA, HARMONY_TABNET, PCA, RANDOM, TABNET
from tabatlas.integrate.sample import describe_cells
from tabatlas.scores.integration import (
    BATCH_METRICS,
    BIO_METRICS,
    N_NEIGHBORS,
    TOTAL,
    find_undefined,
    score_embeddings,
)

logger = logging.getLogger(__name__)

BASELINES = (PCA, HARMONY_PCA, HARMONY_TABNET, RANDOM)
N_PARTS = 3  # disjoint parts of the cells, in each of which the totals are compared again


def evaluate_embedding(
    embedding_nd: np.ndarray,
    cells: pd.DataFrame,
    counts: sp.csr_matrix,
    total_n: np.ndarray,
    shared_g: np.ndarray,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores of all methods for `scores.json`, and the layout of cells before and after.

    `cells` (soma_joinid, batch, cell_type) are labeled, in the order of the rows of
    `embedding_nd` (n, d) and `counts` (n, g). Without two batches or two types nothing is scored:
    `methods` is then None and `reason` says why.
    """
    if not np.isfinite(embedding_nd).all():
        raise ModelError(
            "integrate: the embedding holds values that are not finite, so the training diverged. "
            "Lower integrate.learning_rate and run it again."
        )
    batch_n, label_n = (
        cells[column].astype(str).to_numpy() for column in (names.BATCH, names.CELL_TYPE)
    )
    scores = describe_cells(batch_n, label_n)
    undefined = find_undefined(batch_n, label_n)
    reason = find_obstacle(undefined, shared_g)
    if reason:
        logger.warning("nothing is scored: %s", reason)
        scores |= {"methods": None, "reason": reason, "undefined": undefined}
        return scores, lay_out_cells(cells.iloc[:0], embedding_nd[:0], embedding_nd[:0], seed)
    pca_nd = embed_pca(counts, total_n, shared_g, batch_n, seed)
    embeddings = embed_methods(np.asarray(embedding_nd, np.float32), pca_nd, batch_n, seed)
    methods = score_embeddings(embeddings, pca_nd, batch_n, label_n)
    parts = score_parts(embeddings, batch_n, label_n, np.random.default_rng([seed, 2]))
    for method, values in methods.items():
        values["parts"] = [part[method][TOTAL] for part in parts]
        logger.info("%s: total %s of %d cells", method, values[TOTAL], len(cells))
    scores |= {"n_shared_genes": int(shared_g.sum()), "undefined": undefined, "methods": methods}
    return scores | compare_totals(methods), lay_out_cells(cells, pca_nd, embedding_nd, seed)


def find_obstacle(undefined: Mapping[str, str], shared_g: np.ndarray) -> str:
    """Why nothing can be scored, or "" where it can."""
    for group in (BIO_METRICS, BATCH_METRICS):
        if all(metric in undefined for metric in group):
            return undefined[group[0]]
    return "" if shared_g.sum() > 2 else "the datasets have fewer than three genes in common"


def embed_methods(
    tabnet_nd: np.ndarray, pca_nd: np.ndarray, batch_n: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The embedding of every method, in the order of the report."""
    rng = np.random.default_rng([seed, 1])
    return {
        TABNET: tabnet_nd,
        PCA: pca_nd,
        HARMONY_PCA: correct_harmony(pca_nd, batch_n, seed),
        HARMONY_TABNET: correct_harmony(tabnet_nd, batch_n, seed),
        RANDOM: draw_random(*tabnet_nd.shape, rng),
    }


def score_parts(
    embeddings: Mapping[str, np.ndarray],
    batch_n: np.ndarray,
    label_n: np.ndarray,
    rng: np.random.Generator,
) -> list[dict[str, dict[str, Any]]]:
    """Scores of every method in disjoint parts of the cells; none where parts are too small.

    What one part shows by luck of its cells, the others need not. Parts have equally many cells of
    every type, and so jax compiles for the first one only.
    """
    parts = divide_cells(label_n, rng)
    if len(parts[0]) <= N_NEIGHBORS:
        return []
    return [
        score_embeddings(
            {method: x_nd[rows] for method, x_nd in embeddings.items()},
            embeddings[PCA][rows],
            batch_n[rows],
            label_n[rows],
        )
        for rows in parts
    ]


def divide_cells(label_n: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Disjoint rows, ascending, with equally many cells of each type; at most two a type rest."""
    order = rng.permutation(len(label_n))
    turn_n = pd.Series(label_n[order]).groupby(label_n[order]).cumcount().to_numpy()
    size_n = pd.Series(label_n[order]).map(pd.Series(label_n).value_counts()).to_numpy()
    kept_n = turn_n < size_n // N_PARTS * N_PARTS
    return [np.sort(order[kept_n & (turn_n % N_PARTS == part)]) for part in range(N_PARTS)]


def compare_totals(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Our total beside every baseline's: the difference, in all cells and in each part.

    A baseline is beaten where our total is higher in all cells and in every part. There is one
    training only: how totals vary between trainings is not known.
    """
    ours = methods[TABNET]
    comparisons = {}
    for baseline in BASELINES:
        theirs = methods[baseline]
        difference = subtract(ours[TOTAL], theirs[TOTAL])
        parts = [subtract(*pair) for pair in zip(ours["parts"], theirs["parts"], strict=True)]
        beaten = bool(parts) and all(one is not None and one > 0 for one in (difference, *parts))
        comparisons[baseline] = {"difference": difference, "parts": parts, "beaten": beaten}
    return {"comparisons": comparisons, "beats_pca": comparisons[PCA]["beaten"]}


def subtract(ours: float | None, theirs: float | None) -> float | None:
    """A difference of totals; None where one has no value."""
    return None if ours is None or theirs is None else round(ours - theirs, 6)
