"""Do classifiers that differ in the seed alone look at the same genes?"""

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np

from tabatlas.scores.importance import (
    bound_overlap,
    correlate_ranks,
    expect_overlap,
    find_top,
    overlap_sets,
)


def score_stability(
    importance_kcg: np.ndarray, usable_cg: np.ndarray, n_top: int
) -> list[dict[str, Any] | None]:
    """For each type, agreement over all pairs of classifiers; None for a type without genes.

    `usable_cg`: genes that the type's cells measured and express. Only they are compared, and
    random sets of them are the chance. `other_types` is the overlap with the top genes of other
    types in another classifier: as high as the type's own, the genes say nothing about the type.
    """
    top = [list_tops(one_cg, usable_cg, n_top) for one_cg in importance_kcg]
    explained = [number for number, usable_g in enumerate(usable_cg) if usable_g.sum() > 1]
    scores: list[dict[str, Any] | None] = [None] * len(usable_cg)
    for one in explained:
        usable_g = usable_cg[one]
        values = importance_kcg[:, one, usable_g]
        pairs = list(combinations(range(len(top)), 2))
        own = [overlap_sets(top[i][one], top[j][one]) for i, j in pairs]
        foreign = [
            overlap_sets(top[i][one], top[j][other])
            for i, j in permutations(range(len(top)), 2)
            for other in explained
            if other != one
        ]
        scores[one] = {
            "jaccard": float(np.mean(own)),
            "jaccard_chance": expect_overlap(int(usable_g.sum()), n_top),
            "jaccard_bound": bound_overlap(int(usable_g.sum()), n_top),
            "jaccard_other_types": float(np.mean(foreign)) if foreign else None,
            "spearman": float(np.mean([correlate_ranks(values[i], values[j]) for i, j in pairs])),
            # Of permuted ranks the mean is 0, the deviation 1 / √(g - 1), exactly. Pairs of random
            # rankings are independent of each other two by two, so the variances of a mean add up.
            "spearman_chance": float(1.96 / np.sqrt(len(pairs) * (usable_g.sum() - 1))),
            "n_stable": len(find_stable([tops[one] for tops in top])),
        }
    return scores


def list_tops(importance_cg: np.ndarray, usable_cg: np.ndarray, n_top: int) -> list[np.ndarray]:
    """The top genes of each type."""
    return [find_top(value_g, n_top) for value_g in np.where(usable_cg, importance_cg, 0)]


def find_stable(tops: Sequence[np.ndarray]) -> np.ndarray:
    """Genes that are among the top genes of every classifier, in the order of the first one."""
    first, *others = tops
    return first[np.all([np.isin(first, other) for other in others], axis=0)]


def find_own(
    stable: Sequence[np.ndarray], importance_kcg: np.ndarray, usable_cg: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Of each type's stable genes those that say something about it; and the genes of most types.

    A gene is a type's own where it is stable in at most half of the types, and more important in it
    than on average over the types that express the gene, in every classifier. Genes that are stable
    in more than half are what the network looks at in every cell.
    """
    n_types = max(int(usable_cg.any(axis=1).sum()), 1)
    times_g = np.bincount(
        np.concatenate([*stable, []]).astype(np.int64), minlength=usable_cg.shape[1]
    )
    n_usable_g = np.maximum(usable_cg.sum(axis=0), 1)
    mean_kg = (importance_kcg * usable_cg).sum(axis=1) / n_usable_g
    is_rare_g = 2 * times_g <= n_types
    own = [
        genes[is_rare_g[genes] & (importance_kcg[:, one, genes] > mean_kg[:, genes]).all(axis=0)]
        for one, genes in enumerate(stable)
    ]
    return own, np.flatnonzero(~is_rare_g)
