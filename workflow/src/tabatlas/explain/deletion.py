"""The deletion test: does the model need the genes that its masks name?

A cell's top genes are hidden from it, as unmeasured genes are: a token in the input, −inf in the
mask. Beside it, random genes of equal mean expression are hidden, and the top genes of logistic
regression.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse as sp
from torch import Tensor

from tabatlas.scores.baselines import LogisticBaseline
from tabatlas.scores.importance import find_top
from tabatlas.tabnet.classifier import Classifier
from tabatlas.tabnet.covariates import Covariates
from tabatlas.tabnet.entries import Entries, GeneSets
from tabatlas.tabnet.importance import weigh_masks

SIZES = (1, 2, 5, 10, 20, 50)
LEAST_JITTER = 10  # ranks of expression by which a matched gene may be off
JITTER = 0.0125  # the same, as a share of all genes: 25 of 2,000


class Deletion(NamedTuple):
    """Of n cells: by how much the predicted class loses probability when i numbers of genes go.

    `control_ni` is the mean over draws, `hidden_ni` the number really hidden, equal for all three.
    The mean expression of the largest hidden sets tells how well the control matches.
    """

    tabnet_ni: np.ndarray
    control_ni: np.ndarray
    logistic_ni: np.ndarray
    hidden_ni: np.ndarray
    tabnet_expression_n: np.ndarray
    control_expression_n: np.ndarray


@dataclass(frozen=True)
class DeletionTest:
    """Deletes genes from minibatches; one of them after the other, with one generator."""

    classifier: Classifier
    temperature: float
    logistic: LogisticBaseline
    expression_cg: np.ndarray
    rank_cg: np.ndarray
    sizes: Sequence[int]
    n_draws: int
    rng: np.random.Generator

    def __call__(self, x: Entries, missing: GeneSets, covariates: Covariates) -> Deletion:
        """What these cells lose."""
        logits_nc, encoding = self.classifier.classify(x, missing, covariates)
        class_n = logits_nc.argmax(dim=1)
        # From here on dense: each cell hides genes of its own, so there are as many sets as cells.
        missing_ng = missing.to_dense()
        x_ng = x.to_dense(missing_ng.shape[1])
        importance = weigh_masks(encoding.masks, encoding.decision_snd)
        of_genes = importance.keep(importance.gene < x_ng.shape[1])
        importance_ng = of_genes.to_dense(x_ng.shape[1]).cpu().numpy()
        whole_n = self.read_probability(logits_nc, class_n)
        answer = partial(self.answer, x_ng, covariates, class_n)
        predicted_n, absent_ng = class_n.cpu().numpy(), missing_ng.cpu().numpy()
        top_nk = rank_genes(importance_ng, self.sizes[-1])
        peer_ng = self.weigh_genes(x_ng.cpu().numpy(), predicted_n)
        peer_nk = rank_genes(np.where(absent_ng, 0, peer_ng), self.sizes[-1])
        mean_ng = self.expression_cg[predicted_n]

        draws = [
            match_genes(top_nk, self.rank_cg[predicted_n], ~absent_ng & (mean_ng > 0), self.rng)
            for _ in range(self.n_draws)
        ]
        cut = [cut_sets([top_nk, peer_nk, *draws], size) for size in self.sizes]

        def lose(number: int) -> np.ndarray:
            hidden = (hide_genes(missing_ng, sets[number]) for sets in cut)
            left = torch.stack([answer(hidden_ng) for hidden_ng in hidden], dim=1)
            return (whole_n[:, None] - left).cpu().numpy()

        top_nk, _, *draws = cut[-1]
        return Deletion(
            lose(0),
            np.mean([lose(2 + draw) for draw in range(self.n_draws)], axis=0),
            lose(1),
            np.stack([(sets[0] >= 0).sum(axis=1) for sets in cut], axis=1),
            average_genes(mean_ng, top_nk),
            np.mean([average_genes(mean_ng, control_nk) for control_nk in draws], axis=0),
        )

    def weigh_genes(self, x_ng: np.ndarray, predicted_n: np.ndarray) -> np.ndarray:
        """What each gene adds to logistic regression's logit of the predicted class (n, g)."""
        scaled_ng = self.logistic.scale(sp.csr_matrix(x_ng))
        return self.logistic.coefficients_cg[predicted_n] * scaled_ng

    def answer(
        self, x_ng: Tensor, covariates: Covariates, class_n: Tensor, hidden_ng: Tensor
    ) -> Tensor:
        """Calibrated probability of each cell's class with genes hidden (n,)."""
        return self.read_probability(self.classifier(x_ng, hidden_ng, covariates)[0], class_n)

    def read_probability(self, logits_nc: Tensor, class_n: Tensor) -> Tensor:
        """Calibrated probability of each cell's class (n,)."""
        scaled_nc = logits_nc.double() / self.temperature
        return torch.softmax(scaled_nc, 1).gather(1, class_n[:, None])[:, 0]


def choose_sizes(n_expressed: int) -> tuple[int, ...]:
    """Numbers of genes to hide, given how many the poorest type measured and expresses.

    At most a fifth of them, so that matched genes seldom run out.
    """
    return tuple(size for size in SIZES if size <= max(n_expressed // 5, 1))


def cut_sets(sets: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """The first `size` genes of each set (n, k), cut to the number that all of them have.

    −1 is none. Two sets of unequal number say nothing about which genes the model needs.
    """
    first = [gene_nk[:, :size] for gene_nk in sets]
    counts = [(gene_nk >= 0).cumsum(axis=1) for gene_nk in first]
    least_n = np.min([count_nk[:, -1] for count_nk in counts], axis=0)
    return [
        np.where(count_nk <= least_n[:, None], gene_nk, -1)
        for gene_nk, count_nk in zip(first, counts, strict=True)
    ]


def rank_genes(value_ng: np.ndarray, n_top: int) -> np.ndarray:
    """Each cell's top genes (n, k), largest first, −1 where fewer are above 0."""
    top_nk = np.full((len(value_ng), n_top), -1)
    for row, value_g in zip(top_nk, value_ng, strict=True):
        found = find_top(value_g, n_top)
        row[: len(found)] = found
    return top_nk


def hide_genes(missing_ng: Tensor, gene_nk: np.ndarray) -> Tensor:
    """`missing_ng` with further genes of each cell hidden; −1 is none."""
    hidden_ng = missing_ng.clone()
    cell, place = (gene_nk >= 0).nonzero()
    hidden_ng[torch.from_numpy(cell), torch.from_numpy(gene_nk[cell, place])] = True
    return hidden_ng


def average_genes(mean_ng: np.ndarray, gene_nk: np.ndarray) -> np.ndarray:
    """Mean expression of a set of genes per cell (n,); 0 of an empty one."""
    values_nk = np.take_along_axis(mean_ng, np.maximum(gene_nk, 0), axis=1) * (gene_nk >= 0)
    return values_nk.sum(axis=1) / np.maximum((gene_nk >= 0).sum(axis=1), 1)


def rank_expression(expression_cg: np.ndarray) -> np.ndarray:
    """Rank of each gene by its mean expression in a type (c, g)."""
    return expression_cg.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def match_genes(
    chosen_nk: np.ndarray, rank_ng: np.ndarray, allowed_ng: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """For each chosen gene another one, allowed and of about its rank by mean expression (n, k).

    All genes of a row are distinct, and none of them is a chosen one.
    """
    matched_nk = np.full_like(chosen_nk, -1)
    for row, chosen_k, rank_g, allowed_g in zip(
        matched_nk, chosen_nk, rank_ng, allowed_ng, strict=True
    ):
        chosen = chosen_k[chosen_k >= 0]
        free_g = allowed_g.copy()
        free_g[chosen] = False
        row[: len(chosen)] = match_row(chosen, rank_g, np.flatnonzero(free_g), rng)
    return matched_nk


def match_row(
    chosen: np.ndarray, rank_g: np.ndarray, free: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """For each chosen gene one of the free ones, in its place; −1 where they run out."""
    matched = np.full(len(chosen), -1)
    if not len(free):
        return matched
    reach = max(LEAST_JITTER, JITTER * len(rank_g))
    # A random shift of the ranks makes each draw another one and keeps it near.
    shifted = rank_g[free] + rng.uniform(-reach, reach, len(free))
    order = np.argsort(shifted)
    by_rank = np.argsort(rank_g[chosen], kind="stable")
    turn = np.arange(len(chosen))
    place = np.searchsorted(shifted[order], rank_g[chosen[by_rank]])
    # The nearest place that no gene before has taken, moved down where the end is reached.
    place = np.maximum.accumulate(place - turn) + turn
    place = np.minimum(place, len(free) - len(chosen) + turn)
    matched[by_rank] = np.where(place >= 0, free[order[np.maximum(place, 0)]], -1)
    return matched
