"""Highly variable genes: each dataset ranks the genes that it measured, then all of them vote.

A gene that a dataset did not measure is no zero there: it neither gains nor loses by it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import anndata as ad
import numpy as np
import scanpy as sc
import scipy.sparse as sp

from tabatlas.counts import log1p_cp10k


@dataclass(frozen=True)
class Sample:
    """Training cells of one dataset: counts (n, g), totals (n,), and which genes it measured."""

    counts: sp.csr_matrix
    total_n: np.ndarray
    measured_g: np.ndarray


def rank_variable_genes(samples: Iterable[Sample], n_candidates: int, n_top: int) -> np.ndarray:
    """Positions of the `n_top` most variable of the candidate genes, ascending.

    First come genes that are variable in most datasets, then those of the largest mean normalized
    dispersion over the datasets that measured them. Where all measured every gene, this is
    `scanpy.pp.highly_variable_genes` with the flavor "seurat" and the dataset as `batch_key`. In
    every dataset the same share of the measured genes is variable, so that a panel, which is all
    of its own choice, does not vote for everything it has.
    """
    votes_g, total_g, n_g = np.zeros((3, n_candidates))
    for sample in samples:
        dispersion_g = measure_dispersion(sample)
        wanted = round(n_top * sample.measured_g.sum() / n_candidates)
        votes_g += find_highest(dispersion_g, wanted)
        known_g = ~np.isnan(dispersion_g)
        total_g[known_g] += dispersion_g[known_g]
        n_g += known_g
    mean_g = np.divide(total_g, n_g, out=np.full(n_candidates, -np.inf), where=n_g > 0)
    return np.sort(np.lexsort((-mean_g, -votes_g))[:n_top])


def measure_dispersion(sample: Sample) -> np.ndarray:
    """Normalized dispersion (g,) of the genes of a dataset; NaN where it was not measured.

    0, the mean, for a measured gene that no cell expresses, as scanpy has it.
    """
    found_g = np.where(sample.measured_g, 0.0, np.nan)
    expressed_g = sample.measured_g & (sample.counts.getnnz(axis=0) > 0)
    if expressed_g.any():
        values = log1p_cp10k(sample.counts[:, expressed_g], sample.total_n)
        table = sc.pp.highly_variable_genes(ad.AnnData(X=values), inplace=False)
        found_g[expressed_g] = table["dispersions_norm"]
    return found_g


def find_highest(values_g: np.ndarray, n: int) -> np.ndarray:
    """Which values are among the `n` highest (g,) bool; NaN is never, equals of the last are."""
    known = np.sort(values_g[~np.isnan(values_g)])
    if not n or not len(known):
        return np.zeros(len(values_g), dtype=bool)
    return np.nan_to_num(values_g, nan=-np.inf) >= known[-min(n, len(known))]
