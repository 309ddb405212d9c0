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
    gene = np.concatenate(genes)
    order = np.lexsort((gene, np.repeat(np.arange(len(lengths_n)), lengths_n)))
    return replace(
        minibatch,
        gene=torch.from_numpy(gene[order]).to(minibatch.gene.dtype),
        count=minibatch.count[torch.from_numpy(order)],
    )


def pool_cells(minibatch: Minibatch, n_genes: int) -> np.ndarray:
    """What all cells of its dataset sum to, in each cell's place (n, g)."""
    counts = minibatch.to_csr(n_genes).astype(np.float64)
    dataset_n = minibatch.dataset.numpy()
    pool_ng = np.zeros(counts.shape)
    for dataset in np.unique(dataset_n):
        pool_ng[dataset_n == dataset] = counts[dataset_n == dataset].sum(axis=0)
    return pool_ng


def draw_droplets(
    minibatch: Minibatch, depth_n: np.ndarray, soup_ng: np.ndarray, rng: np.random.Generator
) -> Minibatch:
    """Empty droplets in the cells' places: `depth_n` molecules of the composition `soup_ng`."""
    share_ng = soup_ng / np.maximum(soup_ng.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    drawn = sp.csr_matrix(rng.multinomial(depth_n * soup_ng.any(axis=1), share_ng))
    scale_n = depth_n / np.maximum(count_molecules(minibatch).numpy(), 1)
    total_n = np.maximum(np.rint(minibatch.total_n.numpy() * scale_n), depth_n)
    return replace(
        minibatch,
        indptr=torch.from_numpy(drawn.indptr.astype(np.int64)),
        gene=torch.from_numpy(drawn.indices).to(minibatch.gene.dtype),
        count=torch.from_numpy(drawn.data.astype(np.float32)),
        total_n=torch.from_numpy(total_n.astype(np.int64)),
    )
