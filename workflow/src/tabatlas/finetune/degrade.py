"""Cells seen worse than they were, and droplets without a cell: what a rule must keep or refuse."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from tabatlas.finetune.typical import count_molecules
from tabatlas.stream.minibatch import Minibatch

MAX_CELLS = 500  # are degraded: a share of 5 % is then known to 2 %


def thin_counts(minibatch: Minibatch, share_n: Tensor, generator: torch.Generator) -> Minibatch:
    """The cells at a share of their depth: each molecule is kept by a coin flip."""
    share = share_n.float().repeat_interleave(minibatch.indptr.diff())
    kept = torch.binomial(minibatch.count, share, generator=generator)
    others_n = (minibatch.total_n - count_molecules(minibatch)).float()
    others_n = torch.binomial(others_n, share_n.float(), generator=generator).long()
    thinned = replace(minibatch, count=kept)
    return replace(thinned, total_n=count_molecules(thinned) + others_n)


def drop_genes(minibatch: Minibatch, kept_g: Tensor) -> Minibatch:
    """The cells had only the genes `kept_g` (g,) been measured, of the others as large a part."""
    share = float(kept_g.float().mean())
    others_n = minibatch.total_n - count_molecules(minibatch)
    kept = kept_g[minibatch.gene.long()]
    until = torch.nn.functional.pad(kept.long().cumsum(dim=0), (1, 0))
    dropped = replace(
        minibatch,
        indptr=until[minibatch.indptr.long()],
        gene=minibatch.gene[kept],
        count=minibatch.count[kept],
    )
    return replace(dropped, total_n=count_molecules(dropped) + (share * others_n).long())


def permute_genes(minibatch: Minibatch, presence_mg: Tensor, rng: np.random.Generator) -> Minibatch:
    """Each cell's counts on as many genes at random, of those that its dataset measured."""
    measured_ng = presence_mg[minibatch.dataset].numpy()
    lengths_n = minibatch.indptr.diff().tolist()
    genes = [
        rng.permutation(np.flatnonzero(measured_g))[:length]
        for measured_g, length in zip(measured_ng, lengths_n, strict=True)
    ]
    return replace(minibatch, gene=torch.from_numpy(np.concatenate(genes).astype(np.int32)))


def draw_ambient(
    minibatch: Minibatch, depth_n: np.ndarray, n_genes: int, rng: np.random.Generator
) -> Minibatch:
    """Empty droplets of `depth_n` molecules in the cells' places, from all cells of a dataset."""
    counts = minibatch.to_csr(n_genes).astype(np.float64)
    drawn_ng = np.zeros(counts.shape, dtype=np.float32)
    for dataset in np.unique(minibatch.dataset):
        rows = np.flatnonzero(minibatch.dataset.numpy() == dataset)
        pool_g = np.asarray(counts[rows].sum(axis=0)).ravel()
        if pool_g.any():
            drawn_ng[rows] = rng.multinomial(depth_n[rows], pool_g / pool_g.sum())
    drawn = sp.csr_matrix(drawn_ng)
    scale_n = depth_n / np.maximum(count_molecules(minibatch).numpy(), 1)
    total_n = np.maximum(np.rint(minibatch.total_n.numpy() * scale_n), depth_n)
    return replace(
        minibatch,
        indptr=torch.from_numpy(drawn.indptr.astype(np.int64)),
        gene=torch.from_numpy(drawn.indices.astype(np.int32)),
        count=torch.from_numpy(drawn.data),
        total_n=torch.from_numpy(total_n.astype(np.int64)),
    )
