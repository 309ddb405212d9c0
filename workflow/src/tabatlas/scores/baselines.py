"""Baselines that every classifier is held against, on the same cells and genes."""

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

MAX_CELLS = 20_000  # dense 20k × 19k float32 is 1.5 GB
CLIP = 10.0  # standard deviations, as scanpy.pp.scale clips


def sample_cells(label_n: np.ndarray, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """At most `n_cells` rows, the rare classes in full before the frequent ones are thinned."""
    if len(label_n) <= n_cells:
        return np.arange(len(label_n))
    order, turn = draw_turns(label_n, rng)
    # The k-th cell of every class comes before any (k + 1)-th.
    return np.sort(order[np.argsort(turn, kind="stable")[:n_cells]])


def draw_turns(label_n: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of the cells and, along it, how many of a cell's class came before it."""
    order = rng.permutation(len(label_n))
    by_class = np.argsort(label_n[order], kind="stable")
    sorted_labels = label_n[order][by_class]
    turn = np.empty(len(order), dtype=np.int64)
    turn[by_class] = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    return order, turn


class LogisticBaseline:
    """L2 logistic regression on standardised log1p(CP10k)."""

    def __init__(self, cells: sp.csr_matrix, label_n: np.ndarray, n_classes: int) -> None:
        self.n_classes = n_classes
        self.scaler = StandardScaler().fit(cells.toarray())
        # The bits of BLAS depend on its number of threads, and a bundle's version on the bits.
        with threadpool_limits(1):
            self.model = LogisticRegression(C=0.1, max_iter=300).fit(self.scale(cells), label_n)

    def predict(self, cells: sp.csr_matrix) -> np.ndarray:
        """Class probabilities (n, c) of log1p(CP10k) cells; 0 for a class without training cell."""
        probability = np.zeros((cells.shape[0], self.n_classes), dtype=np.float32)
        with threadpool_limits(1):
            probability[:, self.model.classes_] = self.model.predict_proba(self.scale(cells))
        return probability

    @property
    def coefficients_cg(self) -> np.ndarray:
        """Coefficients (c, g) of the standardised values; 0 for a class without training cell."""
        fitted = self.model.coef_
        if len(self.model.classes_) == 2:  # scikit-learn keeps those of the second class only
            fitted = np.concatenate([-fitted, fitted])
        coefficients_cg = np.zeros((self.n_classes, fitted.shape[1]))
        coefficients_cg[self.model.classes_] = fitted
        return coefficients_cg

    def scale(self, cells: sp.csr_matrix) -> np.ndarray:
        """Standardised dense values, clipped (n, g)."""
        return np.clip(self.scaler.transform(cells.toarray()), -CLIP, CLIP)


def predict_majority(label_n: np.ndarray, n_cells: int, n_classes: int) -> np.ndarray:
    """The classes' training frequencies for every cell (n, c)."""
    share = np.bincount(label_n, minlength=n_classes) / len(label_n)
    return np.tile(share, (n_cells, 1))
