"""Scores of an integration: does an embedding keep the biology and lose the batches?

The panel of scib-metrics 0.5.10 (Luecken et al. 2022; BRAS: Rautenstrauch & Ohler 2025) with Leiden
clusters; 0 is bad, 1 is good, nothing is rescaled between methods. Two exchanges: neighbors are
exact, and k-means is the best of ten starts. It has one start there, so that the order of the cells
alone can move the total by 0.04. Batch correction by itself says nothing: a random embedding mixes
batches well.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scib_metrics
from scib_metrics.nearest_neighbors import NeighborsResults
from scib_metrics.utils import silhouette_samples
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from threadpoolctl import threadpool_limits

from tabatlas.scores.kbet import is_testable, score_kbet
from tabatlas.scores.neighbors import find_neighbors

BIO_METRICS = (
    "isolated_labels",
    "leiden_nmi",
    "leiden_ari",
    "kmeans_nmi",
    "kmeans_ari",
    "silhouette_label",
    "clisi",
)
BATCH_METRICS = ("bras", "ilisi", "kbet", "graph_connectivity", "pcr_comparison")
METRICS = BIO_METRICS + BATCH_METRICS
# Silhouettes reward round clusters whatever is in them; scib-metrics takes isolated labels by one.
SILHOUETTES = ("isolated_labels", "silhouette_label", "bras")
BIO, BATCH, TOTAL = "bio_conservation", "batch_correction", "total"
TOTAL_WITHOUT_SILHOUETTES = "total_without_silhouettes"
BIO_WEIGHT = 0.6  # of the total, as in scib
N_NEIGHBORS = 90  # of LISI; kBET's graph has 50, that of clusters and connectivity 15
N_STARTS = 10  # of k-means
DIGITS = 6  # single precision holds no more
STEP = 64  # see `widen`

Scores = dict[str, float | None]


def score_embeddings(
    embeddings: Mapping[str, np.ndarray],
    unintegrated: np.ndarray,
    batch_n: np.ndarray,
    label_n: np.ndarray,
) -> dict[str, Scores]:
    """Every metric and mean of each embedding (n, d), all on the same cells.

    `unintegrated` (n, d) is what batch effects are compared with. None stands for a metric of
    `find_undefined`, which no mean takes in, or one that this embedding alone has no value of,
    which leaves its means undefined too. Neither the order of cells nor that of methods matters.
    """
    undefined = find_undefined(batch_n, label_n)
    batch_n, label_n = (pd.factorize(values, sort=True)[0] for values in (batch_n, label_n))
    # k-means and Leiden draw rows by their places: the places must not depend on the caller.
    order = np.lexsort((*unintegrated.T, batch_n, label_n))
    # The bits of BLAS depend on its number of threads.
    with threadpool_limits(1), quiet():
        return {
            method: score_space(
                Space(x_nd[order], unintegrated[order], batch_n[order], label_n[order]), undefined
            )
            for method, x_nd in embeddings.items()
        }


def find_undefined(batch_n: np.ndarray, label_n: np.ndarray) -> dict[str, str]:
    """Metrics that these cells do not allow, with the reason."""
    table = pd.DataFrame({"batch": batch_n, "label": label_n})
    groups = [group["batch"].to_numpy() for _, group in table.groupby("label", sort=False)]
    undefined: dict[str, str] = {}
    if not any(map(is_testable, groups)):
        undefined["kbet"] = "no type with ten cells in two batches or more"
    if not any(1 < len(np.unique(group)) < len(group) for group in groups):
        undefined["bras"] = "no type with cells in two batches or more"
    if table["label"].nunique() < 2:
        undefined |= dict.fromkeys(BIO_METRICS, "needs two types")
    if table["batch"].nunique() < 2:
        undefined |= dict.fromkeys(BATCH_METRICS, "needs two batches")
    if len(table) <= N_NEIGHBORS:
        undefined |= dict.fromkeys(METRICS, f"needs more than {N_NEIGHBORS} cells")
    return undefined


@dataclass(frozen=True)
class Space:
    """An embedding with the batches and labels of its cells; each metric is a method."""

    x_nd: np.ndarray
    unintegrated_nd: np.ndarray
    batch_n: np.ndarray
    label_n: np.ndarray

    @cached_property
    def neighbors(self) -> NeighborsResults:
        """The nearest neighbors of every cell, itself first."""
        return NeighborsResults(*find_neighbors(self.x_nd, N_NEIGHBORS))

    @cached_property
    def silhouette_n(self) -> np.ndarray:
        """Silhouette of every cell by its label, scaled to 0 … 1."""
        return (silhouette_samples(widen(self.x_nd), self.label_n) + 1) / 2

    @cached_property
    def leiden(self) -> dict[str, float]:
        """Agreement of labels and the best of ten Leiden clusterings."""
        return scib_metrics.nmi_ari_cluster_labels_leiden(
            self.neighbors.subset_neighbors(15), self.label_n
        )

    @cached_property
    def kmeans(self) -> dict[str, float]:
        """Agreement of labels and k-means with as many clusters."""
        n_clusters = len(np.unique(self.label_n))
        search = KMeans(n_clusters, n_init=N_STARTS, random_state=0)
        cluster_n = search.fit_predict(self.x_nd.astype(np.float64))
        return {
            "nmi": normalized_mutual_info_score(self.label_n, cluster_n),
            "ari": adjusted_rand_score(self.label_n, cluster_n),
        }

    def isolated_labels(self) -> float:
        """Mean silhouette of the types that the fewest batches have, each type alike."""
        pairs = pd.DataFrame({"label": self.label_n, "batch": self.batch_n}).drop_duplicates()
        n_batches = pairs["label"].value_counts()
        means = pd.Series(self.silhouette_n).groupby(self.label_n).mean()
        return means[n_batches.index[n_batches == n_batches.min()]].mean()

    def silhouette_label(self) -> float:
        """Mean silhouette by label."""
        return self.silhouette_n.mean()

    def leiden_nmi(self) -> float:
        """Normalized mutual information of labels and Leiden clusters."""
        return self.leiden["nmi"]

    def leiden_ari(self) -> float:
        """Adjusted Rand index of labels and Leiden clusters."""
        return self.leiden["ari"]

    def kmeans_nmi(self) -> float:
        """Normalized mutual information of labels and k-means clusters."""
        return self.kmeans["nmi"]

    def kmeans_ari(self) -> float:
        """Adjusted Rand index of labels and k-means clusters."""
        return self.kmeans["ari"]

    def clisi(self) -> float:
        """Purity of neighborhoods: how few labels meet in one."""
        return scib_metrics.clisi_knn(self.neighbors, self.label_n)

    def ilisi(self) -> float:
        """Mixing of neighborhoods: how many batches meet in one."""
        return scib_metrics.ilisi_knn(self.neighbors, self.batch_n)

    def bras(self) -> float:
        """Silhouette by batch within each label, adapted to nested batches; 1 is mixed."""
        return scib_metrics.bras(widen(self.x_nd), self.label_n, self.batch_n)

    def kbet(self) -> float:
        """Share of neighborhoods with the batches of their type."""
        graph = self.neighbors.subset_neighbors(50).knn_graph_connectivities
        return score_kbet(graph, self.batch_n, self.label_n)

    def graph_connectivity(self) -> float:
        """Share of each label's cells that hang together in the graph of neighbors."""
        return scib_metrics.graph_connectivity(self.neighbors.subset_neighbors(15), self.label_n)

    def pcr_comparison(self) -> float:
        """Share of the variance by batch that integration took away; 0 where it grew."""
        return scib_metrics.pcr_comparison(
            self.unintegrated_nd, self.x_nd, self.batch_n, categorical=True
        )


def score_space(space: Space, undefined: Mapping[str, str]) -> Scores:
    """Every metric of one embedding and the means over them."""
    defined = [metric for metric in METRICS if metric not in undefined]
    scores: Scores = dict.fromkeys(METRICS)
    scores |= {metric: round_score(getattr(space, metric)()) for metric in defined}
    robust = [metric for metric in defined if metric not in SILHOUETTES]
    bio, batch = (average(scores, pick(defined, group)) for group in (BIO_METRICS, BATCH_METRICS))
    scores |= {BIO: bio, BATCH: batch, TOTAL: weigh(bio, batch)}
    scores[TOTAL_WITHOUT_SILHOUETTES] = weigh(
        *(average(scores, pick(robust, group)) for group in (BIO_METRICS, BATCH_METRICS))
    )
    return scores


def pick(metrics: Iterable[str], group: Iterable[str]) -> list[str]:
    """Those of the metrics that belong to a group."""
    return [metric for metric in metrics if metric in group]


def average(scores: Scores, metrics: Iterable[str]) -> float | None:
    """Mean of some metrics; None where one has no value or there is none."""
    values = [scores[metric] for metric in metrics]
    return None if not values or None in values else round_score(np.mean(values))


def weigh(bio: float | None, batch: float | None) -> float | None:
    """The total of scib: 0.6 biology, 0.4 batches."""
    if bio is None or batch is None:
        return None
    return round_score(BIO_WEIGHT * bio + (1 - BIO_WEIGHT) * batch)


def round_score(value: float) -> float | None:
    """A score to the digits that mean something; None where it is not a number."""
    return round(float(value), DIGITS) if np.isfinite(value) else None


def widen(x_nd: np.ndarray) -> np.ndarray:
    """The embedding with columns of zeros up to the next multiple of 64.

    No distance changes, and jax, which compiles for half a second for every shape that it meets,
    meets embeddings of 30 and of 64 columns as one.
    """
    return np.pad(x_nd, ((0, 0), (0, -x_nd.shape[1] % STEP)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the words of scib-metrics and jax, which are said to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="PCR comparison score is negative")
            yield
    finally:
        logging.disable(before)
